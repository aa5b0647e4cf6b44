"""The RNAs given in the true one's place: another type's RNA, another of its own type, its own letters shuffled.

If a model's answers are as good with these as with the true RNA, it has answered from the question alone.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise

from rnagpt.evaluation.asking.items import SHUFFLED

CONTROLS = ("swapped", "swapped_same", "shuffled", "no_rna")


def dinucleotide_shuffle(sequence: str, rng: random.Random) -> str:
    """The sequence in random order, every dinucleotide exactly as frequent, first and last letter kept.

    Altschul & Erickson 1985: the letters are the corners of a multigraph, each dinucleotide an edge, and a shuffle
    is a random Eulerian walk. One last edge per letter is sampled until these edges all lead to the final letter;
    the rest is shuffled freely. Every such order is equally likely.

    >>> dinucleotide_shuffle("AAACAG", random.Random(0)) in {"AAACAG", "AACAAG", "ACAAAG"}
    True
    """
    if len(sequence) < 4:
        return sequence
    edges: dict[str, list[str]] = defaultdict(list)
    for first, second in pairwise(sequence):
        edges[first].append(second)
    final = sequence[-1]
    while True:
        last = {letter: rng.randrange(len(targets)) for letter, targets in edges.items() if letter != final}
        if all(_leads_to(final, letter, edges, last) for letter in last):
            break
    for letter, targets in edges.items():
        exit_edge = [targets.pop(last[letter])] if letter != final else []
        rng.shuffle(targets)
        targets += exit_edge
    walk = [sequence[0]]
    remaining = {letter: iter(targets) for letter, targets in edges.items()}
    for _ in range(len(sequence) - 1):
        walk.append(next(remaining[walk[-1]]))
    return "".join(walk)


def _leads_to(final: str, letter: str, edges: dict[str, list[str]], last: dict[str, int]) -> bool:
    """Whether following the chosen last edges from `letter` ends at `final` instead of going round in a ring."""
    for _ in range(len(edges) + 1):
        if letter == final:
            return True
        letter = edges[letter][last[letter]]
    return False


def same_type_partners(facts: Sequence, seed: int = 0) -> dict[str, str]:
    """For each rna_id the rna_id of another RNA of the same type, of another cluster where the type has several.

    A model that has only learned to name types answers as well with this one; what it knows of the single RNA is
    the difference. An RNA that is alone in its type has no partner and is left out. Every RNA of a type is given
    once, where clusters allow it.
    """
    by_type: dict[str, list] = defaultdict(list)
    for fact in sorted(facts, key=lambda fact: fact.rna_id):
        by_type[fact.rna_type].append(fact)
    rng, partners = random.Random(seed), {}
    for members in by_type.values():
        rng.shuffle(members)
        members.sort(key=lambda fact: str(fact.cluster))  # stable: clusters stand together, in random order inside
        ((_, largest),) = Counter(fact.cluster for fact in members).most_common(1)
        step = largest if largest < len(members) else 1  # further than the largest cluster reaches
        for place, fact in enumerate(members):
            other = members[(place + step) % len(members)]
            if other is not fact:
                partners[fact.rna_id] = other.rna_id
    return partners


def input_rnas(control: str, rnas: Sequence, seed: int = 0) -> dict[str, tuple[str, str] | None]:
    """rna_id -> (id, sequence) of what a system sees under a control: "true", "swapped", "swapped_same", "shuffled"
    or "no_rna" (None). An RNA without a partner of its type is left out."""
    sequences = {rna.rna_id: rna.sequence for rna in rnas}
    if control == "no_rna":
        return dict.fromkeys(sequences)
    if control == "shuffled":
        return {
            name: (name + SHUFFLED, dinucleotide_shuffle(sequence, random.Random(f"{seed} {name}")))
            for name, sequence in sequences.items()
        }
    partners = {
        "true": lambda *_: {name: name for name in sequences},
        "swapped": swap_partners,
        "swapped_same": same_type_partners,
    }[control](rnas, seed)
    return {name: (other, sequences[other]) for name, other in partners.items()}


def swap_partners(facts: Sequence, seed: int = 0) -> dict[str, str]:
    """For each rna_id the rna_id of an RNA of another type, the same for the same facts and seed.

    Each type's RNAs are paired with all other types by turns; with equally many RNAs of each type every RNA is
    given exactly once, so the swapped RNAs are as varied as the true ones.

    Raises ValueError where the facts hold fewer than two types.
    """
    rng = random.Random(seed)
    by_type: dict[str, list[str]] = defaultdict(list)
    for fact in sorted(facts, key=lambda fact: fact.rna_id):
        by_type[fact.rna_type].append(fact.rna_id)
    types = sorted(by_type)
    if len(types) < 2:
        raise ValueError(f"swapping needs RNAs of at least two types, got {types}")
    for members in by_type.values():
        rng.shuffle(members)
    used = dict.fromkeys(types, 0)  # how many of each type's RNAs have been handed out
    partners = {}
    for place, rna_type in enumerate(types):
        for turn, rna_id in enumerate(by_type[rna_type]):
            other = types[(place + 1 + turn % (len(types) - 1)) % len(types)]
            partners[rna_id] = by_type[other][used[other] % len(by_type[other])]
            used[other] += 1
    return partners
