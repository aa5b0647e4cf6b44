"""The rows that a stage trains on: from the packaged table of facts, from RNA-QA, from text without RNA, or a mix.

    {"rna_id", "sequence", "length", "pairs": [{"question", "answer", "turns"}, ...]}

One row is one visit of an RNA with the pairs that are asked about it then; `turns` holds a conversation of several
questions instead of one. A row of text alone has an empty sequence.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from datasets import Dataset, Features, IterableDataset, List, Value, interleave_datasets

from dataset_builder.facts_table.facts import EVALUATION_TYPES, load_facts, scored_subset
from dataset_builder.publishing.published_rows import open_rows
from rnagpt.evaluation.asking.controls import swap_partners
from rnagpt.training import fact_rows
from rnagpt.training.preferences import Asked, unsupported_answers
from rnagpt.training.recipe import Recipe, SourceRecipe
from rnagpt_core.errors import UserError

_TURN = {"question": Value("string"), "answer": Value("string")}
FEATURES = Features(
    {
        "rna_id": Value("string"),
        "sequence": Value("string"),
        "length": Value("int32"),
        "pairs": List({**_TURN, "turns": List(_TURN)}),
    }
)
CONFIGS = {"alignment": "alignment", "instruction": "qa", "preference": "qa"}  # stage -> RNA-QA's configuration
COLUMNS = {
    "alignment": {"rna_id", "sequence", "annotation"},
    "instruction": {"rna_id", "sequence", "question", "answer"},
    "preference": {"rna_id", "sequence", "question", "answer"},
}


@dataclass(frozen=True)
class Rows:
    """What one stage reads.

    train: the training rows; an IterableDataset when a source is streamed.
    held_out, swapped: the same validation questions with the true RNA, and with another type's RNA in its place.
    annotations: rna_id -> annotation of training RNAs, for the projector's closed-form start.
    sequences: rna_id -> RNA of everything above, empty when streamed.
    """

    train: Dataset | IterableDataset
    held_out: Dataset
    swapped: Dataset
    annotations: dict[str, str]
    sequences: dict[str, str]


def load_rows(recipe: Recipe) -> Rows:
    """The rows of a recipe's stage.

    Raises:
        UserError: a source cannot be loaded, or lacks a column; says which.
    """
    if recipe.data.sources:
        return _from_sources(recipe)
    return _from_facts(recipe)


def _from_facts(recipe: Recipe) -> Rows:
    data, seed = recipe.data, recipe.seed
    facts = load_facts(split="train")
    visits = fact_rows.visits(facts, data.visits or len(facts), data.type_balance, seed, data.scored_share)
    validation = scored_subset("validation", data.validation_rnas // len(EVALUATION_TYPES), seed)
    if recipe.stage == "alignment":
        rows = [fact_rows.alignment_row(fact, visit) for fact, visit in visits]
        held_out = [fact_rows.alignment_row(fact, 0) for fact in validation]
    elif recipe.stage == "preference":
        rows = fact_rows.preference_rows(visits, seed)
        held_out = fact_rows.preference_rows([(fact, 0) for fact in validation], seed)
    else:
        rows = [fact_rows.instruction_row(fact, visit, data.pairs_per_visit, seed) for fact, visit in visits]
        held_out = [fact_rows.instruction_row(fact, 0, 1) for fact in validation]
    annotations = {}
    if recipe.projector_start == "ridge":
        annotations = {fact.rna_id: fact_rows.annotation(fact) for fact in facts}
    seen = [*(facts if annotations else [fact for fact, _ in visits]), *validation]
    return Rows(
        train=_dataset(rows),
        held_out=_dataset(held_out),
        swapped=_dataset(
            []
            if recipe.stage == "preference"
            else swap_rows(held_out, {fact.rna_id: fact.rna_type for fact in validation}, seed)
        ),
        annotations=annotations,
        sequences={fact.rna_id: fact.sequence for fact in seen},
    )


def _from_sources(recipe: Recipe) -> Rows:
    data = recipe.data
    if recipe.stage == "preference" and any(source.streaming or source.text for source in data.sources):
        raise UserError("recipe key data.sources: a preference stage reads RNA-QA, neither text nor a stream")
    streamed = any(source.streaming for source in data.sources)
    train = []
    for source in data.sources:
        rows = (r for r in source_rows(source, source.split, recipe.stage, data.pairs_per_visit))
        if recipe.stage == "preference":
            rows = preference_rows(rows)
        if streamed:
            arguments = {"source": source, "split": source.split, "stage": recipe.stage, "pairs": data.pairs_per_visit}
            train.append(IterableDataset.from_generator(_streamed_rows, features=FEATURES, gen_kwargs=arguments))
        else:
            train.append(_dataset(rows))
    if len(train) == 1:
        (mixed,) = train
    else:
        total = sum(source.weight for source in data.sources)
        shares = [source.weight / total for source in data.sources]
        mixed = interleave_datasets(train, shares, seed=recipe.seed, stopping_strategy="all_exhausted")
    if not streamed and data.visits:
        mixed = mixed.select(range(min(data.visits, len(mixed))))
    held_out, types = [], {}
    for source in data.sources:
        if source.validation_split:
            rows = source_rows(source, source.validation_split, recipe.stage, 1, types)
            for row in preference_rows(rows) if recipe.stage == "preference" else rows:
                if len(held_out) == data.validation_rnas:
                    break
                if row["sequence"] and (not held_out or row["rna_id"] != held_out[-1]["rna_id"]):
                    held_out.append(row)
    types = {row["rna_id"]: types.get(row["rna_id"], "") for row in held_out}
    several = len(set(types.values())) > 1 and recipe.stage != "preference"
    swapped = swap_rows(held_out, types, recipe.seed) if several else []
    sequences, annotations = {}, {}
    if not streamed:
        for row in [*mixed, *held_out]:
            if row["sequence"]:
                sequences[row["rna_id"]] = row["sequence"]
        if recipe.projector_start == "ridge":
            annotations = {row["rna_id"]: row["pairs"][0]["answer"] for row in mixed if row["sequence"]}
    return Rows(mixed, _dataset(held_out), _dataset(swapped), annotations, sequences)


def source_rows(
    source: SourceRecipe, split: str, stage: str, pairs: int, types: dict[str, str] | None = None
) -> Iterator[dict]:
    """Rows of one source: RNA-QA's `alignment` or `qa`, or conversations ("messages") without RNA.

    Args:
        pairs: most questions about an RNA in one row; RNA-QA keeps those of an RNA together.
        types: filled with rna_id -> rna_type where the source says so.
    """
    config = source.config if source.text else source.config or CONFIGS[stage]
    name = f"{source.path} ({config}, {split})"
    wanted = {"messages"} if source.text else COLUMNS[stage]
    loaded = open_rows(source.path, config, split, wanted, source.streaming)
    if source.text:
        for number, record in enumerate(loaded):
            yield row(f"{source.path}:{number}", "", [{"turns": list(turns_of(record["messages"], name, number))}])
    elif stage == "alignment":
        for record in loaded:
            _note_type(types, record)
            yield row(record["rna_id"], record["sequence"], [{"question": "", "answer": record["annotation"]}])
    else:
        for rna_id, group in groupby(loaded, key=lambda record: record["rna_id"]):
            records = list(group)
            _note_type(types, records[0])
            for first in range(0, len(records), pairs):
                chunk = records[first : first + pairs]
                asked = [{"question": record["question"], "answer": record["answer"]} for record in chunk]
                yield row(rna_id, chunk[0]["sequence"], asked)


def preference_rows(rows: Iterable[dict]) -> Iterator[dict]:
    """Rows of two pairs from rows of questions: each question with its own answer, and with an unsupported one."""
    records = [{**pair, "row": given} for given in rows for pair in given["pairs"]]
    asked = [Asked(record["row"]["rna_id"], record["question"], record["answer"]) for record in records]
    for record, rejected in zip(records, unsupported_answers(asked), strict=True):
        if rejected is not None:
            question, given = record["question"], record["row"]
            both = [{"question": question, "answer": answer} for answer in (record["answer"], rejected)]
            yield row(given["rna_id"], given["sequence"], both)


def _streamed_rows(source: SourceRecipe, split: str, stage: str, pairs: int) -> Iterator[dict]:
    yield from source_rows(source, split, stage, pairs)


def _note_type(types: dict[str, str] | None, record: dict) -> None:
    if types is not None:
        types[record["rna_id"]] = record.get("rna_type") or ""


def turns_of(messages: list[dict], name: str, number: int) -> Iterator[dict]:
    """Messages, user and assistant by turns -> turns of question and answer."""
    roles = [message["role"] for message in messages]
    if not roles or len(roles) % 2 or roles != ["user", "assistant"] * (len(roles) // 2):
        raise UserError(
            f"{name}, record {number}: the messages' roles are {', '.join(roles) or 'none'}, expected user and "
            "assistant by turns"
        )
    for question, answer in zip(messages[::2], messages[1::2], strict=True):
        yield {"question": question["content"], "answer": answer["content"]}


def row(rna_id: str, sequence: str, pairs: list[dict]) -> dict:
    """One row of FEATURES; what a pair does not have is empty."""
    return {
        "rna_id": rna_id,
        "sequence": sequence,
        "length": len(sequence),
        "pairs": [{"question": "", "answer": "", "turns": []} | pair for pair in pairs],
    }


def swap_rows(rows: list[dict], types: dict[str, str], seed: int) -> list[dict]:
    """The rows' questions with an RNA of another type: where the two losses part, the model reads the RNA."""
    by_id = {row["rna_id"]: row for row in rows}
    partners = swap_partners([_Typed(rna_id, types[rna_id]) for rna_id in by_id], seed)
    return [
        {**row, **{key: by_id[partners[row["rna_id"]]][key] for key in ("rna_id", "sequence", "length")}}
        for row in rows
    ]


@dataclass(frozen=True)
class _Typed:
    rna_id: str
    rna_type: str


def _dataset(rows: Iterable[dict]) -> Dataset:
    whole = [row(r["rna_id"], r["sequence"], r["pairs"]) for r in rows]
    return Dataset.from_dict({name: [r[name] for r in whole] for name in FEATURES}, features=FEATURES)
