"""How like its reference is an answer: three named modes whose numbers are never mixed.

| mode | unit | one-vector encoders | token encoders (BERTScore), ROUGE |
|---|---|---|---|
| paper | RNA | its references x its answers: see below | per pair, averaged within the RNA |
| aligned | question | cosine of an answer with its own reference | per pair |
| sentence | question | as paper, on the sentences of an answer and of its reference | - |

P is the mean over answers of the cosine with the best reference, R the mean over references of that with the best
answer. `paper` is the recipe behind the paper's Tables 1-4; F1 is averaged, not computed from averages. For
one-vector encoders it forgets which question an answer belongs to: permuting the answers inside an RNA changes
nothing. `aligned` is the headline; `sentence` is for long stage-1 texts.
"""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rnagpt.evaluation.asking.items import Item
from rnagpt.evaluation.scoring.measures import MeasureWriter, rna_key
from rnagpt.evaluation.scoring.rouge import ROUGE, Scores, rouge
from rnagpt.evaluation.scoring.text_encoders import TextEncoder, load_encoder
from rnagpt_core.files import replace_text

MODES = ("paper", "aligned", "sentence")


def similarity_sets(references: np.ndarray, answers: np.ndarray) -> Scores:
    """Greedy matching of two sets of unit vectors, (n_references, width) and (n_answers, width).

    >>> similarity_sets(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0]]))
    Scores(precision=1.0, recall=0.5, f1=0.6666666666666666)
    """
    cosines = references @ answers.T
    return Scores.of(float(cosines.max(0).mean()), float(cosines.max(1).mean()))


def sentences(text: str) -> list[str]:
    """The sentences of a text: split after . ! ? before white space and a capital or digit, and at line breaks.

    >>> sentences("It binds Hfq. E. coli sRNA, 0.5 kb.\\nSee Fig. 2.")
    ['It binds Hfq.', 'E. coli sRNA, 0.5 kb.', 'See Fig.', '2.']
    """
    # a single capital before the full stop is an initial: E. coli
    parts = re.split(r"(?<!\b[A-Z]\.)(?<=[.!?])\s+(?=[\"'(\[]?[A-Z0-9])|\n+", text)
    return [part.strip() for part in parts if part and part.strip()]


def pair_scores(
    references: Sequence[str], answers: Sequence[str], encoders: Sequence = (), sentence_mode: bool = False
) -> list[dict[str, Scores]]:
    """Per pair: "rouge1", ..., and "aligned:LABEL" (and "sentence:LABEL") for each loaded encoder."""
    rows = [dict(rouge(*pair)) for pair in zip(references, answers, strict=True)]
    for encoder in encoders if rows else ():
        label = encoder.spec.label
        if encoder.spec.kind == "tokens":
            columns = {f"aligned:{label}": encoder.bertscore(references, answers)}
        else:
            cosines = (encoder.vectors(references) * encoder.vectors(answers)).sum(-1)
            columns = {f"aligned:{label}": [Scores(*[float(cosine)] * 3) for cosine in cosines]}
            if sentence_mode:
                split = ([sentences(text) or [""] for text in pair] for pair in zip(references, answers, strict=True))
                columns[f"sentence:{label}"] = [similarity_sets(*map(encoder.vectors, pair)) for pair in split]
        for name, column in columns.items():
            for row, scores in zip(rows, column, strict=True):
                row[name] = scores
    return rows


def set_scores(
    rnas: Sequence[str], references: Sequence[str], answers: Sequence[str], encoders: Sequence = ()
) -> dict[str, dict[str, Scores]]:
    """RNA -> "paper:LABEL" -> scores of its set of answers, for each loaded one-vector encoder."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, rna in enumerate(rnas):
        places[rna].append(place)
    scores: dict[str, dict[str, Scores]] = {rna: {} for rna in places}
    for encoder in encoders:
        if encoder.spec.kind == "tokens":
            continue
        one, other = encoder.vectors(references), encoder.vectors(answers)
        for rna, rows in places.items():
            scores[rna][f"paper:{encoder.spec.label}"] = similarity_sets(one[rows], other[rows])
    return scores


def _mean(rows: Sequence[dict[str, Scores]], name: str) -> Scores:
    return Scores(*np.mean([row[name] for row in rows], axis=0).tolist())


def corpus_scores(
    rnas: Sequence[str],
    references: Sequence[str],
    answers: Sequence[str],
    encoders: Sequence = (),
    mode: str = "aligned",
) -> dict[str, Scores]:
    """One row of a table: metric -> mean scores in one mode; ROUGE in each mode, averaged over that mode's unit."""
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if not len(answers):
        raise ValueError("there is nothing to score: got no answers")
    if mode == "paper":
        # the first of the paper's two averages, for ROUGE and BERTScore: within the RNA
        tokens = [encoder for encoder in encoders if encoder.spec.kind == "tokens"]
        pairs: dict[str, list[dict[str, Scores]]] = defaultdict(list)
        for rna, row in zip(rnas, pair_scores(references, answers, tokens), strict=True):
            pairs[rna].append({name.replace("aligned:", "paper:"): scores for name, scores in row.items()})
        of_sets = set_scores(rnas, references, answers, encoders)
        rows = [{name: _mean(of_rna, name) for name in of_rna[0]} | of_sets[rna] for rna, of_rna in pairs.items()]
    else:
        rows = pair_scores(references, answers, encoders, sentence_mode=mode == "sentence")
    return {name: _mean(rows, name) for name in rows[0] if name in ROUGE or name.startswith(f"{mode}:")}


def write_text_scores(
    items: Sequence[Item], specs: Sequence[TextEncoder], folder: Path, sentence_mode: bool = False
) -> None:
    """folder/scores.jsonl: ROUGE and the similarities of every answer that is a text, and of every RNA's set of
    answers; folder/encoders.json: what they were measured with."""
    encoders = [load_encoder(spec, folder / "vectors.sqlite") for spec in specs]
    by_system: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_system[item.system].append(item)
    by_system = {  # the others are labels, not texts
        system: answers for system, answers in by_system.items() if any(item.answer != item.parsed for item in answers)
    }
    with MeasureWriter(folder / "scores.jsonl") as writer:
        _write_pair_scores(
            [item for answers in by_system.values() for item in answers], encoders, sentence_mode, writer
        )
        of_sets = [one for one in encoders if one.spec.kind != "tokens"]
        for system, answers in by_system.items():
            keys = {item.key: rna_key(item.rna_id, item.method) for item in answers}
            names = [f"paper:{encoder.spec.label}" for encoder in of_sets]
            if left := [item for item in answers if not writer.done(system, keys[item.key], names)]:
                texts = zip(*[(keys[item.key], item.reference, item.answer or "") for item in left], strict=True)
                for key, row in set_scores(*texts, of_sets).items():
                    writer.write(system, key, {name: list(scores) for name, scores in row.items()})
    replace_text(
        folder / "encoders.json", json.dumps([encoder.spec.to_dict() for encoder in encoders], indent=1) + "\n"
    )


def _write_pair_scores(
    answers: Sequence[Item], encoders: Sequence, sentence_mode: bool, writer: MeasureWriter
) -> None:
    names = ["rougeL"] + [f"aligned:{encoder.spec.label}" for encoder in encoders]
    names += [f"sentence:{e.spec.label}" for e in encoders if sentence_mode and e.spec.kind != "tokens"]
    # all systems together and by reference: a text that comes up again, as most do, is encoded once
    todo: dict[tuple[str, str], list[Item]] = defaultdict(list)
    for item in sorted(answers, key=lambda item: item.reference):
        if not writer.done(item.system, item.key, names):
            todo[item.reference, item.answer or ""].append(item)
    pairs = list(todo)
    with tqdm(total=len(pairs), desc="similarities", unit="pair", disable=not pairs) as progress:
        for first in range(0, len(pairs), 256):
            part = pairs[first : first + 256]
            for pair, row in zip(part, pair_scores(*zip(*part, strict=True), encoders, sentence_mode), strict=True):
                for item in todo[pair]:
                    writer.write(item.system, item.key, {name: list(scores) for name, scores in row.items()})
            progress.update(len(part))
