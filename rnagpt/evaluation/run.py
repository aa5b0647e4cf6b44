"""One evaluation from its recipe: check the splits, estimate, answer, score, and leave a run folder that stands alone.

    evaluate(load_evaluation("recipes/evaluate_facts.yaml"), Path("runs/mine"))

Each step is resumed where an earlier run stopped, per answer and per score.
"""

import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rnagpt.evaluation.asking.answers import AnswerSource, CheckpointAnswers, EndpointAnswers, FileAnswers, collect
from rnagpt.evaluation.asking.controls import shown_rnas
from rnagpt.evaluation.asking.items import Item, ItemWriter, evaluation_items, read_items
from rnagpt.evaluation.asking.readiness import check_ready
from rnagpt.evaluation.evaluation_recipe import FACTS, EvaluationRecipe, SystemPart
from rnagpt.evaluation.run_folder import begin, finish, record, same_evaluation, same_questions, same_weights
from rnagpt.evaluation.scoring.measures import MeasureWriter, rna_key
from rnagpt.known_rnas.neighbours import Neighbour, check_splits, nearest_by_identity
from rnagpt_core.errors import UserError
from rnagpt_core.files import only_one

RNAS_PER_TYPE = 26
OPTIONS_UNDER = ("true", "swapped")  # whose calibration is shown; elsewhere the true answer's likelihood is enough
PROBE = 16  # answers that are timed for an estimate
TOKENS_PER_LETTER = {"text": 0.3, "rna": 0.7}  # of an endpoint's prompt: English, and nucleotides


@dataclass(frozen=True)
class HeldOut:
    """What is asked: the RNAs with id, sequence, type and cluster, the training RNAs, and the items."""

    rnas: list
    train: list
    neighbours: list[Neighbour]
    items: list[Item]


def evaluate(recipe: EvaluationRecipe, run_dir: Path, only_estimate: bool = False) -> None:
    """Answer and score everything of a recipe that run_dir does not hold yet.

    Writes run_dir/evaluation.json (the recipe), evaluation/items.jsonl, likelihoods.jsonl and scores.jsonl.

    Raises:
        UserError: the splits leak, the folder holds another evaluation or is being written by another run, something
            that is needed is not there, or it would cost more than the recipe allows.
    """
    with only_one(run_dir, "another folder"):
        same_evaluation(recipe, run_dir)
        held_out = load_held_out(recipe, run_dir)
        same_questions(held_out.items, run_dir)
        _evaluate(recipe, held_out, run_dir, only_estimate)


def _evaluate(recipe: EvaluationRecipe, held_out: HeldOut, run_dir: Path, only_estimate: bool) -> None:
    folder = run_dir / "evaluation"
    with ItemWriter(folder / "items.jsonl") as writer:
        check_ready(recipe, held_out.items, writer, only_estimate)
        weights = same_weights(recipe, run_dir)
        usd = print_estimate(recipe, held_out, writer, time_answers=only_estimate)
        if only_estimate:
            return
        if usd > recipe.usd_limit:
            raise UserError(
                f"this would cost about {usd:.2f} USD, more than the recipe's usd_limit of "
                f"{recipe.usd_limit:.2f}: raise the limit, or ask about fewer RNAs"
            )
        asked = {key: len(items) for part in recipe.systems for key, items in asked_of(part, held_out, recipe.seed)}
        begin(recipe, run_dir, asked, held_out.items, weights)
        if recipe.floors:
            for item in floor_items(recipe, held_out):
                writer.write(item)
        for part in recipe.systems:
            answer_system(part, held_out, writer, folder, recipe.seed)
    items = read_items(folder / "items.jsonl")
    write_text_scores(items, recipe, folder)
    if recipe.judge:
        from rnagpt.evaluation.scoring.judge import judge

        judge(
            items,
            recipe.judge.model,
            recipe.judge.base_url,
            folder / "judge.jsonl",
            recipe.judge.api_key_env,
            recipe.seed,
            recipe.judge.parallel,
        )
    finish(run_dir)


def load_held_out(recipe: EvaluationRecipe, run_dir: Path) -> HeldOut:
    """The RNAs and questions of a recipe. UserError where the splits leak, with the counts."""
    data = recipe.data
    if data.source == FACTS:
        from dataset_builder.facts_table.facts import load_facts, scored_subset

        train = load_facts(split="train")
        rnas = scored_subset(data.split, data.rnas or RNAS_PER_TYPE, recipe.seed)
    else:
        from rnagpt.evaluation.asking.qa_items import read_qa, sampled

        train = read_qa(data.train or data.source, "train")
        rnas = sampled(read_qa(data.source, data.split), data.rnas, recipe.seed)
    if not rnas:
        raise UserError(f"the split {data.split!r} of {data.source} holds no RNAs to ask about")
    if not train:
        raise UserError(
            f"the split 'train' of {data.train or data.source} holds no RNAs: the check for leaks and the "
            "floors read it"
        )
    check_splits(train, rnas)  # what needs no alignment first
    neighbours = _known_neighbours(run_dir, rnas, train)
    check_splits(train, rnas, neighbours)
    identities = {rna.rna_id: near.identity for rna, near in zip(rnas, neighbours, strict=True)}
    if data.source == FACTS:
        items = [
            dataclasses.replace(item, train_identity=identities[item.rna_id])
            for item in evaluation_items(rnas, recipe.seed, data.closed_per_rna)
        ]
    else:
        from rnagpt.evaluation.asking.qa_items import qa_items

        items = qa_items(rnas, identities)
    return HeldOut(rnas, train, neighbours, items)


def _known_neighbours(run_dir: Path, rnas: Sequence, train: Sequence) -> list[Neighbour]:
    """Aligning takes minutes for thousands of RNAs, so the result is kept."""
    path = run_dir / "evaluation" / "neighbours.json"
    asked = [[rna.rna_id for rna in rnas], len(train), _digest(rnas), _digest(train)]
    if path.is_file():
        known = json.loads(path.read_text())
        if known["asked"] == asked:
            return [Neighbour(*row) for row in known["found"]]
    found = nearest_by_identity([rna.sequence for rna in rnas], [rna.sequence for rna in train])
    record(path, {"asked": asked, "found": found})
    return found


def _digest(rnas: Sequence) -> str:
    return hashlib.sha256("\n".join(rna.sequence for rna in rnas).encode()).hexdigest()


def floor_items(recipe: EvaluationRecipe, held_out: HeldOut) -> list[Item]:
    """Every floor's answers."""
    if recipe.data.source == FACTS:
        from rnagpt.evaluation.asking.baselines import baseline_answers

        return baseline_answers(
            held_out.train, held_out.rnas, held_out.items, recipe.seed, neighbours=held_out.neighbours
        )
    from rnagpt.evaluation.asking.qa_baselines import floor_answers

    return floor_answers(held_out.train, held_out.rnas, held_out.items, held_out.neighbours)


def answer_system(part: SystemPart, held_out: HeldOut, writer: ItemWriter, folder: Path, seed: int) -> None:
    """A system's answers under the true RNA and its controls, then the likelihood of the true answers."""
    shown = {control: shown_rnas(control, held_out.rnas, seed) for control in ["true", *part.controls]}
    asked = {control: [item for item in held_out.items if item.rna_id in shown[control]] for control in shown}
    keys = {control: part.name if control == "true" else f"{part.name}_{control}" for control in shown}
    scored = part.likelihood and part.kind in ("rna", "llm_text")
    names = ["reference_logprob"]
    with MeasureWriter(folder / "likelihoods.jsonl") as measures:
        if all(
            writer.done(keys[c], item) and (not scored or measures.done(keys[c], item.key, names))
            for c in shown
            for item in asked[c]
        ):
            return
        source = open_source(part)
        for control, key in keys.items():
            collect(source, asked[control], key, shown[control], writer)
        if not scored:
            return
        for control, key in keys.items():
            todo = [item for item in asked[control] if not measures.done(key, item.key, names)]
            _write_likelihoods(source, todo, held_out.items, key, shown[control], measures, control in OPTIONS_UNDER)


def _write_likelihoods(
    source: CheckpointAnswers,
    todo: Sequence[Item],
    items: Sequence[Item],
    system: str,
    shown,
    measures: MeasureWriter,
    options: bool,
    chunk: int = 16,
) -> None:
    from tqdm import tqdm

    from rnagpt.evaluation.scoring.likelihood import option_wordings, with_likelihoods

    def prompt(item: Item) -> tuple[int, str]:
        seen = shown[item.rna_id]
        asked = source.asks(item, seen[1] if seen else None)
        return len(asked), asked

    wordings = option_wordings(items)
    todo = sorted(todo, key=prompt)  # like lengths together, and equal prompts, which are read once
    with tqdm(total=len(todo), desc=f"{system:<16}", unit="likelihood", disable=not todo) as progress:
        for first in range(0, len(todo), chunk):
            for item in with_likelihoods(
                source.model,
                source.processor,
                todo[first : first + chunk],
                shown,
                source.as_text,
                wordings=wordings,
                options=options,
            ):
                values = {"reference_logprob": item.reference_logprob}
                if item.option_logprobs:
                    values["option_logprobs"] = list(item.option_logprobs)
                measures.write(system, item.key, values)
                progress.update()


def open_source(part: SystemPart) -> AnswerSource:
    """The source of answers of a system; models are loaded here."""
    if part.kind == "file":
        return FileAnswers(part.model)
    if part.kind == "endpoint":
        return EndpointAnswers(part.model, part.base_url, part.api_key_env, part.batch_size, part.max_new_tokens)
    from rnagpt.checkpoints import checkpoint
    from rnagpt.checkpoints.forms import PACKAGED_ENCODER, assets, is_checkpoint

    path = assets() / "demo" if part.model == "demo" else Path(part.model)
    if part.kind == "rna" or is_checkpoint(path):
        model, processor = checkpoint.load(path if path.exists() else part.model)
    else:  # a plain LLM; the encoder is there for the form's sake and is never run
        model, processor = checkpoint.build(part.model, PACKAGED_ENCODER)
    return CheckpointAnswers(model, processor, part.kind == "llm_text", part.batch_size, part.max_new_tokens)


# --- the estimate


def print_estimate(recipe: EvaluationRecipe, held_out: HeldOut, writer: ItemWriter, time_answers: bool) -> float:
    """Print what is left to do and what it costs, and return the USD; with `time_answers` a few answers are made (and
    thrown away) to say how long it takes."""
    total, seconds = 0.0, 0.0
    print(f"{len(held_out.rnas):,} RNAs, {len(held_out.items):,} questions", file=sys.stderr)
    lengths = {rna.rna_id: len(rna.sequence) for rna in held_out.rnas}
    for part in recipe.systems:
        todo = {
            control: [
                item
                for item in asked_under(control, held_out, recipe.seed)
                if not writer.done(part.name if control == "true" else f"{part.name}_{control}", item)
            ]
            for control in ["true", *part.controls]
        }
        answers = sum(map(len, todo.values()))
        usd = sum(endpoint_usd(part, items, lengths if control != "no_rna" else {}) for control, items in todo.items())
        total += usd
        line = f"  {part.name:<16} {answers:>9,} answers"
        line += f"  about {usd:,.2f} USD" if usd else ""
        if time_answers and answers and part.kind in ("rna", "llm_text"):
            per_answer, per_likelihood = seconds_per_answer(part, held_out)
            seconds += (per_answer + per_likelihood) * answers
            line += f"  about {in_words(per_answer * answers)}"
            line += f", their likelihoods {in_words(per_likelihood * answers)}" if per_likelihood else ""
        print(line, file=sys.stderr)
    references = sum(len(item.reference) for item in held_out.items)
    versions = 1 + sum(1 + len(part.controls) for part in recipe.systems)  # references, and answers about as long
    for spec in recipe.encoders:
        usd = references * versions * 0.3 * spec.usd_per_million / 1e6
        total += usd
        if usd:
            print(f"  {spec.label:<16} vectors  about {usd:,.2f} USD", file=sys.stderr)
    if total:
        print(f"  in all about {total:,.2f} USD (limit {recipe.usd_limit:,.2f})", file=sys.stderr)
    if seconds:
        print(f"  in all about {in_words(seconds)} on this machine; text encoders not counted", file=sys.stderr)
    return total


def asked_under(control: str, held_out: HeldOut, seed: int) -> list[Item]:
    """The items that a control can be asked: an RNA that is alone in its type has no other of its type to show."""
    shown = shown_rnas(control, held_out.rnas, seed)
    return [item for item in held_out.items if item.rna_id in shown]


def asked_of(part: SystemPart, held_out: HeldOut, seed: int) -> list[tuple[str, list[Item]]]:
    """A system's keys, its own and those of its controls, with the items that each answers."""
    return [
        (part.name if control == "true" else f"{part.name}_{control}", asked_under(control, held_out, seed))
        for control in ["true", *part.controls]
    ]


def endpoint_usd(part: SystemPart, items: Sequence[Item], lengths: dict[str, int]) -> float:
    """Price of an endpoint's answers, from the letters of its prompts and the length of the references."""
    if part.kind != "endpoint":
        return 0.0
    instruction = len(EndpointAnswers.INSTRUCTION) * TOKENS_PER_LETTER["text"] + 10
    read = sum(
        instruction
        + len(item.question) * TOKENS_PER_LETTER["text"]
        + lengths.get(item.rna_id, 0) * TOKENS_PER_LETTER["rna"]
        for item in items
    )
    wrote = sum(len(item.reference) * TOKENS_PER_LETTER["text"] for item in items)
    return (read * part.usd_per_million_in + wrote * part.usd_per_million_out) / 1e6


def seconds_per_answer(part: SystemPart, held_out: HeldOut) -> tuple[float, float]:
    """Seconds for one answer and for the likelihoods of one item (0 where none are asked for), measured on a batch of
    questions spread over the lengths, after one to warm up."""
    shown = shown_rnas("true", held_out.rnas)
    items = sorted(held_out.items, key=lambda item: (item.true_length, item.key))
    items = items[:: max(1, len(items) // min(PROBE, part.batch_size))][:PROBE]
    source = open_source(part)
    prompts = [source.asks(item, shown[item.rna_id][1]) for item in items]
    source.answer(prompts[:1])
    started = time.monotonic()
    source.answer(prompts)
    per_answer = (time.monotonic() - started) / len(prompts)
    if not part.likelihood:
        return per_answer, 0.0
    from rnagpt.evaluation.scoring.likelihood import option_wordings, with_likelihoods

    wordings = option_wordings(held_out.items)
    started = time.monotonic()
    with_likelihoods(source.model, source.processor, items, shown, source.as_text, wordings=wordings)
    return per_answer, (time.monotonic() - started) / len(items)


def in_words(seconds: float) -> str:
    """A time that people read.

    >>> in_words(40), in_words(600), in_words(36_000)
    ('40 s', '10 min', '10.0 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# --- similarities


def write_text_scores(items: Sequence[Item], recipe: EvaluationRecipe, folder: Path) -> None:
    """scores.jsonl: ROUGE and the similarities of every answer that is a text, and of every RNA's set of answers."""
    from tqdm import tqdm

    from rnagpt.evaluation.scoring.text_encoders import load_encoder
    from rnagpt.evaluation.scoring.text_scores import pair_scores, set_scores

    encoders = [load_encoder(spec, folder / "vectors.sqlite") for spec in recipe.encoders]
    by_system: dict[str, list[Item]] = {}
    for item in items:
        by_system.setdefault(item.system, []).append(item)
    pair_names = ["rougeL"] + [f"aligned:{e.spec.label}" for e in encoders]
    pair_names += [f"sentence:{e.spec.label}" for e in encoders if recipe.sentence_mode and e.spec.kind != "tokens"]
    set_names = [f"paper:{e.spec.label}" for e in encoders if e.spec.kind != "tokens"]
    by_system = {
        system: answers for system, answers in by_system.items() if any(item.answer != item.parsed for item in answers)
    }  # the others are labels, not texts
    with MeasureWriter(folder / "scores.jsonl") as writer:
        # all systems together and by reference: a text that comes up again, as most do, is encoded once
        todo: dict[tuple[str, str], list[Item]] = {}
        for item in sorted((item for answers in by_system.values() for item in answers), key=lambda i: i.reference):
            if not writer.done(item.system, item.key, pair_names):
                todo.setdefault((item.reference, item.answer or ""), []).append(item)
        pairs = list(todo)
        with tqdm(total=len(pairs), desc="similarities", unit="pair", disable=not pairs) as progress:
            for first in range(0, len(pairs), 256):
                part = pairs[first : first + 256]
                rows = pair_scores(*zip(*part, strict=True), encoders, recipe.sentence_mode)
                for pair, row in zip(part, rows, strict=True):
                    for item in todo[pair]:
                        writer.write(item.system, item.key, {name: list(scores) for name, scores in row.items()})
                progress.update(len(part))
        for system, answers in by_system.items():
            keys = [rna_key(item.rna_id, item.method) for item in answers]
            left = [i for i, key in enumerate(keys) if set_names and not writer.done(system, key, set_names)]
            scores = (
                set_scores(
                    [keys[i] for i in left],
                    [answers[i].reference for i in left],
                    [answers[i].answer or "" for i in left],
                    encoders,
                )
                if left
                else {}
            )
            for key, row in scores.items():
                writer.write(system, key, {name: list(values) for name, values in row.items()})
    record(folder / "encoders.json", [encoder.spec.to_dict() for encoder in encoders])
