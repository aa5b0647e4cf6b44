"""Annotated units -> the published folder: Parquet by config and split, a dataset card, statistics and figures.

    publish(work, output)      # output/README.md, output/{alignment,qa}/*.parquet, output/figures/*.png

Rows are streamed, so memory does not grow with the dataset. File names carry a digest of the content: `load_dataset`
would otherwise show a reader the rows of an earlier build from its cache.
"""

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from dataset_builder.facts_table.facts import SPLITS
from dataset_builder.llm.prompts import prompts_sha256
from dataset_builder.publishing.card import write_card
from dataset_builder.publishing.yes_no_balance import YesNoBalance, is_yes_or_no
from dataset_builder.storage.records import published_schemas
from dataset_builder.storage.settings import BuildSettings
from dataset_builder.storage.store import Store
from rnagpt_core.files import new_folder
from rnagpt_core.json_lines import read_json_lines

NOT_PUBLISHED = "publish: rows of yes-or-no questions too many of one answer, or of questions that name the RNA"
RNA_COLUMNS = ("rna_id", "sequence", "length_nt", "rna_type", "species", "taxid", "name", "md5", "release")
COUNTED = (
    "papers per RNA; topics per RNA; questions per RNA; kinds; yes and no; place of the right option; RNA types; "
    "lengths (nt, in steps of 100); words per annotation, in steps of 10; splits; methods; left out or repaired; "
    "quarantined; named; sampling rules; curated facts"
).split("; ")
ROWS_OF_A_FILE = 100_000
GROUP = 1000  # rows written at a time


class NothingToPublish(Exception):
    """No annotation passed the checks."""


def publish(work: Path, output: Path, settings: BuildSettings, ranks: int) -> dict:
    """Write the folder under a temporary name, then put it in place. -> its statistics. Where no annotation passed the
    checks there is nothing to publish, and an earlier folder stays as it is."""
    statistics = Statistics()
    library = Store(work / "library.sqlite", read_only=True)
    try:
        with new_folder(output) as part:
            digests = write_tables(part, work, settings, ranks, library, statistics)
            found = statistics.summary() | {
                "annotation text": "extractive" if "extractive" in settings.methods else "generated",
                "source": "rnacentral" if settings.source == "rnacentral" else "folder",
            }
            if not found["annotations"]:
                raise NothingToPublish
            write_card(part, found, digests, settings, library)
            (part / "statistics.json").write_text(json.dumps(found, indent=1, ensure_ascii=False))
    except NothingToPublish:
        pass
    finally:
        library.close()
    return found


def write_tables(
    part: Path, work: Path, settings: BuildSettings, ranks: int, library: Store, statistics: "Statistics"
) -> dict[str, dict]:
    """All rows, counted in `statistics`. -> {config: what `Tables.close` says}."""
    balance = YesNoBalance(settings.most_of_one_answer, settings.fewest_questions)
    for unit in annotated_units(work, ranks):
        rnas_of_split = Counter(split for _, split in library.rnas_of_set(unit["unit"]))
        for made in unit["annotations"]:
            balance.count(made["method"], usable(made["questions"], settings), rnas_of_split)
    tables = {name: Tables(part / name, schema) for name, schema in published_schemas().items()}
    for unit in annotated_units(work, ranks):
        statistics.unit(unit)
        own = {pmid for _, pmids in unit["topics"] for pmid in pmids}
        for rna, split in library.rnas_of_set(unit["unit"]):
            rows = list(rows_of(rna, split, unit, settings, balance))
            statistics.rna(rna, unit, rows, split)
            for config, row in rows:
                tables[config].add(split, row)
            if rows:
                facts = library.curated(rna.rna_id)
                published = [fact for fact in facts if own.issuperset(fact.pmids)]
                statistics.facts(published, len(facts) - len(published))
                for fact in published:
                    tables["facts"].add(split, base_of(rna) | asdict(fact) | {"pmids": list(fact.pmids)})
    return {name: table.close() for name, table in tables.items()}


def annotated_units(work: Path, ranks: int) -> Iterator[dict]:
    """The units of all ranks by their number, whatever the number of ranks was."""

    files = (work / "annotated" / f"{rank:05d}.jsonl" for rank in range(ranks))
    return heapq.merge(*(read_json_lines(file, "an annotated unit") for file in files), key=lambda unit: unit["unit"])


def usable(questions: list[dict], settings: BuildSettings) -> list[dict]:
    """An annotation's questions without those that the settings leave out, each with its number."""
    return [
        {"number": number, **row}
        for number, row in enumerate(questions)
        if not (row["names_the_rna"] and settings.drop_named)
    ]


def rows_of(rna, split: str, unit: dict, settings: BuildSettings, balance: YesNoBalance) -> Iterator[tuple[str, dict]]:
    """(config, row) of one RNA: an alignment row per annotation, a qa row per question."""
    base = base_of(rna)
    for made in unit["annotations"]:
        prompts = "" if settings.extractive else prompts_sha256()
        source = {"method": made["method"], "model": settings.model.name, "prompt_sha256": prompts}
        pmids = list(dict.fromkeys(pmid for row in made["statements"] for pmid in row["pmids"]))
        alignment = {
            "annotation": made["annotation"],
            "pmids": pmids,
            "topics": [words for words, _ in unit["topics"]],
            "statements": made["statements"],
            "faithfulness": made["faithfulness"],
        }
        yield "alignment", base | alignment | source
        for row in balance.selected(split, made["method"], usable(made["questions"], settings)):
            number = row.pop("number")
            yield "qa", {**base, "qa_id": f"{rna.rna_id}/{made['method']}/{number}", **row, **source}


def base_of(rna) -> dict:
    """What every row says of its RNA."""
    return {name: getattr(rna, name) for name in RNA_COLUMNS}


class Tables:
    """Parquet files of one config, split by split, with the schema given: a first row without options infers none."""

    def __init__(self, folder: Path, schema):
        self.folder, self.schema = folder, schema
        folder.mkdir()
        self.waiting: dict[str, list[dict]] = {split: [] for split in SPLITS}
        self.writers: dict[str, tuple] = {}
        self.files: dict[str, list[list]] = {split: [] for split in SPLITS}  # [path, rows]
        self.digest = hashlib.sha256()

    def add(self, split: str, row: dict) -> None:
        self.digest.update(json.dumps([split, row], ensure_ascii=False, sort_keys=True).encode())
        self.waiting[split].append(row)
        if len(self.waiting[split]) >= GROUP:
            self._write(split)

    def _write(self, split: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows, self.waiting[split] = self.waiting[split], []
        if not rows:
            return
        files = self.files[split]
        if not files or files[-1][1] >= ROWS_OF_A_FILE:
            self._close(split)
            path = self.folder / f"{split}-{len(files):05d}.parquet"
            self.writers[split] = pq.ParquetWriter(path, self.schema, compression="zstd")
            files.append([path, 0])
        self.writers[split].write_table(pa.Table.from_pylist(rows, schema=self.schema))
        files[-1][1] += len(rows)

    def _close(self, split: str) -> None:
        if split in self.writers:
            self.writers.pop(split).close()

    def close(self) -> dict[str, dict]:
        """Finish the files and put the digest into their names: {split: {"pattern", "rows", "bytes"}}."""
        for split in SPLITS:
            self._write(split)
            self._close(split)
        if not any(self.files.values()):
            self.folder.rmdir()
        mark = self.digest.hexdigest()[:12]
        found = {}
        for split, files in self.files.items():
            renamed = [path.rename(path.with_name(f"{path.stem}-{mark}.parquet")) for path, _ in files]
            if renamed:
                found[split] = {
                    "pattern": f"{self.folder.name}/{split}-*-{mark}.parquet",
                    "rows": sum(rows for _, rows in files),
                    "bytes": sum(path.stat().st_size for path in renamed),
                }
        return found


class Statistics:
    """Counts for the card, the figures and the run report; memory for the counts alone."""

    def __init__(self):
        self.counts: dict[str, Counter] = {name: Counter() for name in COUNTED}
        self.faithfulness = [0, 0.0]
        self.units = 0

    def unit(self, unit: dict) -> None:
        self.units += 1
        self.counts["left out or repaired"].update(unit["counts"])
        for method, stage, reason in unit["quarantined"]:
            self.counts["quarantined"][f"{method}: {stage}: {reason}"] += 1
        if unit["sampled"]:
            self.counts["sampling rules"][unit["sampled"].split(": ", 1)[-1]] += 1

    def facts(self, published: list, left: int) -> None:
        """`left`: facts that cite papers which are not the RNA's own here, and might be of another split."""
        self.counts["curated facts"].update(fact.source for fact in published)
        if left:
            self.counts["left out or repaired"]["publish: curated facts on papers that were not collected"] += left

    def rna(self, rna, unit: dict, rows: list[tuple[str, dict]], split: str) -> None:
        count = self.counts
        written = sum(len(made["questions"]) for made in unit["annotations"])
        published = sum(config == "qa" for config, _ in rows)
        if written > published:
            count["left out or repaired"][NOT_PUBLISHED] += written - published
        if not rows:
            count["splits"]["RNAs quarantined"] += 1
            return
        count["splits"][split] += 1
        count["RNA types"][rna.rna_type or "unknown"] += 1
        count["lengths (nt, in steps of 100)"][rna.length_nt // 100 * 100] += 1
        count["papers per RNA"][sum(len(pmids) for _, pmids in unit["topics"])] += 1
        count["topics per RNA"][len(unit["topics"])] += 1
        for method in {row["method"] for _, row in rows}:
            questions = [row for config, row in rows if config == "qa" and row["method"] == method]
            count["methods"][method] += 1
            count["questions per RNA"][len(questions)] += 1
        for config, row in rows:
            if config == "alignment":
                count["words per annotation, in steps of 10"][len(row["annotation"].split()) // 10 * 10] += 1
                self.faithfulness[0] += 1
                self.faithfulness[1] += row["faithfulness"]
                continue
            count["kinds"][row["kind"]] += 1
            count["named"]["names the RNA" if row["names_the_rna"] else "does not name the RNA"] += 1
            if is_yes_or_no(row):
                count["yes and no"][row["answer"]] += 1
            elif row["kind"] == "closed":
                count["place of the right option"][row["options"].index(row["answer"]) + 1] += 1

    def summary(self) -> dict:
        annotations, total = self.faithfulness
        mean = round(total / annotations, 4) if annotations else None
        return {"units": self.units, "annotations": annotations, "mean faithfulness": mean} | {
            name: {str(key): n for key, n in sorted(counter.items(), key=order)}
            for name, counter in self.counts.items()
        }


def order(item):
    """Numbers by value, everything else by how often."""
    key, number = item
    return (0, key, 0) if isinstance(key, int) else (1, -number, str(key))
