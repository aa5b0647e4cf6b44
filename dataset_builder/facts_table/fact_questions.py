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
    length_class,
    parse_answer,
    type_name,
)
from dataset_builder.facts_table.facts import EVALUATION_TYPES, RnaFact

__all__ = ["FactQuestion", "annotation", "parse_answer", "questions", "type_name", "WORDINGS"]

OPTIONS = 4  # types named in a closed question about the type

# Textbook functions, one sentence per type; `fact_answers` recognises each by a few of its words.
FUNCTIONS: dict[str, str] = {
    "tRNA": "It carries an amino acid to the ribosome and reads the codons of an mRNA during translation.",
    "pre_miRNA": "It folds into a hairpin that Dicer enzymes cut into a short regulator of mRNAs.",
    "miRNA": "It guides Argonaute proteins to matching mRNAs, which are then repressed or cut.",
    "5S_rRNA": "It is a structural part of the large subunit of the ribosome.",
    "5.8S_rRNA": "It is a structural part of eukaryotic ribosomes, in the large subunit.",
    "RNase_P_RNA": "It is the catalytic part of the enzyme that cuts the 5' leader off precursor tRNAs.",
    "snRNA": "It is part of the spliceosome, which removes introns from precursor mRNAs.",
    "snoRNA": "It acts in the nucleolus, where it guides the processing or modification of ribosomal RNA.",
    "riboswitch": "It binds a small molecule and so switches the expression of its own mRNA.",
    "autocatalytically_spliced_intron": "It catalyses its own removal from a precursor RNA.",
    "SRP_RNA": "It is part of the particle that brings secretory proteins to the membrane.",
    "vault_RNA": "It is part of the vault, a large ribonucleoprotein particle of the cytoplasm.",
    "sRNA": "It is a short bacterial transcript that is thought to regulate genes.",
    "viral_xrRNA": "It stops the exoribonuclease Xrn1 and so protects viral RNA from decay.",
}
SHORT_NAMES = {
    "tRNA": "tRNA",
    "pre_miRNA": "pre-miRNA",
    "miRNA": "mature miRNA",
    "5S_rRNA": "5S rRNA",
    "5.8S_rRNA": "5.8S rRNA",
    "RNase_P_RNA": "RNase P RNA",
    "autocatalytically_spliced_intron": "group I intron",
    "SRP_RNA": "SRP RNA",
    "vault_RNA": "vault RNA",
    "viral_xrRNA": "viral xrRNA",
}

# At least five wordings per topic; {name}, {short}, {group} and {options} are filled in.
WORDINGS: dict[str, tuple[str, ...]] = {
    "rna_type": (
        "What type of RNA is this RNA?",
        "Which class of RNA does this RNA belong to?",
        "What kind of RNA is this?",
        "Identify the type of this RNA.",
        "How would you classify this RNA?",
        "Name the class of this RNA.",
        "To which RNA type does this RNA belong?",
    ),
    "rna_type_options": (
        "Which of these is this RNA: {options}?",
        "Choose the type of this RNA from: {options}.",
        "Is this RNA one of the following, and which: {options}?",
        "What type of RNA is this RNA? Options: {options}.",
        "Classify this RNA as one of: {options}.",
        "Pick the class this RNA belongs to: {options}.",
    ),
    "is_type": (
        "Is this RNA a {name}?",
        "Is this RNA a {short}?",
        "Does this RNA belong to the class {name}?",
        "Would you call this RNA a {short}?",
        "Is it right that this RNA is a {name}?",
        "Can this RNA be classified as a {name}?",
    ),
    "function": (
        "What does this RNA do?",
        "What is the function of this RNA?",
        "Which role does this RNA play in the cell?",
        "Describe the function of this RNA.",
        "What is this RNA for?",
        "What is the biological role of this RNA?",
    ),
    "organism_group": (
        "What kind of organism does this RNA come from?",
        "Which group of organisms is this RNA from?",
        "In what kind of organism is this RNA found?",
        "Name the kind of organism that has this RNA.",
        "From which kind of organism was this RNA described?",
        "Is this RNA from {options}?",
    ),
    "is_organism_group": (
        "Does this RNA come from {group}?",
        "Is this RNA from {group}?",
        "Is {group} the source of this RNA?",
        "Was this RNA described in {group}?",
        "Would you expect to find this RNA in {group}?",
    ),
    "amino_acid": (
        "Which amino acid does this RNA carry?",
        "What is the amino acid that this RNA accepts?",
        "Name the amino acid specificity of this RNA.",
        "With which amino acid is this RNA charged?",
        "Which amino acid does this RNA deliver?",
    ),
    "anticodon": (
        "What is the anticodon of this RNA?",
        "Which anticodon does this RNA have?",
        "Name the anticodon of this RNA.",
        "Which three nucleotides of this RNA read the codon?",
        "Give the anticodon that this RNA carries.",
    ),
    "compartment": (
        "In which genome is this RNA encoded?",
        "Which genome holds the gene of this RNA?",
        "Where is the gene of this RNA: in a nuclear, mitochondrial, plastid or bacterial genome?",
        "What kind of genome encodes this RNA?",
        "Name the genome that this RNA is transcribed from.",
    ),
    "length_class": (
        "Is this RNA short (under 50 nt), medium (50 to 150 nt) or long (over 150 nt)?",
        "How long is this RNA: short, medium or long?",
        "What is the length class of this RNA?",
        "Which length class fits this RNA: short, medium or long?",
        "Roughly how long is this RNA?",
        "Give the length class of this RNA.",
    ),
}
OPENINGS = (
    "This RNA is a {name}.",
    "This is a {name}.",
    "A {name}.",
    "The sequence is a {name}.",
    "This RNA belongs to the class {name}.",
)
ORIGINS = ("It comes from {where}.", "It was found in {where}.", "Its source is {where}.", "It is from {where}.")
LENGTHS = ("It is {length}.", "In length it is {length}.", "Its length is {length}.")


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


def _draw(fact: RnaFact, seed: int, topic: str) -> random.Random:
    return random.Random(f"{seed}:{fact.rna_id}:{topic}")


def annotation(fact: RnaFact, seed: int = 0) -> str:
    """Two to four sentences: the type first, then function, origin, amino acid and length, in one of many wordings.

    Never holds the RNA's identifier or sequence.
    """
    draw = _draw(fact, seed, "annotation")
    details = []
    if fact.amino_acid:
        anticodon = f" (anticodon {fact.anticodon})" if fact.anticodon else ""
        details.append(f"It accepts {AMINO_ACID_NAMES[fact.amino_acid]}{anticodon}.")
    elif draw.random() < 0.5 or not fact.organism_group:
        size = length_class(fact.length)
        length = {"medium": "of medium length"}.get(size, size)
        details.append(draw.choice(LENGTHS[:2]).format(length=f"{length} ({LENGTH_CLASSES[size]})"))
    if fact.organism_group:
        where = a_group(fact.organism_group) + (f", {fact.species}" if fact.species else "")
        details.insert(0, draw.choice(ORIGINS).format(where=where))
    opening = draw.choice(OPENINGS).format(name=type_name(fact.rna_type))
    return " ".join([opening, FUNCTIONS[fact.rna_type], *details])


def questions(fact: RnaFact, seed: int = 0) -> list[FactQuestion]:
    """5 to 14 questions about one RNA: its type, function, length, and what else is known of it.

    Every yes/no topic is asked twice, once with each answer, so half the answers are "yes" whatever the RNA. A "no"
    names another evaluation type, or another organism group, drawn by seed and rna_id.
    """
    own = fact.rna_type
    type_answer = f"This RNA is a {type_name(own)}."
    asked = [_ask(fact, seed, "rna_type", type_answer, own)]
    draw = _draw(fact, seed, "options")
    options = [own, *draw.sample([name for name in EVALUATION_TYPES if name != own], OPTIONS - 1)]
    draw.shuffle(options)
    asked.append(_ask(fact, seed, "rna_type", type_answer, own, tuple(options), wording="rna_type_options"))
    other = draw.choice([name for name in EVALUATION_TYPES if name != own])
    for name, word in ((own, "Yes"), (other, "No")):
        filled = {"name": type_name(name), "short": SHORT_NAMES.get(name, name)}
        answer = f"{word}, it is a {type_name(own)}."
        asked.append(_ask(fact, seed, "is_type", answer, word.lower(), ("yes", "no"), salt=word, **filled))
    asked.append(_ask(fact, seed, "function", FUNCTIONS[own], own))
    size = length_class(fact.length)
    length = "medium-sized" if size == "medium" else size
    asked.append(_ask(fact, seed, "length_class", f"It is {length} ({LENGTH_CLASSES[size]}).", size))
    if fact.organism_group:
        asked += _organism_questions(fact, seed)
    if fact.amino_acid:
        name = AMINO_ACID_NAMES[fact.amino_acid]
        asked.append(_ask(fact, seed, "amino_acid", f"It carries {name} ({fact.amino_acid}).", fact.amino_acid))
    if fact.anticodon:
        asked.append(_ask(fact, seed, "anticodon", f"Its anticodon is {fact.anticodon}.", fact.anticodon))
    if fact.compartment:
        asked.append(_ask(fact, seed, "compartment", f"It is in a {fact.compartment} genome.", fact.compartment))
    return asked


def _organism_questions(fact: RnaFact, seed: int) -> list[FactQuestion]:
    own = fact.organism_group
    other = _draw(fact, seed, "other group").choice([group for group in GROUPS if group != own])
    asked = [
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
        asked.append(
            _ask(fact, seed, "is_organism_group", answer, word.lower(), ("yes", "no"), salt=word, group=a_group(group))
        )
    return asked


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
    template = _draw(fact, seed, wording + salt).choice(WORDINGS[wording])
    if wording == "rna_type_options":
        options_text = ", ".join(TYPE_NAMES[name] for name in options[:-1]) + f" or {TYPE_NAMES[options[-1]]}"
    named = {"organism_group": GROUPS, "length_class": tuple(LENGTH_CLASSES), "compartment": COMPARTMENTS}
    if topic in named and ("{options}" in template or all(choice in template for choice in named[topic])):
        options = named[topic]
    question = template.format(options=options_text, **filled)
    return FactQuestion(question, answer, "closed" if options else "open", topic, options, gold)
