"""Questions, answers and annotations phrased from the facts of one RNA.

Everything is decided by the RNA and a seed: the same call gives the same wording. Answers are short and fixed in form,
so that `parse_answer` can read a model's answer back into the label it is scored on.
"""

import random
from dataclasses import dataclass

from dataset_builder.facts_table.fact_answers import (
    AMINO_ACID_NAMES,
    COMPARTMENTS,
    GROUPS,
    LENGTH_CLASSES,
    TYPE_NAMES,
    TYPES,
    VOCABULARY,
    length_class,
    parse_answer,  # noqa: F401  (for those who read the answers to these questions)
    type_name,
)
from dataset_builder.facts_table.facts import EVALUATION_TYPES, RnaFact

OPTIONS = 4  # types named in a closed question about the type

FUNCTIONS: dict[str, str] = {rna_type: row["function"] for rna_type, row in TYPES.items()}  # from textbooks
SHORT_NAMES: dict[str, str] = {rna_type: row["short"] for rna_type, row in TYPES.items() if "short" in row}
WORDINGS: dict[str, list[str]] = VOCABULARY["wordings"]
SENTENCES: dict[str, list[str]] = VOCABULARY["annotation"]


@dataclass(frozen=True)
class FactQuestion:
    """One question about an RNA; `gold` is the canonical label that `parse_answer(answer, topic)` gives."""

    question: str
    answer: str
    kind: str  # "open" or "closed"
    topic: str
    options: tuple[str, ...]
    gold: str


def a_group(group: str) -> str:
    """'animal' -> 'an animal'; 'plant' -> 'a plant'."""
    return f"an {group}" if group[0] in "aeiou" else f"a {group}"


def _random(fact: RnaFact, seed: int, topic: str) -> random.Random:
    return random.Random(f"{seed}:{fact.rna_id}:{topic}")


def annotation(fact: RnaFact, seed: int = 0) -> str:
    """Two to four sentences: the type first, then function, origin, amino acid and length, in one of many wordings.

    Never holds the RNA's identifier or sequence.
    """
    rng = _random(fact, seed, "annotation")
    details = []
    if fact.amino_acid:
        anticodon = f" (anticodon {fact.anticodon})" if fact.anticodon else ""
        details.append(f"It accepts {AMINO_ACID_NAMES[fact.amino_acid]}{anticodon}.")
    elif rng.random() < 0.5 or not fact.organism_group:
        size = length_class(fact.length)
        length = {"medium": "of medium length"}.get(size, size)
        details.append(rng.choice(SENTENCES["lengths"]).format(length=f"{length} ({LENGTH_CLASSES[size]})"))
    if fact.organism_group:
        where = a_group(fact.organism_group) + (f", {fact.species}" if fact.species else "")
        details.insert(0, rng.choice(SENTENCES["origins"]).format(where=where))
    opening = rng.choice(SENTENCES["openings"]).format(name=type_name(fact.rna_type))
    return " ".join([opening, FUNCTIONS[fact.rna_type], *details])


def questions(fact: RnaFact, seed: int = 0) -> list[FactQuestion]:
    """5 to 14 questions about one RNA: its type, function, length, and what else is known of it.

    Every yes/no topic is asked twice, once with each answer, so half the answers are "yes" whatever the RNA. A "no"
    names another evaluation type, or another organism group, chosen by seed and rna_id.
    """
    own = fact.rna_type
    type_answer = f"This RNA is a {type_name(own)}."
    items = [_ask(fact, seed, "rna_type", type_answer, own)]
    rng = _random(fact, seed, "options")
    options = [own, *rng.sample([name for name in EVALUATION_TYPES if name != own], OPTIONS - 1)]
    rng.shuffle(options)
    items.append(_ask(fact, seed, "rna_type", type_answer, own, tuple(options), wording="rna_type_options"))
    other = rng.choice([name for name in EVALUATION_TYPES if name != own])
    for name, word in ((own, "Yes"), (other, "No")):
        filled = {"name": type_name(name), "short": SHORT_NAMES.get(name, name)}
        answer = f"{word}, it is a {type_name(own)}."
        items.append(_ask(fact, seed, "is_type", answer, word.lower(), ("yes", "no"), salt=word, **filled))
    items.append(_ask(fact, seed, "function", FUNCTIONS[own], own))
    size = length_class(fact.length)
    length = "medium-sized" if size == "medium" else size
    items.append(_ask(fact, seed, "length_class", f"It is {length} ({LENGTH_CLASSES[size]}).", size))
    if fact.organism_group:
        items += _organism_questions(fact, seed)
    if fact.amino_acid:
        name = AMINO_ACID_NAMES[fact.amino_acid]
        items.append(_ask(fact, seed, "amino_acid", f"It carries {name} ({fact.amino_acid}).", fact.amino_acid))
    if fact.anticodon:
        items.append(_ask(fact, seed, "anticodon", f"Its anticodon is {fact.anticodon}.", fact.anticodon))
    if fact.compartment:
        items.append(_ask(fact, seed, "compartment", f"It is in a {fact.compartment} genome.", fact.compartment))
    return items


def _organism_questions(fact: RnaFact, seed: int) -> list[FactQuestion]:
    own = fact.organism_group
    other = _random(fact, seed, "other group").choice([group for group in GROUPS if group != own])
    items = [
        _ask(
            fact,
            seed,
            "organism_group",
            f"It comes from {a_group(own)}.",
            own,
            options_text=", ".join(map(a_group, GROUPS[:-1])) + f" or {a_group(GROUPS[-1])}",
        )
    ]
    for group, word in ((own, "Yes"), (other, "No")):
        answer = f"{word}, it comes from {a_group(own)}."
        items.append(
            _ask(fact, seed, "is_organism_group", answer, word.lower(), ("yes", "no"), salt=word, group=a_group(group))
        )
    return items


def _ask(
    fact: RnaFact,
    seed: int,
    topic: str,
    answer: str,
    gold: str,
    options: tuple[str, ...] = (),
    wording: str | None = None,
    salt: str = "",
    options_text: str = "",
    **filled: str,
) -> FactQuestion:
    wording = wording or topic
    template = _random(fact, seed, wording + salt).choice(WORDINGS[wording])
    if wording == "rna_type_options":
        options_text = ", ".join(TYPE_NAMES[name] for name in options[:-1]) + f" or {TYPE_NAMES[options[-1]]}"
    named = {"organism_group": GROUPS, "length_class": tuple(LENGTH_CLASSES), "compartment": COMPARTMENTS}
    if topic in named and ("{options}" in template or all(choice in template for choice in named[topic])):
        options = named[topic]
    question = template.format(options=options_text, **filled)
    return FactQuestion(question, answer, "closed" if options else "open", topic, options, gold)
