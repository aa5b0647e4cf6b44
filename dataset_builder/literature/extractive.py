"""Annotations and questions without a language model: sentences of the abstracts, and what curators state.

    made = annotation(names, papers, topics)           # per topic the sentences nearest to its centroid
    made["questions"] = questions(statements, names, own_pmids)

Faithful by construction: a sentence is its paper's and an answer its statement's, word for word, save that the RNA is
called "this RNA". EXPERIMENTS.md has how much of the literature sentences near the centroid cover ("chosen").
"""

import re
from collections.abc import Iterable, Sequence

from dataset_builder.literature import checks
from dataset_builder.literature.annotation import Quarantined, annotation_of
from dataset_builder.literature.questions import MOST, published, unnamed
from dataset_builder.literature.topics import tokens
from dataset_builder.storage.records import CuratedFact, Paper

STATEMENTS = 16  # of an annotation, about
LONGEST_ANSWER = 60  # words
# how a statement of Rfam or Gene Ontology begins -> an open question, and how a yes-or-no question begins
FORMS = {
    "matches the rfam family": ("Which Rfam family does this RNA match?", "Does this RNA match the Rfam family"),
    "enables": ("What does this RNA enable?", "Does this RNA enable"),
    "contributes to": ("What does this RNA contribute to?", "Does this RNA contribute to"),
    "involved in": ("What is this RNA involved in?", "Is this RNA involved in"),
    "part of": ("What is this RNA a part of?", "Is this RNA a part of"),
    "located in": ("Where is this RNA located?", "Is this RNA located in"),
    "is active in": ("Where is this RNA active?", "Is this RNA active in"),
    "colocalizes with": ("What does this RNA colocalize with?", "Does this RNA colocalize with"),
}
STATEMENT = re.compile(rf"(not )?({'|'.join(FORMS)}) (.+?)\.?", re.I)


def annotation(names: Sequence[str], papers: Sequence[Paper], topics) -> dict:
    """As `annotation.annotate`. topics: [(words, PMIDs), ...].

    Raises:
        Quarantined: no sentence of the abstracts passed the checks.
    """
    by_pmid = {paper.pmid: paper for paper in papers}
    share = max(2, STATEMENTS // len(topics))
    statements = [
        {"text": text, "pmids": [pmid], "topic": number}
        for number, (_, pmids) in enumerate(topics)
        for text, pmid in nearest([by_pmid[pmid] for pmid in pmids], names, min(share, 1 + 2 * len(pmids)))
    ]
    if not statements:
        raise Quarantined("no sentence of the abstracts passed the checks")
    return annotation_of("extractive", statements, by_pmid, names)


def nearest(papers: Sequence[Paper], names: Sequence[str], most: int) -> list[tuple[str, str]]:
    """(sentence, PMID) of the `most` sentences nearest to the mean TF-IDF vector of all, in the papers' order."""
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    different: dict[str, tuple[str, str]] = {}
    for paper in papers:
        for text in checks.sentences(paper.abstract):
            if tokens(text) and not checks.problems(text, [paper.pmid], {paper.pmid: paper}, names):
                different.setdefault(checks.squeezed(text), (text, paper.pmid))
    if not different:
        return []
    sentences = list(different.values())
    vectors = TfidfVectorizer(analyzer=tokens).fit_transform(text for text, _ in sentences)  # (sentences, words)
    nearness = vectors @ np.asarray(vectors.mean(0)).ravel()
    return [sentences[place] for place in sorted(np.argsort(-nearness, kind="stable")[:most])]


def questions(statements: Iterable[CuratedFact], names: Sequence[str], own_pmids: set[str]) -> list[dict]:
    """Curated statements about an RNA -> questions in the form of `questions.ask`, at most 14.

    Args:
        own_pmids: of the RNA's literature; a statement on another paper, which may be of another split, is left out.

    >>> statements = [CuratedFact("Gene Ontology", "Involved in miRNA silencing."), CuratedFact("X", "MiR-1 is old.")]
    >>> [(row["question"], row["answer"]) for row in questions(statements, ["mir-1"], set())]
    [('What is this RNA involved in?', 'miRNA silencing'), ('What does X say about this RNA?', 'This RNA is old.'),
     ('Is this RNA involved in miRNA silencing?', 'Yes')]
    """
    terms: dict[tuple[str, str], dict[str, dict[str, None]]] = {}  # (form, term) -> {"Yes" or "No": PMIDs}
    texts: dict[str, dict[str, dict[str, None]]] = {}  # source -> {text: PMIDs}
    for statement in statements:
        text, pmids = statement.text, dict.fromkeys(statement.pmids)
        if not own_pmids.issuperset(pmids) or checks.STEERING.search(text) or checks.IDENTIFIER.search(text):
            continue
        if found := STATEMENT.fullmatch(text):
            denied, form, term = found.groups()
            by_answer = terms.setdefault((form.lower(), term), {})
            by_answer.setdefault("No" if denied else "Yes", {}).update(pmids)
        else:
            texts.setdefault(statement.source, {}).setdefault(unnamed(text, names), {}).update(pmids)
    answers: dict[str, dict[str, dict[str, None]]] = {}  # open question -> {term: PMIDs}
    closed = []
    for (form, term), by_answer in terms.items():
        if len(by_answer) == 2:  # curators disagree
            continue
        ((answer, pmids),) = by_answer.items()
        question, beginning = FORMS[form]
        closed.append(published(f"{beginning} {term}?", answer, "closed", ["Yes", "No"], list(pmids), names))
        if answer == "Yes":
            answers.setdefault(question, {})[term] = pmids
    opened = [open_question(question, found, "; ", names) for question, found in answers.items()]
    for source, found in texts.items():
        opened.append(open_question(f"What does {source} say about this RNA?", found, " ", names))
    return [row for row in (*opened, *closed) if row][:MOST]


def open_question(question: str, answers: dict[str, dict], joint: str, names: Sequence[str]) -> dict | None:
    """One question with as many of its answers, {text: PMIDs}, as fit; None where the first is too long alone."""
    parts, evidence, words = [], {}, 0
    for text, pmids in answers.items():
        words += len(text.split())
        if words > LONGEST_ANSWER:
            break
        parts.append(text)
        evidence |= pmids
    return published(question, joint.join(parts), "open", [], list(evidence), names) if parts else None
