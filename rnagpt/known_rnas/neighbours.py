"""The training RNA nearest to each held-out one, and what two splits must not share.

    nearest_by_identity(["ACGU..."], train)     # [Neighbour(place in train, identity, leaks)]
    check_splits(train, test)                   # UserError with the counts of leaks

Identity is 1 - edit distance / length of the shorter RNA, aligned inside the longer (ends of the longer free), as in
the data set's splits.
"""

from collections.abc import Sequence
from typing import NamedTuple

from tqdm import tqdm

from rnagpt_core.errors import UserError

EXHAUSTIVE = 3_000_000  # pairs up to which all are aligned; above, the candidates of most similar 4-mer counts
CANDIDATES = 200


def identity(one: str, other: str, least: float = 0.0) -> float:
    """Share of the shorter RNA that aligns inside the longer; 0 where it is below `least`, which is faster.

    >>> identity("ACGUACGU", "GGACGUACGUGG"), identity("AAAA", "AACA")
    (1.0, 0.75)
    """
    import edlib

    shorter, longer = sorted((one, other), key=len)
    if not shorter:
        return 0.0
    limit = int(len(shorter) * (1 - least) + 1e-9)
    distance = edlib.align(shorter, longer, mode="HW", task="distance", k=limit)["editDistance"]
    if len(shorter) == len(longer) and distance != 0:  # which one lies inside the other is then open
        other_way = edlib.align(longer, shorter, mode="HW", task="distance", k=limit)["editDistance"]
        distance = min((d for d in (distance, other_way) if d >= 0), default=-1)
    return 0.0 if distance < 0 else 1 - distance / len(shorter)


class Neighbour(NamedTuple):
    """The training RNA nearest to a held-out one; `leaks` where any training RNA is a neighbour of it in the sense of
    the data set's splits."""

    place: int
    identity: float
    leaks: bool


def nearest_by_identity(queries: Sequence[str], train: Sequence[str]) -> list[Neighbour]:
    """For each query its nearest training RNA; of equally near ones the first in `train`.

    Short RNAs inside long ones score high by chance, so only RNAs at least half and at most twice as long as the
    query count as nearest, unless there is none.
    """
    from dataset_builder.facts_table.fact_splits import largest_distance

    distinct = list(dict.fromkeys(train))
    first = {text: place for place, text in reversed(list(enumerate(train)))}
    candidates = _candidates(queries, distinct)
    found = []
    for row, query in enumerate(tqdm(queries, desc="nearest training RNAs", unit="RNA", disable=len(queries) < 50)):
        order = list(candidates[row]) if candidates is not None else list(range(len(distinct)))
        alike = {i for i in order if len(query) <= 2 * len(distinct[i]) <= 4 * len(query)} or set(order)
        best, place, leaks = 0.0, min(alike), False
        for i in sorted(order, key=lambda i: abs(len(distinct[i]) - len(query))):  # likely ones first: a tight bound
            shorter, longer = sorted((len(query), len(distinct[i])))
            close = 1 - largest_distance(shorter, longer) / shorter
            share = identity(query, distinct[i], min(best, close) if i in alike else close)
            leaks = leaks or share >= close - 1e-9
            if i in alike and (share > best or share == best and first[distinct[i]] < first[distinct[place]]):
                best, place = share, i
        found.append(Neighbour(first[distinct[place]], best, leaks))
    return found


def _candidates(queries: Sequence[str], train: Sequence[str]) -> list[list[int]] | None:
    """Places of the training RNAs worth an alignment, by cosine of 4-mer counts; None where all are."""
    if len(queries) * len(train) <= EXHAUSTIVE or len(train) <= CANDIDATES:
        return None
    return alignment_free(queries, train, CANDIDATES)


def alignment_free(queries: Sequence[str], train: Sequence[str], count: int = 1) -> list[list[int]]:
    """Places of the `count` training RNAs with the most similar 4-mer counts (cosine), the nearest first."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import normalize

    counter = CountVectorizer(analyzer="char", ngram_range=(4, 4), lowercase=False)
    known = normalize(counter.fit_transform(train).astype(float))
    nearest = NearestNeighbors(n_neighbors=min(count, len(train)), metric="cosine", algorithm="brute").fit(known)
    places = nearest.kneighbors(normalize(counter.transform(queries).astype(float)), return_distance=False)
    return places.tolist()


def leaks(train: Sequence, test: Sequence, neighbours: Sequence[Neighbour] = ()) -> dict[str, int]:
    """How many test RNAs share what with a training RNA: each kind of leak that occurs, with its count.

    train, test: RNAs with `rna_id`, `sequence`, and, where known, `cluster` and `pmids`. neighbours: of the test RNAs.
    """
    kinds = {
        "the same sequence": "sequence",
        "the same id": "urs",
        "the same cluster": "cluster",
        "the same paper": "pmids",
    }
    counts = {}
    for label, name in kinds.items():
        known = {value for rna in train for value in _values(rna, name)}
        counts[label] = sum(not known.isdisjoint(_values(rna, name)) for rna in test)
    counts["80% of their sequence"] = sum(neighbour.leaks for neighbour in neighbours)
    return {label: count for label, count in counts.items() if count}


def _values(rna, name: str) -> tuple:
    if name == "urs":
        return (rna.rna_id.split("_")[0],) if rna.rna_id.startswith("URS") else (rna.rna_id,)
    value = getattr(rna, name, None)
    if value is None or value == "":
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def check_splits(train: Sequence, test: Sequence, neighbours: Sequence[Neighbour] = ()) -> None:
    """Refuse to score on RNAs that training has seen.

    Raises:
        UserError: says how many test RNAs share what with the training RNAs.
    """
    found = leaks(train, test, neighbours)
    if found:
        listed = ", ".join(f"{count:,} share {label}" for label, count in found.items())
        raise UserError(
            f"the splits leak: of {len(test):,} test RNAs {listed} with training RNAs; split again by "
            "sequence cluster and by paper, because a score on these would be memory"
        )
