"""Baselines for question-answer pairs: systems that read no RNA, or only copy, and what they score.

| system | answers with |
|---|---|
| majority | the commonest training answer to the question's template (names and numbers masked) |
| question_only | the training answer to the most similar question, whatever RNA that was about |
| nearest_train | the most similar question's answer about the training RNA with the most similar 4-mer counts |
| nearest_identity | the same, about the training RNA of highest sequence identity |

A score that a baseline reaches says nothing about reading RNA.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations

from rnagpt.evaluation.asking.items import Item, labelled, written
from rnagpt.evaluation.asking.qa_items import Pair, QaRna
from rnagpt.known_rnas.neighbours import Neighbour, alignment_free

LARGEST_TEMPLATE = 200  # training answers of one template that are compared with each other


def template(question: str, name: str = "") -> str:
    """A question with what is particular to one RNA masked: its name, tokens with digits or inner capitals.

    >>> template("Which role does RNVU1-18 play in HeLa cells?"), template("Is hsa-mir-21 a tRNA?", "hsa-mir-21")
    ('which role does _ play in _ cells?', 'is _ a _?')
    """
    text = question.replace(name, "_") if name else question
    masked = re.sub(r"\b(?=\w*[-\w]*(?:\d|[a-z][A-Z]|[A-Z]{2}))[\w-]+", "_", text)
    return " ".join(re.sub(r"_(?:[\s-]*_)+", "_", masked).lower().split())


def qa_baseline_answers(
    train: Sequence[QaRna], test: Sequence[QaRna], items: Sequence[Item], neighbours: Sequence[Neighbour] | None = None
) -> list[Item]:
    """Every baseline's answered items. neighbours: of `nearest_by_identity` for the test RNAs, in their order."""
    pairs = [(rna, pair) for rna in train for pair in rna.pairs]
    texts = _closest_answers([pair for _, pair in pairs], items)
    answers = _majority(pairs, items)
    answers += [written(item, "question_only", text, None) for item, text in zip(items, texts, strict=True)]
    nearest = alignment_free([rna.sequence for rna in test], [rna.sequence for rna in train])
    copies = {"nearest_train": [row[0] for row in nearest]}
    if neighbours is not None:
        copies["nearest_identity"] = [near.place for near in neighbours]
    items_of = defaultdict(list)
    for item in items:
        items_of[item.rna_id].append(item)
    for system, places in copies.items():
        copied = {rna.rna_id: train[place] for rna, place in zip(test, places, strict=True)}
        for rna_id, its_items in items_of.items():
            texts = _closest_answers(copied[rna_id].pairs, its_items)
            answers += [
                written(item, system, text, copied[rna_id].rna_id) for item, text in zip(its_items, texts, strict=True)
            ]
    return answers


def _majority(pairs: Sequence[tuple[QaRna, Pair]], items: Sequence[Item]) -> list[Item]:
    """The label of most training pairs of the template; for free text the answer most like all others of it."""
    by_template, by_kind = defaultdict(list), defaultdict(list)
    for rna, pair in pairs:
        by_template[pair.kind, template(pair.question, rna.name)].append(pair)
        by_kind[pair.kind].append(pair)
    chosen: dict = {}
    answers = []
    for item in items:
        place = (item.kind, template(item.question, item.name))
        known = by_template.get(place) or by_kind[item.kind] or [pair for _, pair in pairs]
        if item.gold:
            labels = Counter(written(item, "", pair.answer, None).parsed for pair in known)
            label = min(item.options, key=lambda option: (-labels[option], option))
            answers.append(labelled(item, "majority", label, None))
            continue
        where = place if place in by_template else item.kind
        if where not in chosen:
            chosen[where] = _most_typical([pair.answer for pair in known])
        answers.append(written(item, "majority", chosen[where], None))
    return answers


def _most_typical(texts: Sequence[str]) -> str:
    """The text with the highest mean ROUGE-L to the others; the commonest where one comes up twice."""
    from rouge_score.scoring import fmeasure
    from rouge_score.tokenize import tokenize

    (commonest, count), *_ = Counter(texts).most_common(1)
    if count > 1 or len(texts) < 3:
        return commonest
    some = sorted(texts)[:: max(1, len(texts) // LARGEST_TEMPLATE)][:LARGEST_TEMPLATE]
    words, likeness = [tokenize(text, None) for text in some], [0.0] * len(some)
    for (i, one), (k, other) in combinations(enumerate(words), 2):
        # not by RougeScorer, whose tables take minutes for 200 long answers
        shared = shared_in_order(one, other)
        f1 = fmeasure(shared / max(1, len(other)), shared / max(1, len(one)))
        likeness[i] += f1
        likeness[k] += f1
    return some[max(range(len(some)), key=likeness.__getitem__)]


def shared_in_order(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence, which ROUGE-L counts; all of `one` is one number (Hyyrö 2004).

    >>> shared_in_order("the tRNA of yeast".split(), "a tRNA from yeast".split())
    2
    """
    places: dict[str, int] = {}
    for place, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << place
    left = every = (1 << len(one)) - 1
    for word in other:
        found = left & places.get(word, 0)
        left = (left + found | left - found) & every
    return len(one) - left.bit_count()


def _closest_answers(known: Sequence[Pair], items: Sequence[Item]) -> list[str]:
    """The answer to the known question most like each item's (TF-IDF of words); "" where nothing is known."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    if not known:
        return [""] * len(items)
    if len(known) == 1:
        return [known[0].answer] * len(items)
    vectorizer = TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True)
    theirs = vectorizer.fit_transform([pair.question for pair in known])
    found = []
    for first in range(0, len(items), 512):
        ours = vectorizer.transform([item.question for item in items[first : first + 512]])
        # argmax takes the first of equals, so the answer does not depend on the batch
        found += [known[place].answer for place in (ours @ theirs.T).toarray().argmax(1)]
    return found
