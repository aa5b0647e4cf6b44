"""RNA-GPT's processor (ships with every checkpoint): text and RNAs in, one padded batch out.

    processor([{"role": "user", "content": [{"type": "rna", "rna": "ACGU..."},
                                            {"type": "text", "text": "What type of RNA is this?"}]}])
    -> input_ids, attention_mask (batch, seq); rna_input_ids, rna_attention_mask (batch, n_rna, length)

This is the only place that expands `<RNAHere>`: into one placeholder per soft token, counted from the RNA tokenizer's
own output, never from the length of the string.
"""

import re

import torch
from transformers import BatchFeature, ProcessorMixin

RNA_TOKEN = "<RNAHere>"
RNA_BLOCK = f"<RNA>{RNA_TOKEN}</RNA>"
NUCLEOTIDE_CODES = "ACGURYKMSWBDHVN"  # IUPAC; T is read as U
# Stands for an RNA block while a chat is rendered with `sanitize_control_tokens`: a private-use character, taken out
# of everything typed, so it tells the block put there for an RNA from a `<RNAHere>` that somebody wrote.
RNA_MARK = "\U000f0010"


def normalize_rna(sequence: str) -> str:
    """Upper-case RNA without white space and gaps, T read as U.

    IUPAC ambiguity codes stay; gaps (`-`, `.`) and white space go.

    Raises:
        ValueError: nothing is left, or a character is no nucleotide; the message names it and its position in nt.

    >>> normalize_rna("acg t-u")
    'ACGUU'
    >>> normalize_rna("ACGE")
    Traceback (most recent call last):
    ValueError: 'E' at position 4 is no nucleotide: expected A, C, G, U or T (or an IUPAC code RYKMSWBDHVN)...
    """
    if not isinstance(sequence, str):
        raise ValueError(f"an RNA is a string of nucleotides, got {type(sequence).__name__}")
    cleaned = re.sub(r"[\s.\-]", "", sequence)
    if not cleaned:
        raise ValueError("the RNA is empty: expected at least one nucleotide")
    # One character at a time: str.upper() would turn some letters outside ASCII into two.
    cleaned = "".join(c.upper() if c.isascii() else c for c in cleaned).replace("T", "U")
    wrong = re.search(f"[^{NUCLEOTIDE_CODES}]", cleaned)
    if wrong:
        protein = " (is this a protein?)" if wrong.group() in "EFILPQJOXZ*" else ""
        raise ValueError(
            f"{wrong.group()!r} at position {wrong.start() + 1} is no nucleotide: expected A, C, G, U or T "
            f"(or an IUPAC code {NUCLEOTIDE_CODES[4:]}){protein}"
        )
    return cleaned


class RnaGptProcessor(ProcessorMixin):
    """Wraps the LLM's tokenizer and the encoder's tokenizer.

    Args:
        tokenizer: the LLM's tokenizer; `<RNAHere>` is added to it when missing.
        rna_tokenizer: the encoder's tokenizer; its `model_max_length` is the encoder's limit.
        chat_template: a Jinja template, or named templates with one called "default"; the LLM's own when left out.
        rna_pool_size: encoder positions averaged into one soft token, the same number as in the model's config.
        keep_rna_special_tokens: whether the encoder's BOS and EOS become soft tokens too.
    """

    def __init__(
        self,
        tokenizer=None,
        rna_tokenizer=None,
        chat_template=None,
        rna_pool_size=1,
        keep_rna_special_tokens=False,
    ):
        if tokenizer is not None and RNA_TOKEN not in tokenizer.get_vocab():
            tokenizer.add_special_tokens(
                {"additional_special_tokens": [RNA_TOKEN]}, replace_extra_special_tokens=False
            )
        self.rna_pool_size = rna_pool_size
        self.keep_rna_special_tokens = keep_rna_special_tokens
        super().__init__(tokenizer, rna_tokenizer, chat_template=chat_template or tokenizer.chat_template)

    @property
    def rna_token_id(self) -> int:
        """Id of `<RNAHere>`; equals the model's `config.rna_token_id`."""
        return self.tokenizer.convert_tokens_to_ids(RNA_TOKEN)

    @property
    def rna_drop_token_ids(self) -> list[int]:
        """Encoder tokens that become no soft token; equals the model's `config.rna_drop_token_ids`."""
        if self.keep_rna_special_tokens:
            return []
        t = self.rna_tokenizer
        marks = {t.cls_token_id, t.bos_token_id, t.eos_token_id, t.sep_token_id}
        return sorted(token_id for token_id in marks if token_id is not None)

    @property
    def max_nucleotides(self) -> int:
        """Longest RNA the encoder reads, in its own tokens (nt for RNA-FM)."""
        return self.rna_tokenizer.model_max_length - self.rna_tokenizer.num_special_tokens_to_add()

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "rna_input_ids", "rna_attention_mask"]

    def encode_rnas(self, sequences: list[str]) -> tuple[list[list[int]], list[int]]:
        """Encoder ids and the number of soft tokens of each RNA.

        Raises:
            ValueError: an RNA is empty, holds something else than nucleotides, or is longer than the encoder reads;
                the message names which one and where.
        """
        normalized = []
        for i, sequence in enumerate(sequences):
            try:
                normalized.append(normalize_rna(sequence))
            except ValueError as error:
                raise ValueError(f"RNA {i + 1} of {len(sequences)}: {error}") from None
        if not normalized:
            return [], []
        ids = self.rna_tokenizer(normalized, truncation=False, verbose=False)["input_ids"]
        dropped = set(self.rna_drop_token_ids)
        for i, row in enumerate(ids):
            if len(row) > self.rna_tokenizer.model_max_length:
                raise ValueError(
                    f"RNA {i + 1} of {len(sequences)} has {len(normalized[i]):,} nt, more than the "
                    f"{self.max_nucleotides:,} nt that this model's encoder reads: give a part of it"
                )
        slots = [-(-sum(token not in dropped for token in row) // self.rna_pool_size) for row in ids]
        return ids, slots

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
                conversation is rendered by the chat template with the assistant's turn opened.
            rna: for one text a sequence or a list of sequences; for a list of texts one such entry (or None) for each.
                RNAs may also stand inside the messages, as {"type": "rna", "rna": "ACGU"}.
            padding, padding_side, add_special_tokens, kwargs: for the LLM's tokenizer; padded on the left, which
                `generate` needs.
            sanitize_control_tokens: for conversations, encode control tokens in the messages (`<|im_end|>`,
                `<RNAHere>`) as the plain text they are; use it for what a stranger typed. RNAs then stand inside the
                messages as {"type": "rna"} parts. (For strings: they come from such a rendering.)

        Returns:
            input_ids, attention_mask: (batch, seq) int64; with RNA also rna_input_ids, rna_attention_mask:
            (batch, n_rna, length) int64, where rows of zeros in the mask are absent RNAs.

        Raises:
            ValueError: counts of `<RNAHere>` and RNAs disagree, or an RNA cannot be read.
        """
        if images is not None or videos is not None or audio is not None:
            raise ValueError("RNA-GPT reads text and RNA; images, videos and audio are not supported")
        if text is None or (isinstance(text, list) and not text):
            raise ValueError("give at least one text or conversation")
        if isinstance(text, list) and not isinstance(text[0], str):
            return self.apply_chat_template(
                text,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                sanitize_control_tokens=sanitize_control_tokens,
                processor_kwargs={
                    "rna": rna,
                    "padding": padding,
                    "padding_side": padding_side,
                    "return_tensors": return_tensors,
                    **kwargs,
                },
            )
        single = isinstance(text, str)
        texts = [text] if single else list(text)
        rows = self._rna_rows(rna, single, len(texts))
        ids, slots = self.encode_rnas([sequence for row in rows for sequence in row])
        # what stands in the prompt for an RNA -> what it becomes, still with one placeholder
        mark, block = (RNA_MARK, RNA_BLOCK) if sanitize_control_tokens else (RNA_TOKEN, RNA_TOKEN)
        expanded, first = [], 0
        for i, (prompt, row) in enumerate(zip(texts, rows, strict=True)):
            placeholders = prompt.count(mark)
            if placeholders != len(row):
                where = "" if single else f" in text {i + 1} of {len(texts)}"
                raise ValueError(
                    f"The prompt has {placeholders} {RNA_TOKEN}{where}, but {len(row)} RNAs were given: "
                    f"each RNA needs one {RNA_TOKEN}"
                )
            counts = iter(slots[first : first + len(row)])
            expanded.append(
                re.sub(re.escape(mark), lambda _, c=counts: block.replace(RNA_TOKEN, RNA_TOKEN * next(c)), prompt)
            )
            first += len(row)
        if add_special_tokens is None:
            # A rendered chat begins with its BOS already; a second one would shift every position.
            add_special_tokens = not (self.tokenizer.bos_token and texts[0].startswith(self.tokenizer.bos_token))
        batch = self.tokenizer(
            expanded,
            padding=padding,
            padding_side=padding_side,
            add_special_tokens=add_special_tokens,
            return_tensors=return_tensors,
            return_token_type_ids=False,
            sanitize_control_tokens=sanitize_control_tokens,
            **kwargs,
        )
        data = dict(batch)
        if ids:
            data.update(self.pad_rnas(rows, ids))
        return BatchFeature(data, tensor_type=None)

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
        return super().apply_chat_template(
            flat if batched else flat[0], chat_template=chat_template, processor_kwargs=processor_kwargs, **kwargs
        )

    def _rna_rows(self, rna, single: bool, n_texts: int) -> list[list[str]]:
        """[["ACGU"], []] for two texts of which the second has no RNA."""
        if rna is None:
            return [[] for _ in range(n_texts)]
        if single:
            rna = [rna]
        if isinstance(rna, str) or len(rna) != n_texts:
            raise ValueError(
                f"{n_texts} texts need {n_texts} entries in `rna` (a sequence, a list of sequences or None each), got "
                f"{'one string' if isinstance(rna, str) else len(rna)}"
            )
        return [[] if row is None else [row] if isinstance(row, str) else list(row) for row in rna]

    def pad_rnas(self, rows: list[list[str]], ids: list[list[int]]) -> dict[str, torch.Tensor]:
        """Encoder ids as (batch, n_rna, length), padded on the right, and their mask."""
        n_rna, length = max(len(row) for row in rows), max(len(row) for row in ids)
        rna_input_ids = torch.full((len(rows), n_rna, length), self.rna_tokenizer.pad_token_id)
        mask = torch.zeros_like(rna_input_ids)
        remaining = iter(ids)
        for i, row in enumerate(rows):
            for j in range(len(row)):
                tokens = torch.tensor(next(remaining))
                rna_input_ids[i, j, : len(tokens)] = tokens
                mask[i, j, : len(tokens)] = 1
        return {"rna_input_ids": rna_input_ids, "rna_attention_mask": mask}


def flatten_messages(messages: list[dict], rna_block: str = RNA_BLOCK) -> tuple[list[dict], list[str]]:
    """Messages with string contents, and the RNAs that stood in them; `RNA_MARK` is taken out of their texts.

    [{"role": "user", "content": [{"type": "rna", "rna": "ACGU"}, {"type": "text", "text": "Type?"}]}]
    -> [{"role": "user", "content": "<RNA><RNAHere></RNA>\\nType?"}], ["ACGU"]
    """
    flat, rnas = [], []
    for message in messages:
        content = message["content"]
        if isinstance(content, str):
            content = content.replace(RNA_MARK, "")
        else:
            lines = []
            for part in content:
                if part["type"] == "rna":
                    rnas.append(part["rna"])
                    lines.append(rna_block)
                elif part["type"] == "text":
                    lines.append(part["text"].replace(RNA_MARK, ""))
                else:
                    raise ValueError(f"a message part is of type 'rna' or 'text', got {part['type']!r}")
            content = "\n".join(line for line in lines if line)
        flat.append({**message, "content": content})
    return flat, rnas


__all__ = ["RnaGptProcessor"]
