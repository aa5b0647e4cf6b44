"""Reads RNAs, and has the one normal form of a sequence. Only the standard library, to be quick.

    read_fasta("rna.fa") -> [Record("tRNA-Phe", "yeast", "GCGGAUUU..."), ...]     # strict: a person's file
    stream_fasta("rnacentral.fa.gz") -> ("URS... description", "ACGT..."), ...    # as written: a database's file
    normalized("acgt-N") -> "ACGUN"

What a file is (gzip, UTF-16, a byte order mark) is told by its first bytes, in `unpacked` and `text_lines`.
"""

import gzip
import io
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rnagpt_core.errors import UserError
from rnagpt_core.safe_text import one_line, printable

MAX_BYTES = 50_000_000
MAX_RECORDS = 10_000
MAX_COMPARED = 8  # RNAs in one question
WANTED = "a FASTA file"

# `processing_rnagpt.processing_rnagpt.normalize_rna` as a table, because importing that one brings torch (5 s on two
# cores): letters to upper case, T to U, gaps away. test_sequences.py compares the two character by character.
NUCLEOTIDES = "ACGURYKMSWBDHVN"
NORMALIZED = {ord(letter): letter for letter in NUCLEOTIDES} | {ord("T"): "U"}
NORMALIZED |= {ord(chr(code).lower()): letter for code, letter in NORMALIZED.items()}
NORMALIZED |= {ord(gap): None for gap in "-."}
FOREIGN = re.compile(f"[^{NUCLEOTIDES}T.-]", re.IGNORECASE | re.ASCII)
BARE_SEQUENCE = re.compile("[ACGTUN]{12,}", re.IGNORECASE)  # what is more likely meant as an RNA than as a word
PROTEIN_LETTERS = frozenset("EFILPQJOXZ*")


@dataclass(frozen=True)
class Record:
    """One RNA: its id, the rest of its header line, and its sequence in upper-case IUPAC codes with U."""

    rna_id: str
    description: str
    sequence: str

    def __len__(self) -> int:
        """Length in nt."""
        return len(self.sequence)


def normalized(sequence: object) -> str:
    """The one form of a sequence here: upper case, U for T, no white space, no gaps; None is "".

    >>> normalized("acg-t N"), normalized(None), is_rna("ACGUN"), is_rna("ACGUX")
    ('ACGUN', '', True, False)
    """
    return "".join(str(sequence or "").split()).translate(NORMALIZED)


def is_rna(sequence: str) -> bool:
    """Whether a normalised sequence has nucleotides (IUPAC codes) and nothing else."""
    return bool(sequence) and set(sequence) <= set(NUCLEOTIDES)


def read_fasta(path: str | os.PathLike, max_bytes: int = MAX_BYTES, max_records: int = MAX_RECORDS) -> list[Record]:
    """Records of a FASTA file; a file that holds only nucleotides is one record, named after the file.

    Args:
        path: plain or gzip-compressed UTF-8 text; Windows line ends and a byte order mark are fine.
        max_bytes: most bytes of text, after decompression.

    Raises:
        UserError: the file cannot be read or is no FASTA of nucleotides; names file, line and record.
    """
    text = decoded(read_bytes(path, max_bytes), path)
    name = os.path.basename(path)
    return parse_fasta(text, str(path), fallback_id=name.split(".")[0] or name, max_records=max_records)


@contextmanager
def unpacked(path: str | os.PathLike) -> Iterator[io.BufferedReader | gzip.GzipFile]:
    """A file's bytes, decompressed where they are gzip's, whatever the file is called."""
    with open(path, "rb") as file:
        yield gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == b"\x1f\x8b" else file


def is_utf_16(start: bytes) -> bool:
    """Whether a text begins with the byte order mark of UTF-16."""
    return start.startswith((b"\xff\xfe", b"\xfe\xff"))


def text_lines(path: str | os.PathLike) -> Iterator[str]:
    """Lines of a text in UTF-8 or UTF-16, gzipped or not; bytes that are neither become replacement characters."""
    with unpacked(path) as file:
        utf_16 = is_utf_16(file.peek(2))
        yield from io.TextIOWrapper(file, "utf-16" if utf_16 else "utf-8-sig", errors="replace")


def stream_fasta(path: str | os.PathLike) -> Iterator[tuple[str, str]]:
    """FASTA -> (header without ">", sequence as written), one record in memory at a time; text before the first
    header is passed over."""
    for start, header, lines in split_records(text_lines(path)):
        if start:
            yield header, "".join(lines)


def split_records(lines: Iterable[str]) -> Iterator[tuple[int, str, list[str]]]:
    """Lines of FASTA -> (number of the header's line, header without ">", the stripped lines below it); first, with
    the number 0, what stands before any header.

    >>> list(split_records([">a one", "AC", "GU", ">b"]))
    [(0, '', []), (1, 'a one', ['AC', 'GU']), (4, 'b', [])]
    """
    start, header, below = 0, "", list[str]()
    for number, line in enumerate(map(str.strip, lines), start=1):
        if line.startswith(">"):
            yield start, header, below
            start, header, below = number, line[1:], []
        else:
            below.append(line)
    yield start, header, below


def read_bytes(path: str | os.PathLike, max_bytes: int, wanted: str = WANTED) -> bytes:
    """The file's bytes, decompressed where they are gzip's, at most `max_bytes` of them; errors ask for `wanted`."""
    try:
        with unpacked(path) as file:
            if str(path).endswith(".gz") and not isinstance(file, gzip.GzipFile) and file.peek(1):
                raise UserError(f"{path} is named .gz but holds no gzip data: compress it again, or rename it")
            # asks for one byte more than allowed, so a file that unpacks to terabytes costs no more than that
            content = file.read(max_bytes + 1)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: give the path of {wanted}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder: give {wanted} in it") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is a damaged gzip file ({error}): download or compress it again") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read ({reason}): give the path of {wanted}") from None
    if len(content) > max_bytes:
        raise UserError(f"{path} holds more than {max_bytes:,} bytes of text: give a smaller one, or parts")
    return content


def decoded(content: bytes, path: str | os.PathLike, wanted: str = WANTED) -> str:
    """UTF-8 text without its byte order mark; errors ask for `wanted`."""
    if is_utf_16(content):
        raise UserError(f"{path} is UTF-16 text: save it as UTF-8 (plain text) and try again")
    if b"\0" in content[:4096]:
        raise UserError(f"{path} is a binary file, not text: give {wanted} (plain or .gz)")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: byte 0x{content[error.start]:02x} is no UTF-8 text: save the file as UTF-8, "
            f"or give {wanted} if it is none"
        ) from None


def parse_fasta(text: str, source: str, fallback_id: str = "rna", max_records: int = MAX_RECORDS) -> list[Record]:
    """Records of FASTA text; `source` names it in errors, `fallback_id` a sequence without a header."""
    (_, _, before), *parts = split_records(io.StringIO(text, newline=None))
    first = next((number for number, line in enumerate(before, start=1) if line), None)
    if first is None and not parts:
        raise UserError(f"{source} is empty: expected FASTA records, each a line '>id' and its sequence below")
    if not parts:
        found = find_foreign(before, 1)
        if found:
            raise UserError(
                f"{source}, line {found[0]}: no record (no line begins with '>'), and as a bare sequence "
                f"{found[1]}: give a FASTA file"
            )
        return [Record(one_line(fallback_id), "", nucleotides("".join(before), source))]
    if first is not None:
        raise UserError(f"{source}, line {first}: text before the first '>': every record begins with a line '>id'")
    if len(parts) > max_records:
        raise UserError(f"{source} holds {len(parts):,} records, more than {max_records:,}: split the file")
    records: list[Record] = []
    line_of_id: dict[str, int] = {}
    for start, header, lines in parts:
        rna_id, _, description = one_line(header).partition(" ")
        if not rna_id:
            raise UserError(f"{source}, line {start}: the record has no id: write one after the '>'")
        if rna_id in line_of_id:
            raise UserError(
                f"{source}, line {start}: record {rna_id} has the id of line {line_of_id[rna_id]}: give each its own"
            )
        line_of_id[rna_id] = start
        found = find_foreign(lines, start + 1)
        if found:
            raise UserError(f"{source}, line {found[0]}: record {rna_id}: {found[1]}: give an RNA or DNA sequence")
        where = f"{source}, line {start}: record {rna_id}"
        records.append(Record(rna_id, description, nucleotides("".join(lines), where)))
    return records


def parse_sequence(text: str, source: str, rna_id: str = "rna") -> Record:
    """A sequence given as such; `source` names it in errors.

    >>> parse_sequence("acg t-u", "--rna").sequence
    'ACGUU'
    """
    found = find_foreign([text], 1)
    if found:
        raise UserError(f"{source}: {found[1]}: give an RNA or DNA sequence")
    return Record(rna_id, "", nucleotides(text, source))


def find_foreign(lines: list[str], first_number: int) -> tuple[int, str] | None:
    """Line number and a description of the first character that is no nucleotide; its position counts nt.

    >>> find_foreign(["ACG-", "UEA"], 2)[0]
    3
    """
    before = 0
    for number, line in enumerate(lines, start=first_number):
        packed = "".join(line.split()).translate({ord("-"): None, ord("."): None})
        wrong = FOREIGN.search(packed)
        if wrong:
            character = wrong.group()
            protein = " (is this a protein?)" if character.upper() in PROTEIN_LETTERS else ""
            name = repr(printable(character)) if printable(character) else f"U+{ord(character):04X}"
            return number, (
                f"{name} at position {before + wrong.start() + 1} is no nucleotide, expected A, C, G, U or T "
                f"(or an IUPAC code {NUCLEOTIDES[4:]}){protein}"
            )
        before += len(packed)
    return None


def nucleotides(text: str, where: str) -> str:
    """Normalised sequence of a text without foreign characters; UserError where nothing is left."""
    sequence = normalized(text)
    if not sequence:
        raise UserError(f"{where} has no sequence: expected nucleotides (A, C, G, U or T)")
    if not set(sequence) & set("ACGU"):
        raise UserError(f"{where} has no A, C, G, U or T, only codes for unknown ones: there is nothing to read")
    return sequence
