"""The rows that a stage trains on: from the packaged table of facts, from RNA-QA, from text without RNA, or a mix.

    {"rna_id", "sequence", "length", "pairs": [{"question", "answer", "turns"}, ...]}

One row is one look at an RNA with the pairs that are asked about it then; `turns` holds a conversation of several
questions instead of one. A row of text alone has an empty sequence.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import SimpleNamespace

import numpy as np
from datasets import Dataset, Features, List, Value, interleave_datasets

from dataset_builder.facts_table.fact_questions import annotation, questions
from dataset_builder.facts_table.facts import EVALUATION_TYPES, RnaFact, load_facts, scored_subset
from dataset_builder.publishing.published_rows import open_rows
from processing_rnagpt.collator import SharedPrefixCollator
from rnagpt.evaluation.asking.controls import swap_partners
from rnagpt.training.recipe import DataRecipe, Recipe, SourceRecipe
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
AT_A_TIME = 256  # questions whose similarities are in memory together


@dataclass(frozen=True)
class Rows:
    """What one stage reads.

    held_out, swapped: the same validation questions with the true RNA, and with another type's RNA in its place.
    annotations: rna_id -> annotation of training RNAs, for the projector's closed-form start.
    sequences: rna_id -> RNA of everything above.
    """

    train: Dataset
    held_out: Dataset
    swapped: Dataset
    annotations: dict[str, str]
    sequences: dict[str, str]


def load_rows(recipe: Recipe) -> Rows:
    """The rows of a recipe's stage.

    Raises:
        UserError: a source cannot be loaded, or lacks a column; says which.
    """
    train, held_out, annotated = _from_sources(recipe) if recipe.data.sources else _from_facts(recipe)
    swapped = [] if recipe.stage == "preference" else swap_rows(held_out, recipe.seed)
    return Rows(
        train=train,
        held_out=_dataset(held_out),
        swapped=_dataset(swapped),
        annotations={row["rna_id"]: row["pairs"][0]["answer"] for row in annotated if row["sequence"]},
        sequences={row["rna_id"]: row["sequence"] for row in [*annotated, *train, *held_out] if row["sequence"]},
    )


def row(rna_id: str, sequence: str, pairs: list[dict], rna_type: str = "") -> dict:
    """One row of FEATURES; what a pair does not have is empty."""
    pairs = [{"question": "", "answer": "", "turns": []} | pair for pair in pairs]
    return {"rna_id": rna_id, "sequence": sequence, "length": len(sequence), "pairs": pairs, "rna_type": rna_type}


def _dataset(rows: Iterable[dict]) -> Dataset:
    rows = list(rows)
    return Dataset.from_dict({name: [row[name] for row in rows] for name in FEATURES}, features=FEATURES)


def swap_rows(rows: list[dict], seed: int) -> list[dict]:
    """The rows' questions with an RNA of another type: where the two losses part, the model reads the RNA.

    [] where all are of one type.
    """
    by_id = {row["rna_id"]: row for row in rows}
    if len({row["rna_type"] for row in rows}) < 2:
        return []
    partners = swap_partners([SimpleNamespace(**row) for row in by_id.values()], seed)
    return [by_id[partners[row["rna_id"]]] | {"pairs": row["pairs"]} for row in rows]


# --- the packaged table of facts


def _from_facts(recipe: Recipe) -> tuple[Dataset, list[dict], list[dict]]:
    """Training rows, validation rows, and for a closed-form start the annotation of every training RNA."""
    data, facts = recipe.data, load_facts(split="train")
    sampled = samples(facts, data, recipe.seed)
    scored = scored_subset("validation", data.validation_rnas // len(EVALUATION_TYPES), recipe.seed)
    validation = [(fact, 0) for fact in scored]
    rows_of = {"alignment": annotation_rows, "instruction": question_rows, "preference": wrong_type_rows}[recipe.stage]
    train = rows_of(sampled, data.pairs_per_sample, recipe.seed)
    annotated = annotation_rows((fact, 0) for fact in facts) if recipe.projector_start == "ridge" else []
    return _dataset(train), rows_of(validation, 1, recipe.seed), annotated


def samples(facts: Sequence[RnaFact], data: DataRecipe, seed: int) -> list[tuple[RnaFact, int]]:
    """`data.samples` RNAs, each with how often it came up before.

    Types are sampled with probability proportional to (their count) ** type_balance, and so that types which the
    evaluation scores come up with probability `scored_share` if given; within a type every RNA comes up once, in a
    random order, before any does again.
    """
    rng = random.Random(seed)
    by_type: dict[str, list[RnaFact]] = defaultdict(list)
    for fact in sorted(facts, key=lambda fact: fact.rna_id):
        by_type[fact.rna_type].append(fact)
    for group in by_type.values():
        rng.shuffle(group)
    types = sorted(by_type)
    weights = {rna_type: len(by_type[rna_type]) ** data.type_balance for rna_type in types}
    if data.scored_share is not None:
        for scored, share in ((True, data.scored_share), (False, 1 - data.scored_share)):
            group = [rna_type for rna_type in types if (rna_type in EVALUATION_TYPES) == scored]
            total = sum(weights[rna_type] for rna_type in group)
            weights |= {rna_type: weights[rna_type] / total * share for rna_type in group}
    times: dict[str, int] = defaultdict(int)
    out = []
    for rna_type in rng.choices(types, list(weights.values()), k=data.samples or len(facts)):
        before, i = divmod(times[rna_type], len(by_type[rna_type]))
        times[rna_type] += 1
        out.append((by_type[rna_type][i], before))
    return out


def annotation_rows(sampled: Iterable[tuple[RnaFact, int]], *_) -> list[dict]:
    """Alignment: no question, the annotation as the answer (paper, section 2.2)."""
    return [_fact_row(fact, [("", annotation(fact, seed=before))]) for fact, before in sampled]


def question_rows(sampled: Iterable[tuple[RnaFact, int]], pairs: int, seed: int) -> list[dict]:
    """Instruction: the question for the RNA's type and `pairs` - 1 others, others each time."""
    rows = []
    for fact, before in sampled:
        possible = questions(fact, seed=before)
        others = [q for q in possible if q.topic != "rna_type"]
        rng = random.Random(f"{seed} {fact.rna_id} {before}")
        chosen = _type_questions(possible)[:1] + rng.sample(others, min(pairs - 1, len(others)))
        rows.append(_fact_row(fact, [(q.question, q.answer) for q in chosen]))
    return rows


def wrong_type_rows(sampled: Sequence[tuple[RnaFact, int]], _, seed: int) -> list[dict]:
    """Preference: the question for the type, with the RNA's own answer and with that of an RNA of another type."""
    rng = random.Random(seed)
    rows = []
    for fact, before in sampled:
        question = _type_questions(questions(fact, seed=before))[0]
        other = rng.choice([other for other, _ in sampled if other.rna_type != fact.rna_type])
        wrong = _type_questions(questions(other, seed=before))[0]
        rows.append(_fact_row(fact, [(question.question, question.answer), (question.question, wrong.answer)]))
    return rows


def _type_questions(possible: Iterable) -> list:
    return [q for q in possible if q.topic == "rna_type"]


def _fact_row(fact: RnaFact, pairs: list[tuple[str, str]]) -> dict:
    named = [{"question": question, "answer": answer} for question, answer in pairs]
    return row(fact.rna_id, fact.sequence, named, fact.rna_type)


# --- data sets


def _from_sources(recipe: Recipe) -> tuple[Dataset, list[dict], Iterable[dict]]:
    """Training rows of all sources, mixed; validation rows; and for a closed-form start the training rows again."""
    data = recipe.data
    if recipe.stage == "preference" and any(source.text for source in data.sources):
        raise UserError("recipe key data.sources: a preference stage reads RNA-QA, no text")

    def rows_of(source: SourceRecipe, split: str, pairs: int) -> Iterable[dict]:
        rows = source_rows(source, split, recipe.stage, pairs)
        return preference_rows(rows) if recipe.stage == "preference" else rows

    parts = [_dataset(rows_of(source, "train", data.pairs_per_sample)) for source in data.sources]
    train = parts[0]
    if len(parts) > 1:
        total = sum(source.weight for source in data.sources)
        shares = [source.weight / total for source in data.sources]
        train = interleave_datasets(parts, shares, seed=recipe.seed, stopping_strategy="all_exhausted")
    if data.samples:
        train = train.select(range(min(data.samples, len(train))))
    held_out: list[dict] = []
    for source in data.sources:
        for candidate in rows_of(source, source.validation_split, 1) if source.validation_split else ():
            if len(held_out) == data.validation_rnas:
                break
            if candidate["sequence"] and (not held_out or candidate["rna_id"] != held_out[-1]["rna_id"]):
                held_out.append(candidate)
    return train, held_out, train if recipe.projector_start == "ridge" else []


def source_rows(source: SourceRecipe, split: str, stage: str, pairs: int) -> Iterator[dict]:
    """Rows of one source: RNA-QA's `alignment` or `qa`, or conversations ("messages") without RNA.

    Args:
        pairs: most questions about an RNA in one row; RNA-QA keeps those of an RNA together.
    """
    config = source.config if source.text else source.config or ("alignment" if stage == "alignment" else "qa")
    answers = {"annotation"} if stage == "alignment" else {"question", "answer"}
    loaded = open_rows(source.path, config, split, {"messages"} if source.text else {"rna_id", "sequence"} | answers)
    if source.text:
        for number, record in enumerate(loaded):
            turns = turns_of(record["messages"], f"{source.path} ({config}, {split}), record {number}")
            yield row(f"{source.path}:{number}", "", [{"turns": list(turns)}])
        return
    for rna_id, group in groupby(loaded, key=lambda record: record["rna_id"]):
        records = list(group)
        contents = [{name: record.get(name, "") for name in ("question", "answer")} for record in records]
        if stage == "alignment":
            contents, pairs = [{"answer": record["annotation"]} for record in records], 1
        for first in range(0, len(records), pairs):
            record = records[first]
            yield row(rna_id, record["sequence"], contents[first : first + pairs], record.get("rna_type") or "")


def turns_of(messages: list[dict], where: str) -> Iterator[dict]:
    """Messages, user and assistant by turns -> turns of question and answer."""
    roles = [message["role"] for message in messages]
    if not roles or len(roles) % 2 or roles != ["user", "assistant"] * (len(roles) // 2):
        raise UserError(
            f"{where}: the messages' roles are {', '.join(roles) or 'none'}, expected user and assistant by turns"
        )
    for question, answer in zip(messages[::2], messages[1::2], strict=True):
        yield {"question": question["content"], "answer": answer["content"]}


def preference_rows(rows: Iterable[dict]) -> Iterator[dict]:
    """Rows of two pairs from rows of questions: each question with its own answer, and with an unsupported one."""
    in_rows = [(parent, pair) for parent in rows for pair in parent["pairs"]]
    triples = [(parent["rna_id"], pair["question"], pair["answer"]) for parent, pair in in_rows]
    for (parent, pair), rejected in zip(in_rows, unsupported_answers(triples), strict=True):
        if rejected is not None:
            yield row(parent["rna_id"], parent["sequence"], [pair, pair | {"answer": rejected}], parent["rna_type"])


def unsupported_answers(triples: Sequence[tuple[str, str, str]], candidates: int = 20_000) -> list[str | None]:
    """For each (rna_id, question, answer), another RNA's answer to the most similar question: right for that one, so
    fluent, but not supported for this one. None where there is no other answer.

        about RNA a: "Which gene does it target?"  "PTEN"
        about RNA b: "Which gene is its target?"   "BCL2"   -> for a: PTEN is preferred, BCL2 given up

    Similar by TF-IDF cosine of the questions' words (scikit-learn). Answers that agree but for case and punctuation,
    or that the RNA itself has to any question, are not taken. Of more than `candidates` questions, so many are sampled
    to be compared with.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    if len(triples) < 2:
        return [None] * len(triples)
    tf_idf = TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True)
    vectors = tf_idf.fit_transform([question for _, question, _ in triples])
    own: dict[str, set[str]] = defaultdict(set)
    for rna_id, _, answer in triples:
        own[rna_id].add(_plain(answer))
    sampled = np.sort(np.random.default_rng(0).permutation(len(triples))[:candidates])
    others = vectors[sampled].T
    rejected: list[str | None] = []
    for first in range(0, len(triples), AT_A_TIME):
        similar = (vectors[first : first + AT_A_TIME] @ others).toarray()
        for (rna_id, _, _), scores in zip(triples[first : first + AT_A_TIME], similar, strict=True):
            nearest = ((scores[i], *triples[sampled[i]]) for i in np.argsort(-scores, kind="stable"))
            fitting = (
                answer
                for score, other, _, answer in nearest
                if score > 0 and other != rna_id and _plain(answer) not in own[rna_id]
            )
            rejected.append(next(fitting, None))
    return rejected


def _plain(answer: str) -> str:
    return "".join(letter for letter in answer.casefold() if letter.isalnum())


# --- batches of about so many LLM tokens, however long their RNAs are


@dataclass
class BatchedRows:
    """Collates batches made by `fill_batches`, whose members are numbers of `rows`, and plain rows as they are."""

    collator: SharedPrefixCollator
    rows: Dataset

    def __call__(self, rows: list[dict]) -> dict:
        batches = [[self.rows[i] for i in one["members"]] if "members" in one else [one] for one in rows]
        return self.collator([each for batch in batches for each in batch])


def fill_batches(collator: SharedPrefixCollator, rows: Dataset, token_budget: int, seed: int) -> Dataset:
    """Rows in a random order, a batch ended before it would pass the budget; a longer row is one of its own.

    A batch is a row {"members": [row numbers]}, so sampling, resuming and processes stay the trainer's. In a random
    order and not by length: batches of one length are batches of one RNA type.
    """
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    batches, filled = [[]], 0
    for i in order:
        sequences, _ = collator.lay_out_row(rows[i])
        tokens = sum(len(sequence["input_ids"]) for sequence in sequences)
        if batches[-1] and filled + tokens > token_budget:
            batches.append([])
            filled = 0
        batches[-1].append(i)
        filled += tokens
    return Dataset.from_dict({"members": batches})
