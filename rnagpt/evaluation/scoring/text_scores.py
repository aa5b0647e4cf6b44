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

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from rnagpt.evaluation.scoring.rouge import ROUGE, Scores, rouge

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
    """Per pair: "rouge1", ..., and "aligned:LABEL" (and "sentence:LABEL") for each loaded encoder.

    A pair that comes up again, as short answers do, is scored once.
    """
    pairs = list(zip(references, answers, strict=True))
    distinct = list(dict.fromkeys(pairs))
    scored = dict(zip(distinct, _distinct_scores(distinct, encoders, sentence_mode), strict=True))
    return [scored[pair] for pair in pairs]


def _distinct_scores(
    pairs: Sequence[tuple[str, str]], encoders: Sequence, sentence_mode: bool
) -> list[dict[str, Scores]]:
    rows = [dict(rouge(reference, answer)) for reference, answer in pairs]
    references, answers = [reference for reference, _ in pairs], [answer for _, answer in pairs]
    for encoder in encoders:
        label = encoder.spec.label
        if encoder.spec.kind == "tokens":
            for row, scores in zip(rows, encoder.bertscore(references, answers), strict=True):
                row[f"aligned:{label}"] = scores
            continue
        cosines = (encoder.vectors(references) * encoder.vectors(answers)).sum(-1) if rows else []
        for row, cosine in zip(rows, cosines, strict=True):
            row[f"aligned:{label}"] = Scores(*[float(cosine)] * 3)
        if sentence_mode:
            for row, scores in zip(rows, _sentence_scores(encoder, references, answers), strict=True):
                row[f"sentence:{label}"] = scores
    return rows


def _sentence_scores(encoder, references: Sequence[str], answers: Sequence[str]) -> list[Scores]:
    scores = []
    for reference, answer in zip(references, answers, strict=True):
        one, other = sentences(reference) or [""], sentences(answer) or [""]
        scores.append(similarity_sets(encoder.vectors(one), encoder.vectors(other)))
    return scores


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


def average_within(rnas: Sequence[str], rows: Sequence[dict[str, Scores]]) -> dict[str, dict[str, Scores]]:
    """RNA -> metric -> mean over its pairs: the first of the paper's two averages, for ROUGE and BERTScore.

    >>> average_within(["a", "a"], [{"x": Scores(1, 0, 0)}, {"x": Scores(0, 1, 0)}])["a"]["x"]
    Scores(precision=0.5, recall=0.5, f1=0.0)
    """
    grouped: dict[str, list[dict[str, Scores]]] = defaultdict(list)
    for rna, row in zip(rnas, rows, strict=True):
        grouped[rna].append(row)
    return {
        rna: {
            name: Scores(*(float(np.mean([row[name][part] for row in of_rna])) for part in range(3)))
            for name in of_rna[0]
        }
        for rna, of_rna in grouped.items()
    }


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
    tokens = [encoder for encoder in encoders if encoder.spec.kind == "tokens"]
    if mode == "paper":
        units = average_within(rnas, pair_scores(references, answers, tokens))
        for rna, row in set_scores(rnas, references, answers, encoders).items():
            units[rna] = {name.replace("aligned:", "paper:"): scores for name, scores in units[rna].items()} | row
        rows = list(units.values())
    else:
        rows = pair_scores(references, answers, encoders, sentence_mode=mode == "sentence")
    names = [name for name in rows[0] if name in ROUGE or name.startswith(f"{mode}:")]
    return {name: Scores(*(float(np.mean([row[name][part] for row in rows])) for part in range(3))) for name in names}
