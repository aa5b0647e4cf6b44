"""RNA text -> encoder tokens (ships with every checkpoint): normalise, tokenise in bulk, cut long RNAs into windows.

    "acg t-u" -> "ACGUU" -> <cls> A C G U U <eos>                      an RNA within the encoder's limit: one window
    2,000 nt  -> <cls> nt 1-1022 <eos>, <cls> nt 490-1511 <eos>, ...   a longer one: overlapping windows

Alphabet: A, C, G, U and the IUPAC codes R Y K M S W B D H V N, in upper or lower case; T is read as U; gaps (`-`, `.`)
and white space are left out; anything else is an error that names it with its position. What an encoder's tokenizer
does not know is respelled: U as T for a DNA vocabulary, an ambiguity code as N.
"""

import re
from dataclasses import dataclass

import numpy as np

NUCLEOTIDE_CODES = "ACGURYKMSWBDHVN"  # IUPAC; T is read as U
LONG_RNA_POLICIES = ("windows", "truncate", "error")
GAP, FOREIGN = -1, -2  # in a table of token ids: left out, refused
PROBE = "ACGU" * 8
# characters looked up at once: bounds the memory of a bulk call
CHUNK = 1 << 24


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
        table: ASCII code -> token id, `GAP` or `FOREIGN`, (128,) int32; None where a token is not one nucleotide.
    """

    spelling: dict[int, str]
    missing: str
    prefix: np.ndarray
    suffix: np.ndarray
    table: np.ndarray | None

    @classmethod
    def of(cls, tokenizer) -> "RnaAlphabet":
        def ids(text: str, **kwargs) -> list[int]:
            return tokenizer(text, truncation=False, verbose=False, **kwargs)["input_ids"]

        def knows(letter: str) -> bool:
            # a run of it: a tokenizer of k-mers gives nothing for a single letter
            found = ids(letter * 12, add_special_tokens=False)
            return bool(found) and tokenizer.unk_token_id not in found

        spelling, missing = {}, ""
        for code in NUCLEOTIDE_CODES:
            choices = {"U": "UTut"}.get(code, code + code.lower() + ("Nn" if code not in "ACG" else ""))
            letter = next((choice for choice in choices if knows(choice)), None)
            if letter is None and not ids(code * 12, add_special_tokens=False):
                missing += code
            spelling[ord(code)] = letter or code
        probe = PROBE.translate(spelling)
        whole, body = ids(probe), ids(probe, add_special_tokens=False)
        start = next((i for i in range(len(whole)) if whole[i : i + len(body)] == body), None)
        if not body or start is None:
            raise ValueError(
                f"the RNA tokenizer {type(tokenizer).__name__} cannot be used: it makes {body} of {probe} and {whole} "
                "with special tokens, which should be the same tokens with others before and after them"
            )
        table = nucleotide_table(ids, spelling, missing)
        if table is not None and multi_letter_tokens(tokenizer, spelling):
            table = None
        return cls(
            spelling,
            missing,
            np.array(whole[:start], dtype=np.int32),
            np.array(whole[start + len(body) :], dtype=np.int32),
            table,
        )


def nucleotide_table(ids, spelling: dict[int, str], missing: str) -> np.ndarray | None:
    """The look-up table of a tokenizer with one token per nucleotide, else None.

    Args:
        ids: text -> its token ids.
    """
    tokens = {code: ids(spelling[ord(code)], add_special_tokens=False) for code in NUCLEOTIDE_CODES}
    if missing or any(len(token) != 1 for token in tokens.values()):
        return None
    # every code after every other, itself included
    pairs = "".join(first + second for first in NUCLEOTIDE_CODES for second in NUCLEOTIDE_CODES)
    if ids(pairs.translate(spelling), add_special_tokens=False) != [tokens[code][0] for code in pairs]:
        return None
    table = np.full(128, FOREIGN, dtype=np.int32)
    for code in range(128):
        if re.match(r"[\s.\-]", chr(code)):
            table[code] = GAP
    for code, (token,) in tokens.items():
        table[ord(code)] = table[ord(code.lower())] = token
    table[ord("T")] = table[ord("t")] = tokens["U"][0]
    return table


def multi_letter_tokens(tokenizer, spelling: dict[int, str]) -> bool:
    """Whether a token of the vocabulary stands for several nucleotides (k-mers, BPE)."""
    letters = set(spelling.values())
    words = (re.sub(r"[^A-Za-z<>\[\]]", "", token) for token in tokenizer.get_vocab())
    return any(len(word) > 1 and set(word) <= letters for word in words)


@dataclass
class EncodedRna:
    """One RNA as its encoder reads it: a window, or several that overlap.

    Attributes:
        windows: encoder tokens of each window, special tokens included, (length,) int32 each.
        kept: positions of each window that become features, (length,) bool each. Over all windows a nucleotide is
            kept once, where it lies most central.
    """

    windows: list[np.ndarray]
    kept: list[np.ndarray]

    def __len__(self) -> int:
        """Features of this RNA, before pooling."""
        return sum(int(kept.sum()) for kept in self.kept)


class RnaReader:
    """Reads RNAs for one encoder.

    Args:
        tokenizer: the encoder's tokenizer; its `model_max_length` is the encoder's limit, special tokens included.
        drop_token_ids: tokens that become no feature (BOS, EOS).
        long_rna: what to do with an RNA over the limit: "windows" reads all of it in overlapping windows, "truncate"
            its beginning, "error" refuses it.
        overlap: least share of a window that it has in common with the next one.
        alphabet: what `RnaAlphabet.of(tokenizer)` gave before, to spare asking again.
    """

    def __init__(
        self,
        tokenizer,
        drop_token_ids: list[int],
        long_rna: str = "windows",
        overlap: float = 0.25,
        alphabet: RnaAlphabet | None = None,
    ):
        if long_rna not in LONG_RNA_POLICIES:
            raise ValueError(f"long_rna is one of {', '.join(LONG_RNA_POLICIES)}, got {long_rna!r}")
        if not 0 <= overlap < 1:
            raise ValueError(f"the windows' overlap is a share of their length, 0 to below 1, got {overlap}")
        self.tokenizer, self.long_rna, self.overlap = tokenizer, long_rna, overlap
        self.drop_token_ids = list(drop_token_ids)
        self.alphabet = alphabet or RnaAlphabet.of(tokenizer)

    @property
    def max_tokens(self) -> int:
        """Tokens of RNA in one window (nt for RNA-FM)."""
        return self.tokenizer.model_max_length - len(self.alphabet.prefix) - len(self.alphabet.suffix)

    def read(self, sequences: list[str]) -> list[EncodedRna]:
        """Encoder tokens of RNAs of any length.

        Raises:
            ValueError: an RNA is empty, holds something else than nucleotides, or is too long or too short; the
                message names which one and where.
        """
        bodies = self._look_up(sequences) if self.alphabet.table is not None else self._tokenize(sequences)
        encoded = []
        for i, body in enumerate(bodies):
            if not len(body):
                raise ValueError(
                    f"RNA {i + 1} of {len(sequences)} is too short: this model's RNA tokenizer makes no token of "
                    f"{sequences[i]!r}"
                )
            if len(body) > self.max_tokens and self.long_rna == "error":
                raise ValueError(
                    f"RNA {i + 1} of {len(sequences)} has {len(normalize_rna(sequences[i])):,} nt, more than the "
                    f"{self.max_tokens:,} nt that this model's encoder reads at once: give a part of it, or set the "
                    "processor's long_rna to 'windows'"
                )
            encoded.append(self._cut(body))
        return encoded

    def _look_up(self, sequences: list[str]) -> list[np.ndarray]:
        """Token ids of each RNA without special tokens, through the table."""
        bodies: list[np.ndarray] = []
        start = 0
        while start < len(sequences):
            chunk, size = [], 0
            while start + len(chunk) < len(sequences) and (not chunk or size < CHUNK):
                sequence = sequences[start + len(chunk)]
                if not (isinstance(sequence, str) and sequence.isascii()):
                    # white space outside ASCII, or an error
                    sequence = self._normalize(sequences, start + len(chunk))
                chunk.append(sequence)
                size += len(sequence)
            ids = self.alphabet.table[np.frombuffer("".join(chunk).encode("ascii"), dtype=np.uint8)]
            ends = np.cumsum([len(sequence) for sequence in chunk])
            lowest = ids.min(initial=0)
            if lowest == FOREIGN:
                first = int(np.searchsorted(ends, np.argmax(ids == FOREIGN), side="right"))
                for i in range(start, start + first + 1):  # one before it may be empty
                    self._normalize(sequences, i)
            if lowest == GAP:
                real = ids != GAP
                ends = np.concatenate(([0], np.cumsum(real)))[ends]
                ids = ids[real]
            begins = np.concatenate(([0], ends[:-1]))
            empty = np.flatnonzero(ends == begins)
            if len(empty):
                self._normalize(sequences, start + int(empty[0]))
            bodies += [ids[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
            start += len(chunk)
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
            texts.append(normalized.translate(self.alphabet.spelling))
        tokens = self.tokenizer(texts, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        return [np.array(row, dtype=np.int32) for row in tokens]

    def _normalize(self, sequences: list[str], i: int) -> str:
        try:
            return normalize_rna(sequences[i])
        except ValueError as error:
            raise ValueError(f"RNA {i + 1} of {len(sequences)}: {error}") from None

    def _cut(self, body: np.ndarray) -> EncodedRna:
        """Windows of an RNA's tokens (length,), each between its special tokens."""
        prefix, suffix = self.alphabet.prefix, self.alphabet.suffix
        if self.long_rna == "truncate":
            body = body[: self.max_tokens]
        windows, kept = [], []
        spans = window_spans(len(body), self.max_tokens, self.overlap)
        for start, stop, first, last in spans:
            window = np.concatenate((prefix, body[start:stop], suffix))
            keep = np.zeros(len(window), dtype=bool)
            # BOS belongs to the RNA's beginning and EOS to its end, not to a window's
            keep[0 if start == 0 else len(prefix) + first - start : len(prefix) + last - start] = True
            keep[len(prefix) + stop - start :] = stop == len(body)
            for token_id in self.drop_token_ids:
                keep &= window != token_id
            windows.append(window)
            kept.append(keep)
        return EncodedRna(windows, kept)


def window_spans(length: int, size: int, overlap: float = 0.25) -> list[tuple[int, int, int, int]]:
    """Windows over `length` tokens, at most `size` each: (start, stop, first kept, end of the kept).

    As few windows as the overlap allows, all of one size, evenly spaced. A token that several windows hold is kept
    from the one in whose middle it lies nearest, on a tie from the earlier one.

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


def pad_windows(windows: list[np.ndarray], pad_token_id: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Token ids (windows, longest) int64, padded on the right, and the mask of the real ones, of the same shape.

    A tokenizer without a pad token pads with id 0, which the mask hides like any other.
    """
    lengths = np.array([len(window) for window in windows])
    mask = np.arange(lengths.max())[None, :] < lengths[:, None]
    ids = np.full(mask.shape, pad_token_id or 0, dtype=np.int64)
    ids[mask] = np.concatenate(windows)
    return ids, mask.astype(np.int64)


__all__ = ["EncodedRna", "RnaAlphabet", "RnaReader", "normalize_rna", "pad_windows", "window_spans"]
