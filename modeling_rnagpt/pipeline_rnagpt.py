"""`pipeline("rna-text-generation")` of RNA-GPT (ships with every checkpoint): questions about RNAs in, answers out.

pipe = pipeline("rna-text-generation", model="owner/name", trust_remote_code=True)
pipe({"rna": "GCGGAUUUAGCUC...", "text": "What type of RNA is this?"}, max_new_tokens=40)
-> {"generated_text": "..."}
"""

from transformers import Pipeline


class RnaTextGenerationPipeline(Pipeline):
    """Answers by greedy search or as `generate`'s own arguments say, which every call and the constructor take.

    An input is one of these; a list of them (with `batch_size=` in batches) gives a list of answers.
        {"rna": a sequence or a list of sequences, "text": a question}; either may be left out
        a conversation, [{"role": "user", "content": [{"type": "rna", ...}, {"type": "text", ...}]}, ...]
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False
    _pipeline_calls_generate = True

    def __call__(self, inputs, **kwargs):
        """One answer {"generated_text": str} for one input, a list of them for a list."""
        single = is_conversation(inputs) or not isinstance(inputs, list | tuple)
        # a dictionary around each: transformers would make `Chat` objects of bare conversations
        rows = [{"messages": messages_of(each)} for each in ([inputs] if single else inputs)]
        answers = super().__call__(rows, **kwargs)
        return answers[0] if single else answers

    def _sanitize_parameters(self, **generate_kwargs):
        return {}, {"generate_kwargs": generate_kwargs}, {}

    def preprocess(self, inputs) -> dict:
        # Not tokenised yet: the processor pads a whole batch, RNAs and text, in one call.
        return inputs

    def _forward(self, model_inputs, generate_kwargs) -> dict:
        messages = model_inputs["messages"]
        batch = self.processor([messages] if is_conversation(messages) else messages).to(self.device)
        ids = self.model.generate(**batch, **self._prepare_generate_kwargs(generate_kwargs))
        answers = self.processor.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        return {"answers": answers}

    def postprocess(self, model_outputs) -> dict:
        answer = model_outputs["answers"]
        return {"generated_text": (answer if isinstance(answer, str) else answer[0]).strip()}

    def save_pretrained(self, save_directory, **kwargs):
        """The model, as in transformers, and the processor, which transformers leaves out."""
        super().save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


def is_conversation(inputs) -> bool:
    """Whether this is a list of messages, not a list of inputs."""
    return isinstance(inputs, list | tuple) and bool(inputs) and isinstance(inputs[0], dict) and "role" in inputs[0]


def messages_of(inputs) -> list[dict]:
    """A conversation as it is; {"rna": ..., "text": ...} -> a conversation of one turn.

    >>> messages_of({"rna": "ACGU", "text": "Type?"})[0]["content"]
    [{'type': 'rna', 'rna': 'ACGU'}, {'type': 'text', 'text': 'Type?'}]
    """
    if is_conversation(inputs):
        return list(inputs)
    if not isinstance(inputs, dict) or not inputs or set(inputs) - {"rna", "text"}:
        raise ValueError(
            'an input is {"rna": a sequence or several, "text": a question} or a conversation (a list of messages); '
            f"got {sorted(inputs) if isinstance(inputs, dict) else type(inputs).__name__}"
        )
    rnas = inputs.get("rna") or []
    parts = [{"type": "rna", "rna": rna} for rna in ([rnas] if isinstance(rnas, str) else rnas)]
    if inputs.get("text"):
        parts.append({"type": "text", "text": inputs["text"]})
    return [{"role": "user", "content": parts}]


__all__ = ["RnaTextGenerationPipeline"]
