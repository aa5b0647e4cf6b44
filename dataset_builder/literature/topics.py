"""Group an RNA's papers by topic: LDA over their abstracts (paper, section 2.2), scikit-learn's, the same for a seed.

    groups = topic_groups(papers, names=["miR-21"], seed=0)    # [Topic(words=("apoptosis", ...), pmids=("123", ...))]

Up to `FEW` papers make one group without LDA. Over `cap` papers a sample is taken, by a rule that is recorded.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from dataset_builder.storage.records import Paper
from dataset_builder.storage.store import pmid_order

FEW = 8  # papers
SAMPLING_RULE = "papers with a name of the RNA in the title first, then in the abstract, then the newest"
# letters and digits with inner hyphens, dots, slashes, apostrophes and plus signs: miR-21-5p, 3'-UTR, TGF-β1, let-7a/b
TOKEN = re.compile(r"[^\W_]+(?:[-–./'’+*]+[^\W_]+)*")


@dataclass(frozen=True)
class Topic:
    """Papers on one theme; `words` are its likeliest words, empty when there was no LDA."""

    words: tuple[str, ...]
    pmids: tuple[str, ...]


def tokens(text: str) -> list[str]:
    """Words in lower case, names whole, without stop words, numbers and single letters.

    >>> tokens("MiR-21-5p targets PDCD4 in 42 patients (TGF-β1).")
    ['mir-21-5p', 'targets', 'pdcd4', 'patients', 'tgf-β1']
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    words = (match[0].lower().replace("–", "-").replace("’", "'") for match in TOKEN.finditer(text))
    return [w for w in words if len(w) > 1 and w not in ENGLISH_STOP_WORDS and re.search(r"[^\W\d]", w)]


def sample_papers(papers: Sequence[Paper], names: Sequence[str], cap: int) -> tuple[list[Paper], str]:
    """At most `cap` papers by PMID, and the rule they were taken by ("" when none was left out)."""
    if len(papers) <= cap:
        return sorted(papers, key=lambda paper: pmid_order(paper.pmid)), ""
    patterns = [name.lower() for name in names]

    def rank(paper: Paper):
        in_title = any(name in paper.title.lower() for name in patterns)
        in_abstract = any(name in paper.abstract.lower() for name in patterns)
        return not in_title, not in_abstract, -paper.year, pmid_order(paper.pmid)

    taken = sorted(papers, key=rank)[:cap]
    return sorted(taken, key=lambda paper: pmid_order(paper.pmid)), f"{cap} of {len(papers)}: {SAMPLING_RULE}"


def topic_groups(
    papers: Sequence[Paper], names: Sequence[str] = (), seed: int = 0, topics: int | str = "rule"
) -> list[Topic]:
    """Papers -> topics, the largest first; every paper is in exactly one.

    Args:
        papers: sorted here by PMID: their order does not matter.
        names: of the RNA itself; they are in every abstract and tell no topics apart.
        topics: a number, "rule" (one for every 12 papers, 2 to 12) or "coherence" (the number up to 12 with the
            highest NPMI; nine times the work).
    """
    papers = sorted(papers, key=lambda paper: pmid_order(paper.pmid))
    everything = [Topic((), tuple(paper.pmid for paper in papers))]
    if len(papers) <= FEW:
        return everything
    from sklearn.feature_extraction.text import CountVectorizer

    own = {token for name in names for token in tokens(name)}
    documents = [[t for t in tokens(f"{paper.title} {paper.abstract}") if t not in own] for paper in papers]
    vectorizer = CountVectorizer(analyzer=lambda document: document, min_df=2, max_df=0.8, max_features=5000)
    try:
        counts = vectorizer.fit_transform(documents)
    except ValueError:  # no word in two papers and not in nearly all
        return everything
    vocabulary = vectorizer.get_feature_names_out()
    if topics == "coherence":
        number = max(range(2, min(12, len(papers) // 4) + 1), key=lambda k: coherence(fit(counts, k, seed), counts))
    else:
        number = min(12, max(2, round(len(papers) / 12))) if topics == "rule" else int(topics)
    lda = fit(counts, number, seed)
    weights = lda.transform(counts)  # (papers, topics)
    of_topic: dict[int, list[int]] = {}
    for place, row in enumerate(weights):
        of_topic.setdefault(int(row.argmax()), []).append(place)
    # a paper alone in a topic goes to its next best topic that has company
    company = {topic for topic, members in of_topic.items() if len(members) > 1}
    for topic in [topic for topic in sorted(of_topic) if topic not in company and company]:
        (place,) = of_topic.pop(topic)
        best = next(int(other) for other in weights[place].argsort()[::-1] if int(other) in company)
        of_topic[best].append(place)
    found = []
    for topic, members in of_topic.items():
        words = tuple(str(vocabulary[i]) for i in lda.components_[topic].argsort()[::-1][:8])
        found.append(Topic(words, tuple(papers[place].pmid for place in sorted(members))))
    return sorted(found, key=lambda topic: (-len(topic.pmids), pmid_order(topic.pmids[0])))


def fit(counts, number: int, seed: int):
    """LDA with batch updates on one thread: bitwise the same for a seed."""
    from sklearn.decomposition import LatentDirichletAllocation

    return LatentDirichletAllocation(number, random_state=seed, max_iter=15, learning_method="batch", n_jobs=1).fit(
        counts
    )


def coherence(lda, counts, words: int = 8) -> float:
    """Mean NPMI of the pairs of each topic's likeliest words, over the papers that hold them (-1 to 1)."""
    present = (counts > 0).astype(int).tocsc()
    papers = present.shape[0]
    values = []
    for row in lda.components_:
        top = row.argsort()[::-1][:words]
        together = (present[:, top].T @ present[:, top]).toarray()
        for i in range(len(top)):
            for j in range(i):
                both = together[i, j] / papers
                if both == 0:
                    values.append(-1.0)
                elif both < 1:
                    expected = together[i, i] * together[j, j] / papers**2
                    values.append(math.log(both / expected) / -math.log(both))
    return sum(values) / len(values) if values else 0.0
