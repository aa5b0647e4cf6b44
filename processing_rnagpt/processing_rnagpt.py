"""RNA-GPT's processor (ships with every checkpoint): text and RNAs in, one padded batch out.

    processor([{"role": "user", "content": [{"type": "rna", "rna": "ACGU..."},
                                            {"type": "text", "text": "What type of RNA is this?"}]}])
    -> input_ids, attention_mask (batch, seq); rna_input_ids, rna_attention_mask (batch, n_rna, length)

This is the only place that expands `<RNAHere>`: into one placeholder per soft token, counted from the RNA tokenizer's
own output, never from the length of the string. How RNAs are read, and how long ones are cut: `rna_sequences.py`.
"""

import re

import numpy as np
import torch
from transformers import BatchFeature, ProcessorMixin

from .rna_sequences import (
    LONG_RNA_POLICIES,
    EncodedRna,
    RnaAlphabet,
    RnaReader,
    normalize_rna,
    pad_kept,
    pad_mask,
    pad_tokens,
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
        if long_rna not in LONG_RNA_POLICIES:
            raise ValueError(f"long_rna is one of {', '.join(LONG_RNA_POLICIES)}, got {long_rna!r}")
        self.rna_pool_size = rna_pool_size
        self.keep_rna_special_tokens = keep_rna_special_tokens
        self.long_rna = long_rna
        self.rna_window_overlap = rna_window_overlap
        self._rna_alphabet: RnaAlphabet | None = None
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
        """Longest RNA the encoder reads in one window, in its own tokens (nt for RNA-FM)."""
        return self.rna_reader.max_tokens

    @property
    def rna_reader(self) -> RnaReader:
        """RNA text -> encoder tokens, by this processor's settings."""
        if self._rna_alphabet is None:
            self._rna_alphabet = RnaAlphabet.of(self.rna_tokenizer)
        return RnaReader(
            self.rna_tokenizer, self.rna_drop_token_ids, self.long_rna, self.rna_window_overlap, self._rna_alphabet
        )

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "rna_input_ids", "rna_attention_mask", "rna_index"]

    def encode_rnas(self, sequences: list[str]) -> tuple[list[EncodedRna], list[int]]:
        """Encoder tokens and the number of soft tokens of each RNA.

        Raises:
            ValueError: an RNA is empty, holds something else than nucleotides, or is longer than the encoder reads
                (where `long_rna` is "error"); the message names which one and where.
        """
        encoded = self.rna_reader.read(sequences)
        return encoded, [-(-len(rna) // self.rna_pool_size) for rna in encoded]

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
                RNAs may also stand inside the messages, as {"type": "rna", "rna": "ACGU"}.
            padding, padding_side, add_special_tokens, kwargs: for the LLM's tokenizer; padded on the left, which
                `generate` needs.
            return_tensors: "pt", "np", or None for lists.
            sanitize_control_tokens: for conversations, encode control tokens in the messages (`<|im_end|>`,
                `<RNAHere>`) as the plain text they are; use it for what a stranger typed. RNAs then stand inside the
                messages as {"type": "rna"} parts. (For strings: they come from such a rendering.)

        Returns:
            input_ids, attention_mask: (batch, seq) int64; with RNA also rna_input_ids, rna_attention_mask:
            (batch, n_rna, length) int64, where rows of zeros in the mask are absent RNAs. Where an RNA takes several
            windows, each is such a row, and rna_index of the same shape says which positions are kept (see
            `pad_rnas`).

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
        if isinstance(text, list) and not isinstance(text[0], str):
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
                processor_kwargs={
                    "rna": rna,
                    "padding": padding,
                    "padding_side": padding_side,
                    "return_tensors": return_tensors,
                    **kwargs,
                },
            )
        single = isinstance(text, str)
        texts: list[str] = [text] if isinstance(text, str) else list(text)
        if not all(texts):
            raise ValueError("a text is empty: give at least one character")
        rows = self._rna_rows(rna, single, len(texts))
        encoded, slots = self.encode_rnas([sequence for row in rows for sequence in row])
        # what stands in the prompt for an RNA -> what it becomes, still with one placeholder
        mark, block = (RNA_MARK, RNA_BLOCK) if sanitize_control_tokens else (RNA_TOKEN, RNA_TOKEN)
        expanded, first = [], 0
        for i, (prompt, row) in enumerate(zip(texts, rows, strict=True)):
            placeholders = prompt.count(mark)
            if placeholders != len(row):
                where = "" if single else f" in text {i + 1} of {len(texts)}"
                raise ValueError(
                    f"The prompt has {placeholders} {RNA_TOKEN}{where}, but {len(row)} "
                    f"RNA{' was' if len(row) == 1 else 's were'} given: each RNA needs one {RNA_TOKEN} (where a user "
                    "wrote it as text, pass sanitize_control_tokens=True)"
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
        if kwargs.get("truncation"):
            left = sum(list(ids).count(self.rna_token_id) for ids in data["input_ids"])
            if left < sum(slots):
                raise ValueError(f"truncation leaves {left:,} of the RNAs' {sum(slots):,} soft tokens: allow more")
        if encoded:
            padded = self.pad_rnas(rows, encoded)
            if return_tensors != "pt":
                padded = {name: tensor.numpy() for name, tensor in padded.items()}
            if return_tensors is None:
                padded = {name: array.tolist() for name, array in padded.items()}
            data.update(padded)
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

    def pad_rnas(self, rows: list[list[str]], encoded: list[EncodedRna]) -> dict[str, torch.Tensor]:
        """Encoder inputs of a batch, (batch, n_rna, length) int64 each, padded on the right.

        Args:
            rows: the RNAs of each prompt; only their number is read.
            encoded: what `encode_rnas` gave for all of them in order.

        Returns:
            rna_input_ids and rna_attention_mask, one row per window; a prompt's windows stand in order. Where an RNA
            has several windows, also rna_index: the number, in its prompt, of the RNA that the position gives a
            feature of, or -1 (padding, BOS and EOS, and nucleotides that another window keeps).
        """
        ids, mask = pad_tokens(encoded, self.rna_tokenizer.pad_token_id), pad_mask(encoded)
        windows_of, remaining = [], iter(encoded)
        for row in rows:
            windows_of.append([len(next(remaining).spans) for _ in row])
        # (batch, n_rna): the places of the windows, filled in order
        n_rna = max(sum(windows) for windows in windows_of)
        place = np.arange(n_rna)[None, :] < np.array([sum(windows) for windows in windows_of])[:, None]
        rna_input_ids = np.full((*place.shape, ids.shape[1]), self.rna_tokenizer.pad_token_id or 0)
        rna_input_ids[place] = ids
        rna_attention_mask = np.zeros_like(rna_input_ids)
        rna_attention_mask[place] = mask
        data = {"rna_input_ids": rna_input_ids, "rna_attention_mask": rna_attention_mask}
        if len(ids) > len(encoded):
            kept = pad_kept(encoded)
            number = np.concatenate([np.repeat(np.arange(len(windows)), windows) for windows in windows_of])
            data["rna_index"] = np.full_like(rna_input_ids, -1)
            data["rna_index"][place] = np.where(kept, number[:, None], -1)
        return {name: torch.from_numpy(array) for name, array in data.items()}


def flatten_messages(messages: list[dict], rna_block: str = RNA_BLOCK) -> tuple[list[dict], list[str]]:
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
                if not isinstance(part.get(kind), str):
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
