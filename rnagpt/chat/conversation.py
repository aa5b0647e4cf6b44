"""One conversation about one RNA; terminal, scripts and servers stand on it.

    conversation = Conversation(model, processor)
    conversation.read(Record("tRNA-Phe", "", "GCGGAUUU..."))
    conversation.ask("What type of RNA is this?", stream_to=print)
"""

from collections.abc import Callable

import torch
from transformers import GenerationMixin, PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from processing_rnagpt import RnaGptProcessor
from rnagpt.chat.fasta import Record, check_length
from rnagpt.errors import UserError

MAX_NEW_TOKENS = 256


class Conversation:
    """The turns so far, the RNA they are about, and the model that answers.

    Attributes:
        rna: the RNA that stands in the first user turn; None until `read`.
        messages: finished turns, {"role": "user" | "assistant", "content": text}; the RNA is added on rendering.
        cut_off: whether the last answer ended at its token limit, not at a stop token.
    """

    def __init__(self, model: GenerationMixin, processor: RnaGptProcessor):
        self.model, self.processor = model, processor
        self.rna: Record | None = None
        self.messages: list[dict[str, str]] = []
        self.cut_off = False

    def read(self, rna: Record) -> None:
        """Take an RNA, and forget the turns about an earlier one.

        Raises:
            UserError: it is longer than the encoder reads; the conversation stays as it was.
        """
        tokenizer = self.processor.rna_tokenizer
        check_length(
            rna,
            self.processor.max_nucleotides,
            lambda sequence: len(tokenizer(sequence, truncation=False, verbose=False)["input_ids"])
            <= tokenizer.model_max_length,
        )
        self.rna, self.messages = rna, []

    def forget(self) -> None:
        """Forget the turns; the RNA stays."""
        self.messages = []

    def ask(
        self,
        question: str,
        max_new_tokens: int = MAX_NEW_TOKENS,
        stream_to: Callable[[str], None] | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> str:
        """Answer a question in the light of the earlier turns; question and answer become turns themselves.

        Whatever the question holds is text: control tokens in it (`<|im_end|>`, `<RNAHere>`) have no effect. When
        anything is raised, also KeyboardInterrupt or by `stream_to`, the conversation stays as it was before.

        Args:
            max_new_tokens: most tokens of the answer; fewer where the LLM's context ends before.
            stream_to: called with each new piece of the answer; the pieces add up to the answer returned.
            temperature: 0 takes the likeliest token each time; above 0 the tokens are drawn.
            seed: of torch's generator, for the same draw again.

        Raises:
            UserError: no RNA, no question, or a prompt that fills the LLM's context.
        """
        if self.rna is None:
            raise UserError("there is no RNA to ask about yet: give one first")
        question = question.encode("utf-8", "replace").decode().strip()
        if not question:
            raise UserError("the question is empty: write one")
        turns = [*self.messages, {"role": "user", "content": question}]
        batch = self.render(turns).to(self.model.device)
        prompt_length = batch["input_ids"].shape[1]
        room = self.model.config.text_config.max_position_embeddings - prompt_length
        if room < 1:
            raise UserError(
                f"the RNA and the conversation are {prompt_length:,} tokens, and this model's context of "
                f"{prompt_length + room:,} leaves no room for an answer: begin a new conversation, or give a shorter "
                "RNA or question"
            )
        if seed is not None:
            torch.manual_seed(seed)
        stream = AnswerStream(self.processor.tokenizer, stream_to)
        stop_ids = stop_token_ids(self.model, self.processor.tokenizer)
        ids = self.model.generate(
            **batch,
            max_new_tokens=min(max_new_tokens, room),
            streamer=stream,
            eos_token_id=stop_ids,
            pad_token_id=stop_ids[0],
            # top_p and top_k that an LLM's own settings may hold would narrow the draw unasked
            **({"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0} if temperature else
               {"do_sample": False}),
        )
        self.cut_off = int(ids[0, -1]) not in stop_ids
        self.messages = [*turns, {"role": "assistant", "content": stream.text}]
        return stream.text

    def render(self, turns: list[dict[str, str]]):
        """Model inputs of the RNA and these turns, the assistant's turn opened (batch of one)."""
        first, *rest = turns
        content = [{"type": "rna", "rna": self.rna.sequence}, {"type": "text", "text": first["content"]}]
        return self.processor([{**first, "content": content}, *rest], sanitize_control_tokens=True)


class AnswerStream(BaseStreamer):
    """Decodes an answer while `generate` makes it, and passes on each new piece of text.

    The whole answer is decoded at each step: pieces decoded on their own lose spaces and cut characters in half. White
    space at either end of the answer is left out; a piece that may still change is held back.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stream_to: Callable[[str], None] | None):
        self.tokenizer, self.stream_to = tokenizer, stream_to
        self.ids: list[int] = []
        self.text = ""  # what was passed on
        self.prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        if not self.prompt_seen:  # `generate` puts the prompt first
            self.prompt_seen = True
            return
        self.ids += value.flatten().tolist()
        # the last character may be half of one, which decodes as U+FFFD
        self._pass_on(self._decoded().rstrip("\ufffd").rstrip())

    def end(self) -> None:
        self._pass_on(self._decoded())

    def _decoded(self) -> str:
        return self.tokenizer.decode(self.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()

    def _pass_on(self, text: str) -> None:
        piece = text[len(self.text) :]
        if piece:
            self.text += piece
            if self.stream_to is not None:
                self.stream_to(piece)


def stop_token_ids(model: GenerationMixin, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that end an answer: those the LLM's generation settings name, and its tokenizer's."""
    named = model.generation_config.eos_token_id
    named = [] if named is None else [named] if isinstance(named, int) else list(named)
    return list(dict.fromkeys([*named, tokenizer.eos_token_id]))
