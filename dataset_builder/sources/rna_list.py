"""RNAs named by a file instead of a search: RNAcentral ids, one a line, or RNAcentral's FASTA (its FTP has them).

URS000047C79B_9606            or            >URS000047C79B_9606 Homo sapiens (human) tRNA
                                            GCGGAUUUAGCUC...
"""

import gzip
import io
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from rnagpt_core.errors import UserError
from rnagpt_core.sequences import fasta_records

RNA_ID = re.compile(r"(URS[0-9A-F]{10})[_/](\d+)")
WRONG = "no RNAcentral id with a taxid, such as URS000047C79B_9606"


def listed(path: str | Path) -> Iterator[tuple[int, str, dict | None]]:
    """(line or record from 1, id, what the file knows of the RNA); None instead of a row for what is no id.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        in_fasta = next((line for line in text_lines(path) if line.strip()), "").lstrip().startswith(">")
        yield from (of_fasta if in_fasta else of_lines)(text_lines(path))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: --ids takes a file of RNAcentral ids, or FASTA") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder: --ids takes a file of RNAcentral ids, or FASTA") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}): copy it again, or give another file") from None


def text_lines(path: str | Path) -> Iterator[str]:
    """Lines of a text in UTF-8 or UTF-16, gzipped or not, whatever the file is called."""
    with open(path, "rb") as file:
        content = gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == b"\x1f\x8b" else file
        utf_16 = content.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff")
        yield from io.TextIOWrapper(content, "utf-16" if utf_16 else "utf-8-sig", errors="replace")


def of_lines(lines: Iterable[str]) -> Iterator[tuple[int, str, dict | None]]:
    for number, line in enumerate(lines, start=1):
        first = re.split(r"[\s,;]", line.strip(), maxsplit=1)[0]
        if first and not first.startswith("#"):
            match = RNA_ID.fullmatch(first)
            yield number, "_".join(match.groups()) if match else first, {} if match else None


def of_fasta(lines: Iterable[str]) -> Iterator[tuple[int, str, dict | None]]:
    for number, (header, sequence) in enumerate(fasta_records(lines), start=1):
        first, _, description = header.partition(" ")
        match = RNA_ID.fullmatch(first)
        row = {"sequence": sequence, "description": description, "taxid": int(match[2])} if match else None
        yield number, "_".join(match.groups()) if match else first, row
