"""RNAs named by a file instead of a search: RNAcentral ids, one a line, or RNAcentral's FASTA (its FTP has them).

    URS000047C79B_9606            or            >URS000047C79B_9606 Homo sapiens (human) tRNA
                                                GCGGAUUUAGCUC...
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

from dataset_builder.errors import BuildError
from dataset_builder.fact_sources import read_fasta

RNA_ID = re.compile(r"(URS[0-9A-F]{10})[_/](\d+)")
WRONG = "no RNAcentral id with a taxid, such as URS000047C79B_9606"


def listed(path: str | Path) -> Iterator[tuple[int, str, dict | None]]:
    """(line or record from 1, id, what the file knows of the RNA); None instead of a row for what is no id.

    Raises:
        BuildError: the file cannot be read.
    """
    path = Path(path)
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8-sig", errors="replace") as handle:
            in_fasta = next((line for line in handle if line.strip()), "").startswith(">")
        yield from of_fasta(path) if in_fasta else of_lines(path, opener)
    except FileNotFoundError:
        raise BuildError(f"{path} does not exist: --ids takes a file of RNAcentral ids, or FASTA") from None
    except (OSError, EOFError) as error:
        raise BuildError(f"{path} cannot be read: {error}") from None


def of_lines(path: Path, opener) -> Iterator[tuple[int, str, dict | None]]:
    with opener(path, "rt", encoding="utf-8-sig", errors="replace") as handle:
        for number, line in enumerate(handle, start=1):
            first = re.split(r"[\s,;]", line.strip(), maxsplit=1)[0]
            if first and not first.startswith("#"):
                match = RNA_ID.fullmatch(first)
                yield number, "_".join(match.groups()) if match else first, {} if match else None


def of_fasta(path: Path) -> Iterator[tuple[int, str, dict | None]]:
    for number, (header, sequence) in enumerate(read_fasta(path), start=1):
        first, _, description = header.partition(" ")
        match = RNA_ID.fullmatch(first)
        row = {"sequence": sequence, "description": description, "taxid": int(match[2])} if match else None
        yield number, "_".join(match.groups()) if match else first, row
