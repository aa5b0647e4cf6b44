"""RNA-QA -> a folder that may be published, once nothing in it leaks, drifts or is somebody else's text.

    stage(Path("runs/rna-qa/dataset"), folder, "owner/rna-qa", licence="cc-by-4.0")

Reads what `rnagpt build-dataset` published and, beside it, work/library.sqlite, which has the abstracts: the texts are
looked through for passages copied from them.
"""

import json
import re
import shutil
from collections import Counter, defaultdict
from datetime import date
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import Any

from dataset_builder.facts_table.facts import SPLITS
from dataset_builder.publishing.qa_splits import EXHAUSTIVE
from dataset_builder.publishing.search_tools import found_across
from dataset_builder.storage.records import RnaRecord, published_schemas
from rnagpt import __version__
from rnagpt.release import contents
from rnagpt_core.errors import UserError
from rnagpt_core.nearest import are_neighbours

COPIED = 60  # words in a row: a third of an abstract
NOT_OURS = ("other", "unknown")
DEFAULT_CONFIG = "alignment"
OPEN_LICENCE = re.compile(r"cc[ -]?0|cc[ -]?by(?![ -]?(?:nc|nd))|public domain", re.IGNORECASE)


def stage(source: Path, folder: Path, repo: str, licence: str, collected: str | None = None) -> None:
    """Check the dataset and write what goes up.

    Raises:
        UserError: no published dataset; other columns or types than `published_schemas`; splits that share an RNA, a
            near sequence or a paper; abstracts, or long passages of them, without a licence; a stray file.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence):
        raise UserError(f"--licence takes a licence's id as the Hub writes it, such as cc-by-4.0, got {licence!r}")
    try:
        if collected is not None and str(date.fromisoformat(collected)) != collected:
            raise ValueError
    except ValueError:
        raise UserError(f"--collected takes a date as YYYY-MM-DD, got {collected!r}") from None
    if not (source / "README.md").is_file() or not any((source / name).is_dir() for name in published_schemas()):
        raise UserError(f"{source} is no published RNA-QA: give OUTPUT/dataset of `rnagpt build-dataset`")
    contents.check_contents(source, contents.DATASET_FILES)
    statistics = json.loads((source / "statistics.json").read_text()) if (source / "statistics.json").is_file() else {}
    check_licence(source, statistics.get("annotation text"), licence)
    files = check_schemas(source)
    known = read_rnas(files)
    check_leaks(known)
    annotations = [path for of_split in files["alignment"].values() for path in of_split]
    library = source.parent / "work" / "library.sqlite"
    copies_checked = check_copies(annotations, library)
    folder.mkdir(exist_ok=True)
    for path in contents.check_contents(source, contents.DATASET_FILES):
        to = folder / path.relative_to(source)
        to.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, to)
    ids = set().union(*(known[split]["id"] for split in SPLITS))
    where = sources_text(annotations, ids, statistics.get("source") == "rnacentral")
    write_card(folder, statistics, repo, licence, collected, copies_checked, where)
    print(f"checked: columns, splits (by RNA, sequence and paper){', copied passages' if copies_checked else ''}")
    if not copies_checked:
        print(f"not checked: passages copied from abstracts, because there is no {library}; the card says so")


def check_licence(source: Path, text: str | None, licence: str) -> None:
    """UserError for a licence that the annotations cannot be given under.

    text: statistics.json's word on them, "extractive" or "generated"; None where an earlier version wrote it.
    """
    if text == "generated" or licence in NOT_OURS:
        return
    if text is None:
        raise UserError(
            f"{source}/statistics.json does not say whether the annotations are sentences of the abstracts: give "
            "--licence other, or run `rnagpt build-dataset` again to write it anew"
        )
    raise UserError(
        f"the annotations of {source} are sentences of the abstracts, and {licence} is not ours to give them: give "
        "--licence other, or build with a language model that writes in its own words"
    )


def check_schemas(source: Path) -> dict[str, dict[str, list[Path]]]:
    """{config: {split: files}}, once every file has the public columns, in order and of the public types."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files: dict[str, dict[str, list[Path]]] = {}
    for config, schema in published_schemas().items():
        files[config] = defaultdict(list)
        for path in sorted((source / config).glob("*.parquet")):
            split = path.name.split("-")[0]
            if split not in SPLITS:
                raise UserError(f"{config}/{path.name} is of no split: names begin with {', '.join(SPLITS)}")
            try:
                found = pq.read_schema(path)
            except (OSError, pa.ArrowInvalid) as error:
                raise UserError(f"{config}/{path.name} is no Parquet file, or is damaged: {error}") from None
            check_columns(f"{config}/{path.name}", found, schema)
            files[config][split].append(path)
        if config == "facts" and not files[config]:
            del files[config]  # not every dataset has them
        elif not files[config].get("train"):
            raise UserError(f"{source} has no {config}/train-*.parquet: build the dataset again")
    return files


def check_columns(name: str, found, schema) -> None:
    """UserError that names the columns which are missing, new or of another type."""
    texts = [column for column in found.names if re.search("abstract|full_?text", column)]
    if texts:
        raise UserError(
            f"{name} holds raw abstracts (column {texts[0]}), their publishers': publish PubMed ids instead"
        )
    if found.remove_metadata().equals(schema):
        return
    ours, theirs = dict(zip(schema.names, schema.types, strict=True)), dict(zip(found.names, found.types, strict=True))
    drift = {
        "missing": [column for column in ours if column not in theirs],
        "new": [column for column in theirs if column not in ours],
        "of another type": [column for column in ours if theirs.get(column, ours[column]) != ours[column]],
    }
    listed = "; ".join(f"{what}: {', '.join(columns)}" for what, columns in drift.items() if columns)
    raise UserError(f"{name} has drifted from the public columns ({listed or 'in another order'}): build it again")


def read_rnas(files: dict) -> dict[str, dict]:
    """Split -> what its RNAs are known by: {"id": {...}, "sequence": {...}, "paper": {...}}, of both configs."""
    import pyarrow.parquet as pq

    known: dict[str, dict] = {split: {"id": set(), "sequence": set(), "paper": set()} for split in SPLITS}
    for config, splits in files.items():
        papers = "evidence_pmids" if config == "qa" else "pmids"
        for split, paths in splits.items():
            for path in paths:
                for batch in pq.ParquetFile(path).iter_batches(columns=["rna_id", "sequence", "md5", papers]):
                    for row in batch.to_pylist():
                        rna = RnaRecord(row["rna_id"], row["sequence"], md5=row["md5"] or row["rna_id"])
                        known[split]["id"].add(rna.urs)
                        known[split]["sequence"].add(row["sequence"])
                        known[split]["paper"].update(row[papers] or [])
    return known


def check_leaks(known: dict[str, dict]) -> None:
    """UserError with counts where two splits share an RNA, a sequence, a near sequence or a paper."""
    words = {"id": "RNA ids", "sequence": "sequences", "paper": "papers"}
    found = [
        f"{len(shared):,} {name} in both {one} and {other} (such as {min(shared)[:40]})"
        for one, other in combinations(SPLITS, 2)
        for what, name in words.items()
        if (shared := known[one][what] & known[other][what])
    ]
    found = found or [
        f"{near:,} sequences of {other} with an 80% neighbour in {one}"
        for one, other in combinations(SPLITS, 2)
        if (near := near_sequences(known[one]["sequence"], known[other]["sequence"]))
    ]
    if found:
        raise UserError(f"the splits leak: {'; '.join(found)}; split again (`rnagpt build-dataset`)")


def near_sequences(one: set[str], other: set[str]) -> int:
    """How many sequences of `other` have a neighbour in `one`: all pairs where they are few, else by MMseqs2."""
    if len(one) * len(other) > EXHAUSTIVE**2:
        return len(found_across(dict(enumerate(sorted(other))), dict(enumerate(sorted(one)))))
    return sum(any(are_neighbours(known, sequence) for known in one) for sequence in other)


def check_copies(paths: list[Path], library: Path) -> bool:
    """Whether the texts were looked through for passages of the abstracts they rest on (the library is there).

    Raises:
        UserError: a text repeats over COPIED words in a row of an abstract without an open licence, or the library
            is another dataset's.
    """
    if not library.is_file():
        return False
    import sqlite3

    import pyarrow.parquet as pq

    from dataset_builder.storage.store import Store

    copied: Counter = Counter()
    try:
        opened = Store(library, read_only=True)
        for path in paths:
            for batch in pq.ParquetFile(path).iter_batches(1000, columns=["annotation", "pmids"]):
                rows = batch.to_pylist()
                papers = opened.papers_by_pmid({pmid for row in rows for pmid in row["pmids"]})
                closed = {paper.pmid: paper.abstract for paper in papers if not OPEN_LICENCE.search(paper.licence)}
                for row in rows:
                    text = " ".join(re.findall(r"\w+", row["annotation"].lower()))
                    copied.update(pmid for pmid in row["pmids"] if repeats(text, closed.get(pmid, "")))
        opened.close()
    except sqlite3.Error as error:
        raise UserError(f"{library} cannot be read ({error}): copied passages could not be looked for") from None
    except KeyError as error:
        lacks = f"{library} lacks PubMed {error.args[0]}, which the annotations rest on"
        raise UserError(f"{lacks}: it was collected for another dataset; build this one again") from None
    if copied:
        raise UserError(
            f"annotations repeat {COPIED} words or more of {len(copied):,} abstracts without an open licence (such as "
            f"PubMed {min(copied)}): leave those papers out and build again"
        )
    return True


def repeats(text: str, abstract: str, count: int = COPIED) -> bool:
    """Whether `count` words in a row of an abstract stand in a text (of words joined by spaces).

    >>> repeats("so we find that mir 21 is high here", "We find that miR-21 is high.", count=5)
    True
    """
    words = re.findall(r"\w+", abstract.lower())
    # a passage of so many words covers one of these pieces whole
    size = max(1, count // 2)
    pieces = [i for i in range(0, len(words) - size + 1, size) if " ".join(words[i : i + size]) in text]
    starts = {k for i in pieces for k in range(max(0, i + size - count), min(i, len(words) - count) + 1)}
    return any(" ".join(words[k : k + count]) in text for k in starts)


def sources_text(paths: list[Path], ids: set[str], collected: bool) -> str:
    """Where sequences and literature come from, as far as the rows tell, or the builder's card (`collected`)."""
    import pyarrow.parquet as pq

    named = sorted(set(filter(None, pq.read_table(paths, columns=["release"])["release"].unique().to_pylist())))
    if named or collected:
        return (
            f"Sequences, names and types: RNAcentral (release {', '.join(named) or 'not stated'}) and its member "
            "databases. Literature: titles and abstracts found by LitScan and Europe PMC"
        )
    urs = sum(name.startswith("URS") for name in ids)
    return (
        f"Sequences, names and types: those of the folder that it was built from; {urs:,} of its {len(ids):,} ids are "
        "RNAcentral's. Literature: titles and abstracts of the same folder"
    )


def write_card(
    folder: Path, statistics: dict, repo: str, licence: str, collected: str | None, copies_checked: bool, where: str
) -> None:
    """The builder's card with the default configuration, licence and what a reader must know before using it."""
    import jinja2
    from huggingface_hub import DatasetCard

    path = folder / "README.md"
    card = DatasetCard(path.read_text(encoding="utf-8"))
    data: Any = card.data  # its fields are those of the YAML head
    data.license = licence
    data.tags = list(dict.fromkeys([*(data.tags or []), "rna-qa"]))
    data.annotations_creators = ["machine-generated"]
    for config in data.configs or []:
        config.pop("default", None)
        if config["config_name"] == DEFAULT_CONFIG:
            config["default"] = True
    types = statistics.get("RNA types", {})
    total = sum(types.values()) or 1
    text = jinja2.Template(
        (resources.files("rnagpt.release") / "dataset_card.jinja").read_text(encoding="utf-8")
    ).render(
        repo=repo,
        licence=licence,
        collected=collected,
        version=__version__,
        where=where,
        copies_checked=copies_checked,
        text=statistics.get("annotation text"),
        facts=any(config["config_name"] == "facts" for config in data.configs or []),
        types="; ".join(f"{name} {100 * n / total:.0f}%" for name, n in list(types.items())[:4]) or "not counted",
        yes_and_no=statistics.get("yes and no", {}),
    )
    card.text = f"{card.text.rstrip()}\n\n{text}\n"
    path.write_text(str(card), encoding="utf-8")
