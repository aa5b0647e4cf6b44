"""Which answers belong together: by kind of question, RNA type, length and nearness to the training RNAs.

bins_of(item) -> {"kind": "closed", "rna_type": "tRNA", "length": "51-100 nt", "train_identity": "80-90%"}
"""

import math
from collections.abc import Sequence

from rnagpt.evaluation.asking.items import Item

DIMENSIONS = {
    "kind": "Kind of question",
    "rna_type": "RNA type",
    "length": "Length",
    "train_identity": "Identity with the nearest training RNA",
}
# the last length of a bin in nt, or its lowest identity -> its name, in the order that a reader expects
LENGTHS = {50: "1-50 nt", 100: "51-100 nt", 200: "101-200 nt", 400: "201-400 nt", math.inf: "over 400 nt"}
IDENTITIES = {0.0: "under 40%"} | {n / 10: f"{n}0-{n + 1}0%" for n in range(4, 10)} | {1.0: "identical"}


def bins_of(item: Item) -> dict[str, str]:
    """Dimension -> bin of an item; a dimension that is not known of it is left out.

    >>> for n, identity in [(50, 0.2), (51, 0.8), (1000, 0.999), (1, 1.0)]:
    ...     print(list(bins_of(Item("r", 1, "tRNA", n, "", "", "", (), "", "", train_identity=identity)).values())[1:])
    ['1-50 nt', 'under 40%']
    ['51-100 nt', '80-90%']
    ['over 400 nt', '90-100%']
    ['1-50 nt', 'identical']
    """
    bins = {
        "kind": item.topic if item.kind == "closed" or item.gold else item.kind,
        "rna_type": item.rna_type,
        "length": next(name for last, name in LENGTHS.items() if item.true_length <= last),
    }
    if item.train_identity is not None:
        reached = [name for lowest, name in IDENTITIES.items() if item.train_identity + 1e-12 >= lowest]
        bins["train_identity"] = reached[-1]
    return {dimension: name for dimension, name in bins.items() if name}


def bin_order(dimension: str, names: Sequence[str]) -> list[str]:
    """The bins as a reader expects them: numbers rising, names in the alphabet.

    >>> bin_order("length", ["over 400 nt", "101-200 nt", "1-50 nt"])
    ['1-50 nt', '101-200 nt', 'over 400 nt']
    """
    order = {"length": LENGTHS, "train_identity": IDENTITIES}.get(dimension)
    return [name for name in order.values() if name in names] if order else sorted(names)
