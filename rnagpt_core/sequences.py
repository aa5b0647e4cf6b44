"""Reads RNAs: a FASTA file (plain or .gz), a bare sequence, pasted text. Only the standard library, to be quick.

read_fasta("rna.fa") -> [Record("tRNA-Phe", "yeast", "GCGGAUUU..."), ...]
"""

import gzip
import io
import os
import re
import zlib
from collections.abc import Iterable, Iterator
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


def read_bytes(path: str | os.PathLike, max_bytes: int, wanted: str = WANTED) -> bytes:
    """The file's bytes, decompressed where they are gzip's, at most `max_bytes` of them; errors ask for `wanted`."""
    try:
        with open(path, "rb") as file:
            zipped = file.peek(2)[:2] == b"\x1f\x8b"
            if str(path).endswith(".gz") and not zipped and file.peek(1):
                raise UserError(f"{path} is named .gz but holds no gzip data: compress it again, or rename it")
            # asks for one byte more than allowed, so a file that unpacks to terabytes costs no more than that
            content = (gzip.GzipFile(fileobj=file) if zipped else file).read(max_bytes + 1)
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
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
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
    lines = [line.strip() for line in io.StringIO(text, newline=None)]
    first = next((number for number, line in enumerate(lines, start=1) if line), None)
    if first is None:
        raise UserError(f"{source} is empty: expected FASTA records, each a line '>id' and its sequence below")
    if not any(line.startswith(">") for line in lines):
        found = find_foreign(lines, 1)
        if found:
            raise UserError(
                f"{source}, line {found[0]}: no record (no line begins with '>'), and as a bare sequence "
                f"{found[1]}: give a FASTA file"
            )
        return [Record(one_line(fallback_id), "", nucleotides("".join(lines), source))]
    if not lines[first - 1].startswith(">"):
        raise UserError(f"{source}, line {first}: text before the first '>': every record begins with a line '>id'")
    starts = [number for number, line in enumerate(lines, start=1) if line.startswith(">")]
    if len(starts) > max_records:
        raise UserError(f"{source} holds {len(starts):,} records, more than {max_records:,}: split the file")
    records: list[Record] = []
    line_of_id: dict[str, int] = {}
    for start, end in zip(starts, [*starts[1:], len(lines) + 1], strict=True):
        rna_id, _, description = one_line(lines[start - 1][1:]).partition(" ")
        if not rna_id:
            raise UserError(f"{source}, line {start}: the record has no id: write one after the '>'")
        if rna_id in line_of_id:
            raise UserError(
                f"{source}, line {start}: record {rna_id} has the id of line {line_of_id[rna_id]}: give each its own"
            )
        line_of_id[rna_id] = start
        where = f"{source}, line {start}: record {rna_id}"
        found = find_foreign(lines[start : end - 1], start + 1)
        if found:
            raise UserError(f"{source}, line {found[0]}: record {rna_id}: {found[1]}: give an RNA or DNA sequence")
        records.append(Record(rna_id, description, nucleotides("".join(lines[start : end - 1]), where)))
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
            shown = repr(printable(character)) if printable(character) else f"U+{ord(character):04X}"
            return number, (
                f"{shown} at position {before + wrong.start() + 1} is no nucleotide, expected A, C, G, U or T "
                f"(or an IUPAC code {NUCLEOTIDES[4:]}){protein}"
            )
        before += len(packed)
    return None


def nucleotides(text: str, where: str) -> str:
    """Normalised sequence of a text without foreign characters; UserError where nothing is left."""
    sequence = "".join(text.split()).translate(NORMALIZED)
    if not sequence:
        raise UserError(f"{where} has no sequence: expected nucleotides (A, C, G, U or T)")
    if not set(sequence) & set("ACGU"):
        raise UserError(f"{where} has no A, C, G, U or T, only codes for unknown ones: there is nothing to read")
    return sequence


def stream_fasta(path: str | os.PathLike) -> Iterator[tuple[str, str]]:
    """FASTA (gzipped or not) -> (header without ">", sequence as written), one record in memory at a time."""
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8-sig", errors="replace") as handle:
        yield from fasta_records(handle)


def fasta_records(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Lines of FASTA -> (header without ">", sequence as written).

    >>> list(fasta_records([">a one", "AC", "GU", ">b"]))
    [('a one', 'ACGU'), ('b', '')]
    """
    header: str | None = None
    parts: list[str] = []
    for line in map(str.strip, lines):
        if line.startswith(">"):
            if header is not None:
                yield header, "".join(parts)
            header, parts = line[1:], []
        elif line:
            parts.append(line)
    if header is not None:
        yield header, "".join(parts)
