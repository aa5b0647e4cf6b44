"""The training RNA nearest to each held-out one, and what two splits must not share.

nearest_by_identity(["ACGU..."], train)     # [Neighbour(place in train, identity, leaks)]
check_splits(train, test)                   # UserError with the counts of leaks
"""

from collections.abc import Sequence
from typing import NamedTuple

from tqdm import tqdm

from rnagpt_core.errors import UserError
from rnagpt_core.nearest import identity, largest_distance

EXHAUSTIVE = 3_000_000  # pairs up to which all are aligned; above, the candidates of most similar 4-mer counts
CANDIDATES = 200


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
    distinct = list(dict.fromkeys(train))
    first = {text: place for place, text in reversed(list(enumerate(train)))}
    every = list(range(len(distinct)))
    many = len(queries) * len(distinct) > EXHAUSTIVE and len(distinct) > CANDIDATES
    candidates = alignment_free(queries, distinct, CANDIDATES) if many else [every] * len(queries)
    found = []
    progress = tqdm(queries, desc="nearest training RNAs", unit="RNA", disable=len(queries) < 50)
    for query, order in zip(progress, candidates, strict=True):
        alike = {i for i in order if len(query) <= 2 * len(distinct[i]) <= 4 * len(query)} or set(order)
        best, place, leaks = 0.0, min(alike), False
        for i in sorted(order, key=lambda i: abs(len(distinct[i]) - len(query))):  # likely ones first: a tight bound
            shorter, longer = sorted((len(query), len(distinct[i])))
            close = 1 - largest_distance(shorter, longer) / shorter
            share = identity(query, distinct[i], min(best, close) if i in alike else close)
            leaks = leaks or share >= close - 1e-9
            if i in alike and (share > best or share == best and i < place):
                best, place = share, i
        found.append(Neighbour(first[distinct[place]], best, leaks))
    return found


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
    values_of = {
        "the same sequence": lambda rna: (rna.sequence,),
        "the same id": lambda rna: (rna.rna_id.split("_")[0] if rna.rna_id.startswith("URS") else rna.rna_id,),
        "the same cluster": lambda rna: {getattr(rna, "cluster", None)} - {None, ""},
        "the same paper": lambda rna: getattr(rna, "pmids", ()) or (),
    }
    counts = {}
    for label, values in values_of.items():
        known = {value for rna in train for value in values(rna)}
        counts[label] = sum(not known.isdisjoint(values(rna)) for rna in test)
    counts["80% of their sequence"] = sum(neighbour.leaks for neighbour in neighbours)
    return {label: count for label, count in counts.items() if count}


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
