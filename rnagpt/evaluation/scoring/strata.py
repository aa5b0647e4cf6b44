"""Which answers belong together: by kind of question, RNA type, length and nearness to the training RNAs.

bins_of(item) -> {"kind": "closed", "rna_type": "tRNA", "length": "51-100 nt", "train_identity": "80-90%"}
"""

from collections.abc import Sequence

from rnagpt.evaluation.asking.items import Item

DIMENSIONS = {
    "kind": "Kind of question",
    "rna_type": "RNA type",
    "length": "Length",
    "train_identity": "Identity with the nearest training RNA",
}
LENGTHS = (50, 100, 200, 400)  # nt, upper ends
IDENTITIES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # upper ends; the last bin holds what is identical


def bins_of(item: Item) -> dict[str, str]:
    """Dimension -> bin of an item; a dimension that is not known of it is left out."""
    bins = {
        "kind": item.topic if item.kind == "closed" or item.gold else item.kind,
        "rna_type": item.rna_type,
        "length": length_bin(item.true_length),
    }
    if item.train_identity is not None:
        bins["train_identity"] = identity_bin(item.train_identity)
    return {dimension: name for dimension, name in bins.items() if name}


def length_bin(length: int) -> str:
    """A length in nt as the bin it falls into.

    >>> length_bin(50), length_bin(51), length_bin(1000)
    ('1-50 nt', '51-100 nt', 'over 400 nt')
    """
    first = 1
    for last in LENGTHS:
        if length <= last:
            return f"{first}-{last} nt"
        first = last + 1
    return f"over {LENGTHS[-1]} nt"


def identity_bin(identity: float) -> str:
    """A share of identical positions as the bin it falls into.

    >>> identity_bin(0.2), identity_bin(0.8), identity_bin(0.999), identity_bin(1.0)
    ('under 40%', '80-90%', '90-100%', 'identical')
    """
    if identity >= 1:
        return "identical"
    if identity < IDENTITIES[0]:
        return f"under {100 * IDENTITIES[0]:.0f}%"
    low = max(bound for bound in IDENTITIES if bound <= identity + 1e-12)
    return f"{100 * low:.0f}-{100 * low + 10:.0f}%"


def bin_order(dimension: str, names: Sequence[str]) -> list[str]:
    """The bins as a reader expects them: numbers rising, names in the alphabet.

    >>> bin_order("length", ["over 400 nt", "101-200 nt", "1-50 nt"])
    ['1-50 nt', '101-200 nt', 'over 400 nt']
    """
    if dimension == "length":
        order = [length_bin(length) for length in (1, *(bound + 1 for bound in LENGTHS))]
    elif dimension == "train_identity":
        order = [identity_bin(share) for share in (0, *IDENTITIES)]
    else:
        return sorted(names)
    return [name for name in order if name in names]
