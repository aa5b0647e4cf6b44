"""Names of RNA types and the reading of generated answers: text -> canonical label, or None.

>>> parse_answer("This RNA is a transfer RNA (tRNA).", "rna_type")
'tRNA'
>>> parse_answer("It is not a tRNA but a microRNA precursor.", "rna_type")
'pre_miRNA'
>>> parse_answer("I cannot tell.", "rna_type") is None
True
"""

import re
from importlib import resources

import yaml

# names, wordings and patterns, one table for what is asked and how answers are read
VOCABULARY: dict = yaml.load(
    (resources.files("dataset_builder.facts_table") / "data" / "vocabulary.yaml").read_text(encoding="utf-8"),
    getattr(yaml, "CSafeLoader", yaml.SafeLoader),
)
TYPES: dict[str, dict] = VOCABULARY["rna_types"]
TYPE_NAMES: dict[str, str] = {rna_type: row["name"] for rna_type, row in TYPES.items()}
GROUPS: tuple[str, ...] = tuple(VOCABULARY["organism_groups"])
LENGTH_CLASSES: dict[str, str] = VOCABULARY["length_classes"]
COMPARTMENTS: tuple[str, ...] = tuple(VOCABULARY["compartments"])
AMINO_ACID_NAMES: dict[str, str] = VOCABULARY["amino_acids"]
# {topic: [(label, pattern), ...]}
_PATTERNS: dict[str, list[tuple[str, str]]] = {
    topic: [(label, "|".join(patterns)) for label, patterns in labels]
    for topic, labels in {
        "rna_type": [(rna_type, row["named"]) for rna_type, row in TYPES.items()],
        "function": [(rna_type, row["function_named"]) for rna_type, row in TYPES.items()],
        "organism_group": VOCABULARY["organism_groups"].items(),
        "compartment": VOCABULARY["compartments"].items(),
        "amino_acid": [
            *((code, [name, f"(?-i:{code}|{code.upper()})"]) for code, name in AMINO_ACID_NAMES.items()),
            ("Asp", ["aspartic acid"]),
            ("Glu", ["glutamic acid"]),
        ],
    }.items()
}
# "not", then up to seven words (and an opening bracket) before the name, none of which starts a new statement.
_NEGATED = re.compile(
    r"(?:\bnot|n't|\bnever|\bneither|\bnor|\brather than|\bunlike|\binstead of)\s+"
    r"(?:(?!(?:but|is|it|whether)\b)(?:\d\.\d\w*|[\w'-]+)[ (]+){0,7}$",
    re.I,
)


def type_name(rna_type: str) -> str:
    """Name of an RNA type for reading; a type without one is shown with spaces.

    >>> type_name("tRNA"), type_name("RNase_P_RNA"), type_name("telomerase_RNA")
    ('transfer RNA (tRNA)', 'ribonuclease P RNA (RNase P RNA)', 'telomerase RNA')
    """
    return TYPE_NAMES.get(rna_type, rna_type.replace("_", " "))


def length_class(length: int) -> str:
    """Length in nt -> class.

    >>> [length_class(nt) for nt in (49, 50, 150, 151)]
    ['short', 'medium', 'medium', 'long']
    """
    return "short" if length < 50 else "medium" if length <= 150 else "long"


def parse_answer(text: str, topic: str, options: tuple[str, ...] | None = None) -> str | None:
    """A generated answer -> the canonical label of its topic, or None when it names none.

    The first label named without a negation just before it wins. With `options`, a first-named label outside them is
    None. Topics starting with "is_" give "yes" or "no". Raises ValueError for a topic without a vocabulary.

    >>> parse_answer("It is a pre-miRNA, which holds a miRNA.", "rna_type")
    'pre_miRNA'
    >>> parse_answer("mtRNA", "rna_type") is None, parse_answer("It is not a tRNA.", "rna_type") is None
    (True, True)
    >>> parse_answer("A self-splicing group II intron", "rna_type") is None
    True
    >>> parse_answer("Transfer RNA", "rna_type", options=("miRNA", "riboswitch")) is None
    True
    >>> parse_answer("No, it is a riboswitch.", "is_type"), parse_answer("It is not a tRNA.", "is_type")
    ('no', 'no')
    >>> parse_answer("Nothing is known.", "is_type") is None
    True
    >>> parse_answer("It comes from yeast.", "organism_group"), parse_answer("tRNA-Sec", "organism_group")
    ('fungus', None)
    >>> parse_answer("It carries glutamic acid (Glu).", "amino_acid"), parse_answer("his", "amino_acid")
    ('Glu', None)
    >>> parse_answer("Its anticodon is TGC.", "anticodon"), parse_answer("It is 72 nt long.", "length_class")
    ('UGC', 'medium')
    """
    if topic.startswith("is_"):
        found = re.search(r"\b(yes|no)\b", text, re.I)
        if found:
            return found[1].lower()
        return "no" if re.search(r"\b(?:is|does|are|do)(?: not|n't)\b", text, re.I) else None
    if topic == "anticodon":
        found = re.search(r"(?<![A-Za-z])[ACGTU]{3}(?![A-Za-z])", text)
        label = found[0].replace("T", "U") if found else None
    elif topic == "length_class":
        label = _parse_length(text)
    elif topic in _PATTERNS:
        label = _first_named(text, _PATTERNS[topic])
    else:
        raise ValueError(f"topic is {topic!r}, expected is_..., anticodon, length_class or one of {list(_PATTERNS)}")
    return label if options is None or label in options else None


def _parse_length(text: str) -> str | None:
    counted = re.search(r"\b(\d[\d,]*)\s*(?:nt|nucleotides?|bases?)\b(\s+long\b)?", text, re.I)
    word = re.search(r"\b(short|medium|long)\b", text, re.I)
    if counted and (counted[2] or not word):
        return length_class(int(counted[1].replace(",", "")))
    return word[1].lower() if word else None


def _first_named(text: str, vocabulary: list[tuple[str, str]]) -> str | None:
    """First label whose pattern matches as a whole word and is not negated; where two start together, the earlier.

    A negated name is used up whole, so that "not a pre-miRNA" does not leave "miRNA" to be found.
    """
    text = text.replace("_", " ")
    names = "|".join(f"(?P<n{rank}>{pattern})" for rank, (_, pattern) in enumerate(vocabulary))
    for match in re.finditer(rf"(?<![A-Za-z0-9.])(?:{names})(?![A-Za-z0-9])", text, re.I):
        if not _NEGATED.search(text[: match.start()]):
            return vocabulary[int(match.lastgroup[1:])][0]
    return None
