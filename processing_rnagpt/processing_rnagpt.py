"""RNA-GPT's processor (ships with every checkpoint): text and RNAs in, one padded batch out.

    processor([{"role": "user", "content": [{"type": "rna", "rna": "ACGU..."},
                                            {"type": "text", "text": "What type of RNA is this?"}]}])
    -> input_ids, attention_mask (batch, seq); rna_input_ids, rna_attention_mask (batch, n_rna, length)

This is the only place that expands `<RNAHere>`: into one placeholder per soft token, counted from the RNA tokenizer's
own output, never from the length of the string. How RNAs are read, and how long ones are cut: `rna_sequences.py`.
"""

import torch
from jinja2 import TemplateError
from transformers import BatchFeature, ProcessorMixin

from .rna_sequences import (
    LONG_RNA_POLICIES,
    RnaAlphabet,
    RnaInput,
    RnaReader,
    encoder_inputs,
    feature_inputs,
    normalize_rna,
)

RNA_TOKEN = "<RNAHere>"
RNA_BLOCK = f"<RNA>{RNA_TOKEN}</RNA>"
# Stands for an RNA block while a chat is rendered with `sanitize_control_tokens`: a private-use character, taken out
# of everything typed, so it tells the block put there for an RNA from a `<RNAHere>` that somebody wrote.
RNA_MARK = "\U000f0010"


class RnaGptProcessor(ProcessorMixin):
    """Wraps the LLM's tokenizer and the encoder's tokenizer.

    Args:
        tokenizer: the LLM's tokenizer; `<RNAHere>` is added to it when missing.
        rna_tokenizer: the encoder's tokenizer; its `model_max_length` is the encoder's limit.
        chat_template: a Jinja template, or named templates with one called "default"; the LLM's own when left out.
        rna_pool_size: encoder positions averaged into one soft token, the same number as in the model's config.
        keep_rna_special_tokens: whether the encoder's BOS and EOS become soft tokens too.
        long_rna: what happens to an RNA over the encoder's limit: "windows" reads all of it in overlapping windows
            and keeps one feature of each nucleotide, "truncate" reads its beginning, "error" refuses it.
        rna_window_overlap: least share of a window that it has in common with the next one.
    """

    def __init__(
        self,
        tokenizer=None,
        rna_tokenizer=None,
        chat_template=None,
        rna_pool_size=1,
        keep_rna_special_tokens=False,
        long_rna="windows",
        rna_window_overlap=0.25,
    ):
        if tokenizer is not None and RNA_TOKEN not in tokenizer.get_vocab():
            tokenizer.add_special_tokens(
                {"additional_special_tokens": [RNA_TOKEN]}, replace_extra_special_tokens=False
            )
        if tokenizer is not None and tokenizer.pad_token is None:
            # Llama 3 and Mistral have none. Whatever stands there is hidden by the attention mask, so the stop token
            # serves; an added one could lie beyond the embedding table.
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.bos_token
        if long_rna not in LONG_RNA_POLICIES:
            raise ValueError(f"long_rna is one of {', '.join(LONG_RNA_POLICIES)}, got {long_rna!r}")
        self.rna_pool_size = rna_pool_size
        self.keep_rna_special_tokens = keep_rna_special_tokens
        self.long_rna = long_rna
        self.rna_window_overlap = rna_window_overlap
        self._rna_alphabet: RnaAlphabet | None = None
        self._turn_ends: dict[str | None, int | None] = {}
        super().__init__(tokenizer, rna_tokenizer, chat_template=chat_template or tokenizer.chat_template)

    @property
    def rna_token_id(self) -> int:
        """Id of `<RNAHere>`; equals the model's `config.rna_token_id`."""
        return self.tokenizer.convert_tokens_to_ids(RNA_TOKEN)

    @property
    def stop_token_ids(self) -> list[int]:
        """Tokens that end an answer: the tokenizer's own, and the one that closes the assistant's turn in the default
        template, which is another one in some LLMs (Gemma's `<end_of_turn>`)."""
        ends = [self.tokenizer.eos_token_id, self.turn_end_id()]
        return list(dict.fromkeys(end for end in ends if end is not None))

    def turn_end_id(self, chat_template: str | None = None) -> int | None:
        """Control token that follows the assistant's words in a chat template; None where there is none."""
        if chat_template in self._turn_ends:
            return self._turn_ends[chat_template]
        words = "An answer of words."
        turns = [{"role": "user", "content": "A question?"}, {"role": "assistant", "content": words}]
        *_, after = self.apply_chat_template(turns, chat_template=chat_template).rpartition(words)
        ids = self.tokenizer(after, add_special_tokens=False)["input_ids"][:1]
        control = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        self._turn_ends[chat_template] = ids[0] if ids and ids[0] in control else None
        return self._turn_ends[chat_template]

    @property
    def rna_drop_token_ids(self) -> list[int]:
        """Encoder tokens that become no soft token; equals the model's `config.rna_drop_token_ids`."""
        if self.keep_rna_special_tokens:
            return []
        t = self.rna_tokenizer
        marks = {t.cls_token_id, t.bos_token_id, t.eos_token_id, t.sep_token_id} - {None}
        ends = {*self.rna_alphabet.prefix.tolist(), *self.rna_alphabet.suffix.tolist()}
        return sorted(marks | ends)

    @property
    def max_nucleotides(self) -> int:
        """Longest RNA the encoder reads in one window, in its own tokens (nt for RNA-FM)."""
        return self.rna_reader.max_tokens

    @property
    def rna_reader(self) -> RnaReader:
        """RNA text -> encoder tokens, by this processor's settings."""
        settings = self.rna_pool_size, self.long_rna, self.rna_window_overlap, self.rna_alphabet
        return RnaReader(self.rna_tokenizer, self.rna_drop_token_ids, *settings)

    @property
    def rna_alphabet(self) -> RnaAlphabet:
        """How the encoder's tokenizer spells RNAs."""
        if self._rna_alphabet is None:
            self._rna_alphabet = RnaAlphabet.of(self.rna_tokenizer)
        return self._rna_alphabet

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "rna_input_ids", "rna_attention_mask", "rna_index"]

    def rna_input(self, sequence: str) -> RnaInput:
        """One RNA read: what may stand wherever a sequence does, so that it is read once (see `rna_inputs`)."""
        return self.rna_inputs([sequence])[0]

    def rna_inputs(self, rnas: list[str | RnaInput]) -> list[RnaInput]:
        """RNAs read; those that are already pass.

        Raises:
            ValueError: an RNA is empty, holds something else than nucleotides, or is longer than the encoder reads
                (where `long_rna` is "error"); the message names which one and where.
        """
        read = iter(self.rna_reader.read([rna for rna in rnas if not isinstance(rna, RnaInput)]))
        return [rna if isinstance(rna, RnaInput) else next(read) for rna in rnas]

    def rna_batch(self, rows: list[list[RnaInput]]) -> dict[str, torch.Tensor]:
        """The model's inputs for the RNAs of each prompt: their features where all have them, else the encoder's
        inputs (see `feature_inputs`, `encoder_inputs`); {} where no prompt has an RNA."""
        rnas = [rna for row in rows for rna in row]
        if not rnas:
            return {}
        if all(rna.features is not None for rna in rnas):
            return feature_inputs(rows)
        return encoder_inputs(rows, self.rna_tokenizer.pad_token_id)

    def __call__(
        self,
        text=None,
        rna=None,
        images=None,
        videos=None,
        audio=None,
        padding=True,
        padding_side="left",
        return_tensors="pt",
        add_special_tokens=None,
        sanitize_control_tokens=False,
        **kwargs,
    ) -> BatchFeature:
        """Expand `<RNAHere>` and tokenise text and RNAs.

        Args:
            text: a string, a list of strings, a conversation (list of messages) or a list of conversations; a
                conversation is rendered by the chat template with the assistant's turn opened, or, where its last
                message is the assistant's, left open to be continued.
            rna: for one text a sequence or a list of sequences; for a list of texts one such entry (or None) for each.
                RNAs may also stand inside the messages, as {"type": "rna", "rna": "ACGU"}. What `rna_input` gave may
                stand for a sequence.
            padding, padding_side, add_special_tokens, kwargs: for the LLM's tokenizer; padded on the left, which
                `generate` needs.
            return_tensors: "pt", "np", or None for lists.
            sanitize_control_tokens: for conversations, encode control tokens in the messages (`<|im_end|>`,
                `<RNAHere>`) as the plain text they are; use it for what a stranger typed. RNAs then stand inside the
                messages as {"type": "rna"} parts. (For strings: they come from such a rendering.)

        Returns:
            input_ids, attention_mask: (batch, seq) int64; with RNA also what `rna_batch` gives: rna_input_ids,
            rna_attention_mask: (batch, n_rna, length) int64, where rows of zeros in the mask are absent RNAs, and
            rna_index where an RNA takes several windows; or the features of RNAs that were encoded before.

        Raises:
            ValueError: counts of `<RNAHere>` and RNAs disagree, an RNA cannot be read, a message is malformed, or
                truncation would cut an RNA.
        """
        if images is not None or videos is not None or audio is not None:
            raise ValueError("RNA-GPT reads text and RNA; images, videos and audio are not supported")
        if text is None or (isinstance(text, list) and not text):
            raise ValueError("give at least one text or conversation")
        if not isinstance(text, str | list | tuple):
            raise ValueError(f"text is a string, or a list of strings or messages, got {type(text).__name__}")
        tokenizing = {"padding": padding, "padding_side": padding_side, "return_tensors": return_tensors, **kwargs}
        if isinstance(text, list) and not isinstance(text[0], str):
            return self._read_conversations(text, sanitize_control_tokens, {"rna": rna, **tokenizing})
        texts: list[str] = [text] if isinstance(text, str) else list(text)
        if not all(texts):
            raise ValueError("a text is empty: give at least one character")
        rows = self._rna_rows(rna, isinstance(text, str), len(texts))
        if add_special_tokens is None:
            # A rendered chat begins with its BOS already; a second one would shift every position.
            add_special_tokens = not (self.tokenizer.bos_token and texts[0].startswith(self.tokenizer.bos_token))
        data = dict(
            self.tokenizer(
                self.expand(texts, rows, sanitize_control_tokens),
                add_special_tokens=add_special_tokens,
                return_token_type_ids=False,
                sanitize_control_tokens=sanitize_control_tokens,
                **tokenizing,
            )
        )
        if kwargs.get("truncation"):
            left = sum(list(ids).count(self.rna_token_id) for ids in data["input_ids"])
            wanted = sum(rna.soft_tokens for row in rows for rna in row)
            if left < wanted:
                raise ValueError(f"truncation leaves {left:,} of the RNAs' {wanted:,} soft tokens: allow more")
        batch = self.rna_batch(rows)
        if return_tensors != "pt":
            batch = {name: tensor.numpy() for name, tensor in batch.items()}
        if return_tensors is None:
            batch = {name: array.tolist() for name, array in batch.items()}
        return BatchFeature(data | batch, tensor_type=None)

    def _read_conversations(self, text: list, sanitize_control_tokens: bool, processor_kwargs: dict) -> BatchFeature:
        """One conversation or several, rendered and tokenised (see `__call__`)."""
        conversations = text if isinstance(text[0], list | tuple) else [text]
        last = {message.get("role") for *_, message in conversations if isinstance(message, dict)}
        if "assistant" in last and len(last) > 1:
            raise ValueError("some conversations end with the assistant's message and some do not: part them")
        return self.apply_chat_template(
            text,
            add_generation_prompt="assistant" not in last,
            continue_final_message="assistant" in last,
            tokenize=True,
            return_dict=True,
            sanitize_control_tokens=sanitize_control_tokens,
            processor_kwargs=processor_kwargs,
        )

    def expand(self, texts: list[str], rows: list[list[RnaInput]], sanitized: bool = False) -> list[str]:
        """Texts with as many placeholders for each of their RNAs as it has soft tokens.

        Args:
            sanitized: the texts were rendered with `sanitize_control_tokens`, so `RNA_MARK` stands for an RNA block.

        Raises:
            ValueError: a text has not one `<RNAHere>` for each of its RNAs.
        """
        # what stands in the prompt for an RNA -> what it becomes, still with one placeholder
        mark, block = (RNA_MARK, RNA_BLOCK) if sanitized else (RNA_TOKEN, RNA_TOKEN)
        expanded = []
        for number, (text, row) in enumerate(zip(texts, rows, strict=True), start=1):
            first, *rest = text.split(mark)
            if len(rest) != len(row):
                where = "" if len(texts) == 1 else f" in text {number} of {len(texts)}"
                raise ValueError(
                    f"The prompt has {len(rest)} {RNA_TOKEN}{where}, but {len(row)} "
                    f"RNA{' was' if len(row) == 1 else 's were'} given: each RNA needs one {RNA_TOKEN} (where a user "
                    "wrote it as text, pass sanitize_control_tokens=True)"
                )
            blocks = [block.replace(RNA_TOKEN, RNA_TOKEN * rna.soft_tokens) for rna in row]
            expanded.append(first + "".join(map("".join, zip(blocks, rest, strict=True))))
        return expanded

    def apply_chat_template(self, conversation, chat_template=None, processor_kwargs=None, **kwargs):
        """Render conversations; with `tokenize=True` also expand and tokenise (see `__call__`).

        Messages hold a string, or a list of parts {"type": "text", "text": …} and {"type": "rna", "rna": …}; parts are
        joined by line breaks, an RNA as `<RNA><RNAHere></RNA>`. So any LLM's own chat template serves.
        `sanitize_control_tokens=True` makes control tokens inside text parts plain text (see `__call__`).
        """
        batched = bool(conversation) and isinstance(conversation[0], list | tuple)
        sanitize = kwargs.get("sanitize_control_tokens", False)
        flat, rnas = [], []
        for messages in conversation if batched else [conversation]:
            messages, sequences = flatten_messages(messages, RNA_MARK if sanitize else RNA_BLOCK)
            flat.append(messages)
            rnas.append(sequences)
        processor_kwargs = dict(processor_kwargs or {})
        if kwargs.get("tokenize"):
            if any(rnas):
                if processor_kwargs.get("rna") is not None:
                    raise ValueError("give the RNAs inside the messages or as `rna`, not both")
                processor_kwargs["rna"] = rnas if batched else rnas[0]
            processor_kwargs.setdefault("add_special_tokens", False)
        arguments = {"chat_template": chat_template, "processor_kwargs": processor_kwargs, **kwargs}
        try:
            return super().apply_chat_template(flat if batched else flat[0], **arguments)
        except TemplateError:
            folded = [system_in_question(messages) for messages in flat]
            if folded == flat:
                raise
            # Gemma's and Mistral's templates know no system role
            return super().apply_chat_template(folded if batched else folded[0], **arguments)

    def _rna_rows(self, rna, single: bool, n_texts: int) -> list[list[RnaInput]]:
        """The RNAs of each text, read: [["ACGU"], []] for two texts of which the second has none."""
        if rna is None:
            return [[] for _ in range(n_texts)]
        if single:
            rna = [rna]
        if isinstance(rna, str | RnaInput) or len(rna) != n_texts:
            raise ValueError(
                f"{n_texts} texts need {n_texts} entries in `rna` (a sequence, a list of sequences or None each), got "
                f"{len(rna) if isinstance(rna, list | tuple) else 'one string'}"
            )
        rows = [[] if row is None else [row] if isinstance(row, str | RnaInput) else list(row) for row in rna]
        read = iter(self.rna_inputs([one for row in rows for one in row]))
        return [[next(read) for _ in row] for row in rows]


def system_in_question(messages: list[dict]) -> list[dict]:
    """Flat messages, a leading system message put before the first question's text.

    >>> system_in_question([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Type?"}])
    [{'role': 'user', 'content': 'Be brief.\\n\\nType?'}]
    """
    if len(messages) < 2 or (messages[0]["role"], messages[1]["role"]) != ("system", "user"):
        return messages
    system, question, *rest = messages
    return [{**question, "content": f"{system['content']}\n\n{question['content']}"}, *rest]


def flatten_messages(messages: list[dict], rna_block: str = RNA_BLOCK) -> tuple[list[dict], list[str | RnaInput]]:
    """Messages with string contents, and the RNAs that stood in them; `RNA_MARK` is taken out of their texts.

    [{"role": "user", "content": [{"type": "rna", "rna": "ACGU"}, {"type": "text", "text": "Type?"}]}]
    -> [{"role": "user", "content": "<RNA><RNAHere></RNA>\\nType?"}], ["ACGU"]
    """
    flat, rnas = [], []
    for message in messages:
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise ValueError(f'a message is {{"role": ..., "content": ...}}, got {message!r:.80}')
        content = message["content"]
        if isinstance(content, str):
            content = content.replace(RNA_MARK, "")
        else:
            lines = []
            for part in content:
                kind = part.get("type") if isinstance(part, dict) else None
                if kind not in ("rna", "text"):
                    raise ValueError(f"a message part is of type 'rna' or 'text', got {kind!r}")
                if not isinstance(part.get(kind), str | RnaInput if kind == "rna" else str):
                    raise ValueError(f'a part is {{"type": "{kind}", "{kind}": ...}}, a string, got {part!r:.80}')
                if kind == "rna":
                    rnas.append(part["rna"])
                    lines.append(rna_block)
                else:
                    lines.append(part["text"].replace(RNA_MARK, ""))
            content = "\n".join(line for line in lines if line)
        flat.append({**message, "content": content})
    return flat, rnas


__all__ = ["RnaGptProcessor", "normalize_rna"]
