"""RNA text -> encoder tokens (ships with every checkpoint): normalise, tokenise in bulk, cut long RNAs into windows.

    "acg t-u" -> "ACGUU" -> <cls> A C G U U <eos>                      an RNA within the encoder's limit: one window
    2,000 nt  -> <cls> nt 1-1022 <eos>, <cls> nt 490-1511 <eos>, ...   a longer one: overlapping windows

Alphabet: A, C, G, U and the IUPAC codes R Y K M S W B D H V N, in upper or lower case; T is read as U; gaps (`-`, `.`)
and white space are left out; anything else is an error that names it with its position. What an encoder's tokenizer
does not know is respelled: U as T for a DNA vocabulary, an ambiguity code as N.

An RNA is written as the encoder's tokenizer wants it, which is found by asking it:

    ACGUAC             a tokenizer that cuts by itself: letters, codons, BPE, 6-mers and a rest in letters
    A C G U A C        words of one letter (SpliceBERT, the T5 form of ProtT5)
    ACG CGU GUA UAC    words of k letters: overlapping k-mers, of which an RNA of N nt has N - k + 1 (DNABERT)

Its tokens are the positions: a feature belongs to a token, whatever number of nucleotides that token covers.
"""

import random
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

NUCLEOTIDE_CODES = "ACGURYKMSWBDHVN"  # IUPAC; T is read as U
LONG_RNA_POLICIES = ("windows", "truncate", "error")
GAP, FOREIGN = 254, 255  # in a table of token ids: left out, refused
# What a tokenizer is asked about: longer than a word may be in BERT's (100), whole codons, hardly a k-mer twice.
PROBE = "".join(random.Random(0).choices("ACGU", k=1200))
KMERS = range(2, 9)  # lengths of words that are tried where a tokenizer wants the RNA in words


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


@dataclass
class RnaAlphabet:
    """How a tokenizer spells RNAs; found by asking it, so that it fits any.

    Attributes:
        spelling: code of `NUCLEOTIDE_CODES` -> the letter that stands for it in the tokenizer's vocabulary.
        missing: codes that the tokenizer neither knows nor marks as unknown: it would skip them.
        prefix, suffix: special tokens around an RNA (BOS and EOS), (n,) int32.
        table: for `bytes.translate`, ASCII code -> token id, `GAP` or `FOREIGN`; None where a token is not one
            nucleotide.
        word: letters in a word that the tokenizer wants between spaces: 0 where it cuts the RNA by itself, 1 for
            letters, k for overlapping k-mers.
        multiple: RNAs are read whose length in nt is a multiple of it: 3 for a tokenizer that refuses half codons.
    """

    spelling: dict[int, str]
    missing: str
    prefix: np.ndarray
    suffix: np.ndarray
    table: bytes | None
    word: int = 0
    multiple: int = 1

    @classmethod
    def of(cls, tokenizer) -> "RnaAlphabet":
        def ids(text: str, **kwargs) -> list[int]:
            return tokenizer(text, truncation=False, verbose=False, **kwargs)["input_ids"]

        def body_of(rna: str, word: int) -> list[int]:
            return ids(in_words(rna, word), add_special_tokens=False)

        unknown = tokenizer.unk_token_id
        word, u = written_form(body_of, unknown, type(tokenizer).__name__)
        spelling, missing = {}, ""
        for code in NUCLEOTIDE_CODES:
            lower, anything = code.lower(), "Nn" if code not in "ACGU" else ""
            choices = u if code == "U" else (lower + code if u.islower() else code + lower) + anything
            # a run of it: a tokenizer of k-mers gives nothing for a single letter
            runs = {choice: body_of(choice * 12, word) for choice in choices}
            letter = next((choice for choice, run in runs.items() if run and unknown not in run), None)
            if letter is None and not body_of(code * 12, word):
                missing += code
            spelling[ord(code)] = letter or code
        probe = PROBE.translate(spelling)
        whole, body = ids(in_words(probe, word)), body_of(probe, word)
        start = next((i for i in range(len(whole)) if whole[i : i + len(body)] == body), None)
        if not body or start is None:
            raise ValueError(
                f"the RNA tokenizer {type(tokenizer).__name__} cannot be used: it makes {body[:40]} of {probe[:40]}.. "
                f"and {whole[:40]} with special tokens, which should be the same tokens with others before and after"
            )
        multiple = 1 if _cuts(body_of, probe[:-1], word) else 3
        table = None
        if word < 2 and multiple == 1 and not multi_letter_tokens(tokenizer, spelling):
            table = nucleotide_table(lambda text: body_of(text, word), spelling, missing)
        prefix, suffix = whole[:start], whole[start + len(body) :]
        ends = np.array(prefix, dtype=np.int32), np.array(suffix, dtype=np.int32)
        return cls(spelling, missing, *ends, table, word, multiple)

    def write(self, rna: str) -> str:
        """A normalised RNA as the tokenizer reads it."""
        return in_words(rna.translate(self.spelling), self.word)


def in_words(rna: str, word: int) -> str:
    """An RNA in overlapping words of `word` letters between spaces; as it is for 0.

    >>> in_words("ACGUA", 0), in_words("ACGUA", 1), in_words("ACGUA", 3)
    ('ACGUA', 'A C G U A', 'ACG CGU GUA')
    """
    return " ".join(rna[i : i + word] for i in range(len(rna) - word + 1)) if word else rna


def written_form(body_of, unknown: int | None, name: str) -> tuple[int, str]:
    """Letters in a word, and the letter for U, of the first form in which the tokenizer knows all of A, C, G and U.

    Args:
        body_of: an RNA, letters in a word -> token ids without special tokens.
        unknown: id of the unknown token.
        name: of the tokenizer, for errors.

    Raises:
        ValueError: in no form; the message says what share of the tokens is unknown in the best one.
    """
    best = 1.0
    for word in (0, 1, *KMERS):
        for u in "UTut":
            rna = PROBE.replace("U", u)
            rna = rna.lower() if u.islower() else rna
            found = _cuts(body_of, rna, word)
            # Each letter on its own too: a tokenizer without an unknown token leaves out what it does not know.
            runs = {tuple(_cuts(body_of, letter * 12, word)) for letter in {*rna}}
            if found and all(runs) and len(runs) == 4 and unknown not in found:
                return word, u
            if found:
                best = min(best, found.count(unknown) / len(found) if unknown in found else 1.0)
    raise ValueError(
        f"the RNA tokenizer {name} does not know nucleotides (A, C, G, and U or T): {best:.0%} of the tokens that it "
        "makes of an RNA are unknown, written as ACGU, as A C G U and in overlapping words of 2 to 8 letters"
    )


def _cuts(body_of, rna: str, word: int) -> list[int]:
    """Token ids of an RNA; none where the tokenizer refuses it."""
    try:
        return body_of(rna, word)
    except ValueError:  # multimolecule's refuse what is no whole number of codons
        return []


def nucleotide_table(ids, spelling: dict[int, str], missing: str) -> bytes | None:
    """The look-up table of a tokenizer with one token per nucleotide, else None.

    Args:
        ids: nucleotides -> their token ids.
    """
    tokens = {code: ids(spelling[ord(code)]) for code in NUCLEOTIDE_CODES}
    if missing or any(len(token) != 1 or token[0] >= GAP for token in tokens.values()):
        return None
    # every code after every other, itself included
    pairs = "".join(first + second for first in NUCLEOTIDE_CODES for second in NUCLEOTIDE_CODES)
    if ids(pairs.translate(spelling)) != [tokens[code][0] for code in pairs]:
        return None
    table = bytearray([FOREIGN] * 256)
    for code in range(128):
        if re.match(r"[\s.\-]", chr(code)):
            table[code] = GAP
    for code, (token,) in tokens.items():
        table[ord(code)] = table[ord(code.lower())] = token
    table[ord("T")] = table[ord("t")] = tokens["U"][0]
    return bytes(table)


def multi_letter_tokens(tokenizer, spelling: dict[int, str]) -> bool:
    """Whether a token of the vocabulary stands for several nucleotides (k-mers, BPE)."""
    letters = set("".join(spelling.values()).upper())
    words = (re.sub(r"[^A-Z<>\[\]]", "", token.upper()) for token in tokenizer.get_vocab())
    return any(len(word) > 1 and set(word) <= letters for word in words)


@dataclass(slots=True, eq=False)
class RnaInput:
    """One RNA on its way into the model: read once, encoded at most once, and carried through.

    Attributes:
        tokens: encoder tokens of the RNA without special tokens, (length,).
        spans: its windows, as `window_spans` gives them: one, or several that overlap.
        prefix, suffix: special tokens before and after each window.
        drop_token_ids: tokens that become no feature.
        pool_size: features averaged into one soft token.
        features: what `RnaGptModel.encode_rna` gave for it, (soft tokens, encoder hidden), where it was run already.
        soft_tokens: placeholders that it takes in a prompt.
    """

    tokens: np.ndarray
    spans: list[tuple[int, int, int, int]]
    prefix: np.ndarray
    suffix: np.ndarray
    drop_token_ids: list[int]
    pool_size: int = 1
    features: torch.Tensor | None = None
    soft_tokens: int = field(init=False)

    def __post_init__(self):
        self.soft_tokens = -(-len(self) // self.pool_size)

    @property
    def windows(self) -> list[np.ndarray]:
        """Encoder tokens of each window, special tokens included, (length,) each."""
        return [
            np.concatenate((self.prefix, self.tokens[start:stop], self.suffix)) for start, stop, _, _ in self.spans
        ]

    @property
    def kept(self) -> list[np.ndarray]:
        """Positions of each window that become features, (length,) bool each.

        Over all windows a nucleotide is kept once, where it lies most central.
        """
        before, kept = len(self.prefix), []
        for window, (start, stop, first, last) in zip(self.windows, self.spans, strict=True):
            keep = np.zeros(len(window), dtype=bool)
            # BOS belongs to the RNA's beginning and EOS to its end, not to a window's
            keep[0 if start == 0 else before + first - start : before + last - start] = True
            keep[before + stop - start :] = stop == len(self.tokens)
            for token_id in self.drop_token_ids:
                keep &= window != token_id
            kept.append(keep)
        return kept

    def __len__(self) -> int:
        """Features of this RNA, before pooling."""
        return sum(int(kept.sum()) for kept in self.kept)


@dataclass
class RnaReader:
    """Reads RNAs for one encoder.

    Attributes:
        tokenizer: the encoder's tokenizer; its `model_max_length` is the encoder's limit, special tokens included.
        drop_token_ids: tokens that become no feature (BOS, EOS).
        pool_size: features averaged into one soft token.
        long_rna, overlap: of RNAs over the limit, see `RnaGptProcessor` (`long_rna`, `rna_window_overlap`).
        alphabet: what `RnaAlphabet.of(tokenizer)` gave before, to spare asking again.
    """

    tokenizer: Any
    drop_token_ids: list[int]
    pool_size: int = 1
    long_rna: str = "windows"
    overlap: float = 0.25
    alphabet: RnaAlphabet | None = None

    def __post_init__(self):
        if self.long_rna not in LONG_RNA_POLICIES:
            raise ValueError(f"long_rna is one of {', '.join(LONG_RNA_POLICIES)}, got {self.long_rna!r}")
        if not 0 <= self.overlap < 1:
            raise ValueError(f"the windows' overlap is a share of their length, 0 to below 1, got {self.overlap}")
        self.alphabet = self.alphabet or RnaAlphabet.of(self.tokenizer)

    @property
    def max_tokens(self) -> int:
        """Tokens of RNA in one window (nt for RNA-FM)."""
        return self.tokenizer.model_max_length - len(self.alphabet.prefix) - len(self.alphabet.suffix)

    def read(self, sequences: list[str]) -> list[RnaInput]:
        """RNAs of any length, tokenised and cut.

        Raises:
            ValueError: an RNA is empty, holds something else than nucleotides, or is too long or too short; the
                message names which one and where.
        """
        alphabet, max_tokens, encoded = self.alphabet, self.max_tokens, []
        bodies = self._look_up(sequences) if alphabet.table is not None else self._tokenize(sequences)
        for i, body in enumerate(bodies):
            if not len(body):
                raise ValueError(
                    f"RNA {i + 1} of {len(sequences)} is too short: this model's RNA tokenizer makes no token of "
                    f"{sequences[i]!r}"
                )
            if len(body) > max_tokens and self.long_rna == "error":
                raise ValueError(
                    f"RNA {i + 1} of {len(sequences)} has {len(normalize_rna(sequences[i])):,} nt, more than the "
                    f"{max_tokens:,} nt that this model's encoder reads at once: give a part of it, or set the "
                    "processor's long_rna to 'windows'"
                )
            if self.long_rna == "truncate":
                body = body[:max_tokens]
            spans = window_spans(len(body), max_tokens, self.overlap)
            ends = alphabet.prefix, alphabet.suffix
            encoded.append(RnaInput(body, spans, *ends, self.drop_token_ids, self.pool_size))
        return encoded

    def _look_up(self, sequences: list[str]) -> list[np.ndarray]:
        """Token ids of each RNA without special tokens, through the table, (length,) uint8."""
        bodies, table = [], self.alphabet.table
        for i, sequence in enumerate(sequences):
            if not (isinstance(sequence, str) and sequence.isascii()):
                # white space outside ASCII, or an error
                sequence = self._normalize(sequences, i)
            body = sequence.encode("ascii").translate(table)
            if GAP in body:
                body = body.translate(None, bytes([GAP]))
            if FOREIGN in body or not body:
                self._normalize(sequences, i)  # says what is wrong
            bodies.append(np.frombuffer(body, dtype=np.uint8))
        return bodies

    def _tokenize(self, sequences: list[str]) -> list[np.ndarray]:
        """Token ids of each RNA without special tokens, through the tokenizer."""
        if not sequences:
            return []
        texts = []
        for i in range(len(sequences)):
            normalized = self._normalize(sequences, i)
            skipped = re.search(f"[{self.alphabet.missing}]", normalized) if self.alphabet.missing else None
            if skipped:
                raise ValueError(
                    f"RNA {i + 1} of {len(sequences)}: {skipped.group()!r} at position {skipped.start() + 1} is not "
                    "in the alphabet of this model's encoder"
                )
            if len(normalized) % self.alphabet.multiple:
                raise ValueError(
                    f"RNA {i + 1} of {len(sequences)} has {len(normalized):,} nt, and this model's encoder reads "
                    "whole codons: give a coding sequence, a multiple of 3 nt"
                )
            texts.append(self.alphabet.write(normalized))
        tokens = self.tokenizer(texts, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        return [np.array(row, dtype=np.int32) for row in tokens]

    def _normalize(self, sequences: list[str], i: int) -> str:
        try:
            return normalize_rna(sequences[i])
        except ValueError as error:
            raise ValueError(f"RNA {i + 1} of {len(sequences)}: {error}") from None


def window_spans(length: int, size: int, overlap: float = 0.25) -> list[tuple[int, int, int, int]]:
    """Windows over `length` tokens, at most `size` each: (start, stop, first kept, end of the kept).

    As few windows as the overlap allows, all of one size, evenly spaced. A token that several windows hold is kept
    from the one in whose middle it lies nearest, on a tie from the earlier one: there it has most context on both
    sides, and at a window's end it would be read as if the RNA ended.

    >>> window_spans(10, 6, 0.5)
    [(0, 6, 0, 4), (2, 8, 4, 6), (4, 10, 6, 10)]
    """
    if length <= size:
        return [(0, length, 0, length)]
    step = max(1, size - int(np.ceil(overlap * size)))
    n = 1 + -(-(length - size) // step)
    starts = [i * (length - size) // (n - 1) for i in range(n)]
    # the middles of neighbours are start + (size - 1) / 2: the border lies half way between them
    borders = [0, *((a + b + size - 1) // 2 + 1 for a, b in zip(starts, starts[1:], strict=False)), length]
    return [(start, start + size, borders[i], borders[i + 1]) for i, start in enumerate(starts)]


def encoder_inputs(rows: list[list[RnaInput]], pad_token_id: int | None) -> dict[str, torch.Tensor]:
    """What the encoder reads of the RNAs of each prompt, (batch, n_rna, length) int64 each.

    A tokenizer without a pad token pads with id 0, which the mask hides like any other.

    Returns:
        rna_input_ids and rna_attention_mask, one row per window; a prompt's windows stand in order. Where an RNA has
        several windows, also rna_index: the number, in its prompt, of the RNA that the position gives a feature of, or
        -1 (padding, BOS and EOS, and nucleotides that another window keeps).
    """
    windows = [[torch.from_numpy(window).long() for rna in row for window in rna.windows] for row in rows]
    ids, mask = pad_nested(windows, pad_token_id or 0)
    inputs = {"rna_input_ids": ids, "rna_attention_mask": mask.long()}
    if any(len(rna.spans) > 1 for row in rows for rna in row):
        numbers = [
            [torch.from_numpy(np.where(kept, i, -1)) for i, rna in enumerate(row) for kept in rna.kept] for row in rows
        ]
        inputs["rna_index"], _ = pad_nested(numbers, -1)
    return inputs


def feature_inputs(rows: list[list[RnaInput]]) -> dict[str, torch.Tensor]:
    """What the model reads instead of running its encoder: rna_features (batch, n_rna, slots, encoder hidden) and
    rna_feature_mask (batch, n_rna, slots) bool, of the RNAs of each prompt, whose `features` are there."""
    features, mask = pad_nested([[rna.features for rna in row] for row in rows])
    return {"rna_features": features, "rna_feature_mask": mask}


def pad_nested(rows: list[list[torch.Tensor]], fill: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Tensors (length, ...) of each row -> (rows, most, longest, ...), padded at the end, and True where it is not
    padding, (rows, most, longest).

    >>> padded, real = pad_nested([[torch.tensor([5, 6]), torch.tensor([7])], []])
    >>> padded.tolist(), real[0].int().tolist()
    ([[[5, 6], [7, 0]], [[0, 0], [0, 0]]], [[1, 1], [1, 0]])
    """
    tensors = [tensor for row in rows for tensor in row]
    padded = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=fill)  # (tensors, longest, ...)
    device, longest = padded.device, torch.arange(padded.shape[1], device=padded.device)
    counts = torch.tensor([len(row) for row in rows], device=device)
    place = torch.arange(int(counts.max()), device=device) < counts[:, None]  # (rows, most): filled in order
    out = padded.new_full((*place.shape, *padded.shape[1:]), fill)
    out[place] = padded
    real = torch.zeros(out.shape[:3], dtype=torch.bool, device=device)
    real[place] = longest < torch.tensor([len(tensor) for tensor in tensors], device=device)[:, None]
    return out, real


__all__ = ["RnaAlphabet", "RnaInput", "RnaReader", "encoder_inputs", "feature_inputs", "normalize_rna"]
