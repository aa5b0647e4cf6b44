"""RNA-QA as evaluation items: question-answer pairs of a split, and the RNAs that they are about.

    test = read_qa("path/to/rna-qa", split="test")
    items = qa_items(sampled(test, 5000, seed=0))

Reads Parquet or JSON lines with the columns of the `qa` configuration: rna_id, sequence, question, answer, kind, and
where they are there options, method, evidence_pmids, rna_type, name, cluster.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rnagpt.evaluation.asking.items import Item, option_in
from rnagpt_core.errors import UserError

REQUIRED = ("rna_id", "sequence", "question", "answer")


@dataclass(frozen=True)
class QaRna:
    """One RNA of RNA-QA with its pairs; `pmids` are those of all pairs."""

    rna_id: str
    sequence: str
    rna_type: str = ""
    name: str = ""
    cluster: int | str | None = None
    pmids: tuple[str, ...] = ()
    pairs: tuple["Pair", ...] = ()


@dataclass(frozen=True)
class Pair:
    """One question about an RNA and its answer; `options` are the labels of a closed one."""

    question: str
    answer: str
    kind: str = "open"
    options: tuple[str, ...] = ()
    method: str = ""
    evidence_pmids: tuple[str, ...] = ()


def read_qa(path: str | Path, split: str) -> list[QaRna]:
    """The RNAs of one split, in the files' order.

    `path` is a file, or a folder that holds the split's files: SPLIT.parquet, SPLIT-00000-of-00002.parquet or
    SPLIT.jsonl, in it or in its folder qa/.

    Raises:
        UserError: no such file, or a file without the required columns, or with an empty cell in one of them.
    """
    files = split_files(Path(path), split)
    rows = ((f"row {number} of {file}", row) for file in files for number, row in enumerate(_rows(file), start=1))
    pairs: dict[str, list[Pair]] = defaultdict(list)
    about: dict[str, dict] = {}
    for where, row in rows:
        for name in REQUIRED:
            if not isinstance(row[name], str) or not row[name].strip():
                told = f"has a pair about {row['rna_id']!r} whose {name} is no text but {row[name]!r}"
                raise UserError(f"{where} {told}: write its {name}, or leave the row out")
        first = about.setdefault(row["rna_id"], row)
        if first["sequence"] != row["sequence"]:
            raise UserError(f"{path} gives {row['rna_id']} two sequences: the same id must be the same RNA")
        pairs[row["rna_id"]].append(
            Pair(
                str(row["question"]).strip(),
                str(row["answer"]).strip(),
                str(row.get("kind") or "open"),
                tuple(map(str, _listed(row.get("options")))),
                str(row.get("method") or ""),
                tuple(map(str, _listed(row.get("evidence_pmids")))),
            )
        )
    return [
        QaRna(
            rna_id,
            row["sequence"].upper().replace("T", "U"),
            str(row.get("rna_type") or ""),
            str(row.get("name") or ""),
            row.get("cluster"),
            tuple(sorted({pmid for pair in pairs[rna_id] for pmid in pair.evidence_pmids})),
            tuple(dict.fromkeys(pairs[rna_id])),
        )
        for rna_id, row in about.items()
    ]


def split_files(path: Path, split: str) -> list[Path]:
    """The files of a split; a file is its own."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"no RNA-QA at {path}: expected a file or a folder of {split}.parquet or {split}.jsonl")
    for folder in (path, path / "qa", path / "data", path / "qa" / "data"):
        pattern = rf"{re.escape(split)}(-.*)?\.(parquet|jsonl)"
        if found := sorted(file for file in folder.glob("*") if re.fullmatch(pattern, file.name)):
            return found
    raise UserError(f"{path} holds no split {split!r}: expected {split}.parquet or {split}.jsonl in it or in its qa/")


def _rows(file: Path) -> Iterable[dict]:
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.ParquetFile(file)
        _has_columns(file, table.schema_arrow.names)
        for batch in table.iter_batches():
            yield from batch.to_pylist()
        return
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"line {number} of {file} is no JSON: {error}") from None
            _has_columns(f"line {number} of {file}", row if isinstance(row, dict) else ())
            yield row


def _has_columns(where, names) -> None:
    if missing := [name for name in REQUIRED if name not in names]:
        raise UserError(f"{where} lacks {', '.join(missing)}: RNA-QA has the columns {', '.join(REQUIRED)}")


def _listed(value) -> list:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def sampled(rnas: Sequence[QaRna], count: int | None, seed: int) -> list[QaRna]:
    """`count` RNAs sampled by a hash of id and seed, so that more RNAs keep those that fewer had; all where None."""

    def rank(rna: QaRna) -> str:
        return hashlib.sha256(f"{seed}\t{rna.rna_id}".encode()).hexdigest()

    return sorted(rnas, key=rank)[:count]


def qa_items(rnas: Sequence[QaRna]) -> list[Item]:
    """One item per pair. A closed pair's label is the option that its answer names; where it names none the pair is
    free text. The cluster of an RNA without one is its sequence, so that copies stay together."""
    clusters: dict = {}
    items = []
    for rna in rnas:
        cluster = rna.cluster if rna.cluster is not None else rna.sequence
        number = clusters.setdefault(cluster, len(clusters))
        for pair in rna.pairs:
            gold = option_in(pair.answer, options_of(pair)) if pair.kind == "closed" else None
            items.append(
                Item(
                    rna_id=rna.rna_id,
                    cluster=number,
                    rna_type=rna.rna_type,
                    true_length=len(rna.sequence),
                    topic="closed" if gold else "open",
                    kind="closed" if gold else "open",
                    question=pair.question,
                    options=options_of(pair) if gold else (),
                    gold=gold or "",
                    reference=pair.answer,
                    name=rna.name,
                    method=pair.method,
                    evidence_pmids=pair.evidence_pmids,
                )
            )
    return list({item.key: item for item in reversed(items)}.values())[::-1]  # asked twice: the first answer counts


def options_of(pair: Pair) -> tuple[str, ...]:
    """The labels of a closed pair: its options, or yes and no where the answer begins with one of them."""
    if pair.options:
        return pair.options
    first = pair.answer.lower().lstrip("\"'").split(",")[0].split(".")[0].split()
    return ("yes", "no") if first and first[0] in ("yes", "no") else ()
