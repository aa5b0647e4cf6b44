"""One evaluation from its recipe: check the splits, plan, answer, score, and leave a run folder that stands alone.

    evaluate(load_evaluation("recipes/evaluate_facts.yaml"), Path("runs/mine"))

Each step is resumed where an earlier run stopped, per answer and per score.
"""

import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from rnagpt.evaluation.asking.answers import CheckpointAnswers, EndpointAnswers, FileAnswers, Inputs, collect
from rnagpt.evaluation.asking.controls import input_rnas
from rnagpt.evaluation.asking.items import Item, ItemWriter, evaluation_items, read_items
from rnagpt.evaluation.evaluation_recipe import FACTS, EvaluationRecipe, SystemPart
from rnagpt.evaluation.readiness import check_ready
from rnagpt.evaluation.run_folder import begin, finish, record, same_evaluation, same_origin
from rnagpt.evaluation.scoring.measures import MeasureWriter
from rnagpt.evaluation.scoring.text_scores import write_text_scores
from rnagpt.known_rnas.neighbours import Neighbour, check_splits, nearest_by_identity
from rnagpt_core.errors import UserError
from rnagpt_core.files import only_one

RNAS_PER_TYPE = 26
OPTIONS_UNDER = ("true", "swapped")  # whose calibration is shown; elsewhere the true answer's likelihood is enough
PROBE = 16  # answers that are timed for a plan
TOKENS_PER_LETTER = {"text": 0.3, "rna": 0.7}  # of an endpoint's prompt: English, and nucleotides


@dataclass(frozen=True)
class HeldOut:
    """What is asked: the RNAs with id, sequence, type and cluster, the training RNAs, and the items."""

    rnas: list
    train: list
    neighbours: list[Neighbour]
    items: list[Item]


class Condition(NamedTuple):
    """A system's questions under one control ("true" for none), and the RNA that it gets in place of each."""

    control: str
    key: str
    inputs: Inputs
    items: list[Item]


def evaluate(recipe: EvaluationRecipe, run_dir: Path, only_plan: bool = False) -> None:
    """Answer and score everything of a recipe that run_dir does not hold yet.

    Writes run_dir/evaluation.json (the recipe), evaluation/items.jsonl, likelihoods.jsonl and scores.jsonl.

    Raises:
        UserError: the splits leak, the folder holds another evaluation or is being written by another run, something
            that is needed is not there, or it would cost more than the recipe allows.
    """
    folder = run_dir / "evaluation"
    with only_one(run_dir, "another folder"):
        same_evaluation(recipe, run_dir)
        held_out = load_held_out(recipe, run_dir)
        origin = same_origin(recipe, held_out.items, run_dir)
        with ItemWriter(folder / "items.jsonl") as writer:
            check_ready(recipe, held_out.items, writer, only_plan)
            conditions = {part.name: conditions_of(part, held_out, recipe.seed) for part in recipe.systems}
            usd = print_plan(recipe, held_out, conditions, writer, time_answers=only_plan)
            if only_plan:
                return
            if usd > recipe.usd_limit:
                raise UserError(
                    f"this would cost about {usd:.2f} USD, more than the recipe's usd_limit of "
                    f"{recipe.usd_limit:.2f}: raise the limit, or ask about fewer RNAs"
                )
            counts = {one.key: len(one.items) for of_system in conditions.values() for one in of_system}
            begin(recipe, run_dir, counts, origin)
            for item in baseline_items(recipe, held_out) if recipe.baselines else ():
                writer.write(item)
            for part in recipe.systems:
                answer_system(part, held_out, writer, folder, recipe.seed)
        items = read_items(folder / "items.jsonl")
        write_text_scores(items, recipe.encoders, folder, recipe.sentence_mode)
        if recipe.judge:
            from rnagpt.evaluation.scoring.judge import judge

            judge(items, **dataclasses.asdict(recipe.judge), path=folder / "judge.jsonl", seed=recipe.seed)
        finish(run_dir)


def load_held_out(recipe: EvaluationRecipe, run_dir: Path) -> HeldOut:
    """The RNAs and questions of a recipe. UserError where the splits leak, with the counts."""
    data = recipe.data
    if data.source == FACTS:
        from dataset_builder.facts_table.facts import load_facts, scored_subset

        train = load_facts(split="train")
        rnas = scored_subset(data.split, data.rnas or RNAS_PER_TYPE, recipe.seed)
    else:
        from rnagpt.evaluation.asking.qa_items import qa_items, read_qa, sampled

        train = read_qa(data.train or data.source, "train")
        rnas = sampled(read_qa(data.source, data.split), data.rnas, recipe.seed)
    if not rnas:
        raise UserError(f"the split {data.split!r} of {data.source} holds no RNAs to ask about")
    if not train:
        raise UserError(
            f"the split 'train' of {data.train or data.source} holds no RNAs: the check for leaks and the "
            "baselines read it"
        )
    check_splits(train, rnas)  # what needs no alignment first
    neighbours = _known_neighbours(run_dir, rnas, train)
    check_splits(train, rnas, neighbours)
    identities = {rna.rna_id: near.identity for rna, near in zip(rnas, neighbours, strict=True)}
    items = evaluation_items(rnas, recipe.seed, data.closed_per_rna) if data.source == FACTS else qa_items(rnas)
    items = [dataclasses.replace(item, train_identity=identities[item.rna_id]) for item in items]
    return HeldOut(rnas, train, neighbours, items)


def _known_neighbours(run_dir: Path, rnas: Sequence, train: Sequence) -> list[Neighbour]:
    """Aligning takes minutes for thousands of RNAs, so the result is kept."""
    path = run_dir / "evaluation" / "neighbours.json"
    sequences, of_train = [rna.sequence for rna in rnas], [rna.sequence for rna in train]
    digests = [hashlib.sha256("\n".join(some).encode()).hexdigest() for some in (sequences, of_train)]
    origin = [[rna.rna_id for rna in rnas], len(train), *digests]
    if path.is_file():
        known = json.loads(path.read_text())
        if known["asked"] == origin:
            return [Neighbour(*row) for row in known["found"]]
    found = nearest_by_identity(sequences, of_train)
    record(path, {"asked": origin, "found": found})
    return found


def conditions_of(part: SystemPart, held_out: HeldOut, seed: int) -> list[Condition]:
    """The true RNAs, then each control: an RNA that is alone in its type has no other of its type to show."""
    conditions = []
    for control in ("true", *part.controls):
        inputs = input_rnas(control, held_out.rnas, seed)
        items = [item for item in held_out.items if item.rna_id in inputs]
        conditions.append(Condition(control, part.key(control), inputs, items))
    return conditions


def baseline_items(recipe: EvaluationRecipe, held_out: HeldOut) -> list[Item]:
    """Every baseline's answers."""
    about = held_out.train, held_out.rnas, held_out.items
    if recipe.data.source == FACTS:
        from rnagpt.evaluation.asking.baselines import baseline_answers

        return baseline_answers(*about, recipe.seed, neighbours=held_out.neighbours)
    from rnagpt.evaluation.asking.qa_baselines import qa_baseline_answers

    return qa_baseline_answers(*about, held_out.neighbours)


def answer_system(part: SystemPart, held_out: HeldOut, writer: ItemWriter, folder: Path, seed: int) -> None:
    """A system's answers under the true RNA and its controls, then the likelihood of the true answers."""
    conditions = conditions_of(part, held_out, seed)
    with MeasureWriter(folder / "likelihoods.jsonl") as measures:
        unscored = {
            one.key: [item for item in one.items if not measures.done(one.key, item.key, ["reference_logprob"])]
            for one in conditions
            if part.likelihood and part.is_loaded
        }
        if not any(unscored.values()) and all(writer.done(one.key, item) for one in conditions for item in one.items):
            return
        source = open_source(part)
        for one in conditions:
            collect(source, one.items, one.key, one.inputs, writer)
        for one in conditions:
            if unscored.get(one.key):
                _write_likelihoods(source, one, unscored[one.key], held_out.items, measures)


def _write_likelihoods(
    source: CheckpointAnswers, one: Condition, todo: Sequence[Item], items: Sequence[Item], measures: MeasureWriter
) -> None:
    from rnagpt.evaluation.scoring.likelihood import option_wordings, with_likelihoods

    def by_prompt(item: Item) -> tuple[int, str]:
        given = one.inputs[item.rna_id]
        text = source.prompt(item, given and given[1])
        return len(text), text

    wordings, options = option_wordings(items), one.control in OPTIONS_UNDER
    todo = sorted(todo, key=by_prompt)  # like lengths together, and equal prompts, which are read once
    with tqdm(total=len(todo), desc=f"{one.key:<16}", unit="likelihood") as progress:
        for first in range(0, len(todo), 16):
            for item in with_likelihoods(source, todo[first : first + 16], one.inputs, wordings, options):
                values = {"reference_logprob": item.reference_logprob}
                if item.option_logprobs:
                    values["option_logprobs"] = list(item.option_logprobs)
                measures.write(one.key, item.key, values)
                progress.update()


def open_source(part: SystemPart) -> CheckpointAnswers | EndpointAnswers | FileAnswers:
    """The source of answers of a system; models are loaded here."""
    if part.kind == "file":
        return FileAnswers(part.model)
    if part.kind == "endpoint":
        return EndpointAnswers(part.model, part.base_url, part.api_key_env, part.batch_size, part.max_new_tokens)
    from rnagpt.checkpoints import checkpoint
    from rnagpt.checkpoints.forms import PACKAGED_ENCODER, assets, is_checkpoint

    path = assets() / "demo" if part.model == "demo" else Path(part.model)
    if part.kind == "rna" or is_checkpoint(path):
        model, processor = checkpoint.load(
            path if path.exists() else part.model, trust_remote_code=part.trust_remote_code
        )
    else:  # a plain LLM; the encoder is there for the form's sake and is never run
        model, processor = checkpoint.build(part.model, PACKAGED_ENCODER)
    return CheckpointAnswers(model, processor, part.kind == "llm_text", part.batch_size, part.max_new_tokens)


# --- the plan


def print_plan(
    recipe: EvaluationRecipe,
    held_out: HeldOut,
    conditions: Mapping[str, Sequence[Condition]],
    writer: ItemWriter,
    time_answers: bool,
) -> float:
    """Print what is left to do and what it costs, and return the USD; with `time_answers` a few answers are made (and
    thrown away) to say how long it takes."""
    total, seconds = 0.0, 0.0
    print(f"{len(held_out.rnas):,} RNAs, {len(held_out.items):,} questions", file=sys.stderr)
    lengths = {rna.rna_id: len(rna.sequence) for rna in held_out.rnas}
    for part in recipe.systems:
        todo = [(one.control, i) for one in conditions[part.name] for i in one.items if not writer.done(one.key, i)]
        usd = endpoint_usd(part, todo, lengths) if part.kind == "endpoint" else 0.0
        total += usd
        line = f"  {part.name:<16} {len(todo):>9,} answers"
        line += f"  about {usd:,.2f} USD" if usd else ""
        if time_answers and todo and part.is_loaded:
            per_answer, per_likelihood = seconds_per_answer(part, conditions[part.name][0])
            seconds += (per_answer + per_likelihood) * len(todo)
            line += f"  about {in_words(per_answer * len(todo))}"
            line += f", their likelihoods {in_words(per_likelihood * len(todo))}" if per_likelihood else ""
        print(line, file=sys.stderr)
    references = sum(len(item.reference) for item in held_out.items)
    versions = 1 + sum(map(len, conditions.values()))  # references, and answers about as long
    for spec in recipe.encoders:
        usd = references * versions * TOKENS_PER_LETTER["text"] * spec.usd_per_million / 1e6
        total += usd
        if usd:
            print(f"  {spec.label:<16} vectors  about {usd:,.2f} USD", file=sys.stderr)
    if total:
        print(f"  in all about {total:,.2f} USD (limit {recipe.usd_limit:,.2f})", file=sys.stderr)
    if seconds:
        print(f"  in all about {in_words(seconds)} on this machine; text encoders not counted", file=sys.stderr)
    return total


def endpoint_usd(part: SystemPart, todo: Sequence[tuple[str, Item]], lengths: Mapping[str, int]) -> float:
    """Price of an endpoint's answers to (control, item), from the letters of prompts and references."""
    text, rna = TOKENS_PER_LETTER["text"], TOKENS_PER_LETTER["rna"]
    read = len(todo) * (len(EndpointAnswers.INSTRUCTION) * text + 10)
    read += sum(len(item.question) * text for _, item in todo)
    read += sum(lengths[item.rna_id] * rna for control, item in todo if control != "no_rna")
    wrote = sum(len(item.reference) * text for _, item in todo)
    return (read * part.usd_per_million_in + wrote * part.usd_per_million_out) / 1e6


def seconds_per_answer(part: SystemPart, one: Condition) -> tuple[float, float]:
    """Seconds for one answer and for the likelihoods of one item (0 where none are asked for), measured on a batch of
    questions spread over the lengths, after one to warm up."""
    items = sorted(one.items, key=lambda item: (item.true_length, item.key))
    items = items[:: max(1, len(items) // min(PROBE, part.batch_size))][:PROBE]
    source = open_source(part)
    prompts = [source.prompt(item, one.inputs[item.rna_id][1]) for item in items]
    source.answer(prompts[:1])
    started = time.monotonic()
    source.answer(prompts)
    per_answer = (time.monotonic() - started) / len(prompts)
    if not part.likelihood:
        return per_answer, 0.0
    from rnagpt.evaluation.scoring.likelihood import option_wordings, with_likelihoods

    started = time.monotonic()
    with_likelihoods(source, items, one.inputs, option_wordings(one.items))
    return per_answer, (time.monotonic() - started) / len(items)


def in_words(seconds: float) -> str:
    """A time that people read.

    >>> in_words(40), in_words(600), in_words(36_000)
    ('40 s', '10 min', '10.0 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
