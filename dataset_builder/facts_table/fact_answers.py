"""Names of RNA types and the reading of generated answers: text -> canonical label, or None.

>>> parse_answer("This RNA is a transfer RNA (tRNA).", "rna_type")
'tRNA'
>>> parse_answer("It is not a tRNA but a microRNA precursor.", "rna_type")
'pre_miRNA'
>>> parse_answer("I cannot tell.", "rna_type") is None
True
"""

import re

TYPE_NAMES: dict[str, str] = {
    "tRNA": "transfer RNA (tRNA)",
    "pre_miRNA": "precursor microRNA (pre-miRNA)",
    "miRNA": "mature microRNA (miRNA)",
    "5S_rRNA": "5S ribosomal RNA (5S rRNA)",
    "5.8S_rRNA": "5.8S ribosomal RNA (5.8S rRNA)",
    "RNase_P_RNA": "ribonuclease P RNA (RNase P RNA)",
    "snRNA": "spliceosomal small nuclear RNA (snRNA)",
    "snoRNA": "small nucleolar RNA (snoRNA)",
    "riboswitch": "riboswitch",
    "autocatalytically_spliced_intron": "self-splicing group I intron",
    "SRP_RNA": "signal recognition particle RNA (SRP RNA)",
    "vault_RNA": "vault RNA (vtRNA)",
    "sRNA": "bacterial small RNA (sRNA)",
    "viral_xrRNA": "viral exoribonuclease-resistant RNA (xrRNA)",
}
GROUPS: tuple[str, ...] = ("animal", "plant", "fungus", "protist", "bacterium", "archaeon", "virus")
LENGTH_CLASSES: dict[str, str] = {"short": "under 50 nt", "medium": "50 to 150 nt", "long": "over 150 nt"}
COMPARTMENTS: tuple[str, ...] = ("nuclear", "mitochondrial", "plastid", "bacterial")
AMINO_ACID_NAMES: dict[str, str] = {
    "Ala": "alanine",
    "Arg": "arginine",
    "Asn": "asparagine",
    "Asp": "aspartate",
    "Cys": "cysteine",
    "Gln": "glutamine",
    "Glu": "glutamate",
    "Gly": "glycine",
    "His": "histidine",
    "Ile": "isoleucine",
    "Leu": "leucine",
    "Lys": "lysine",
    "Met": "methionine",
    "Phe": "phenylalanine",
    "Pro": "proline",
    "Ser": "serine",
    "Thr": "threonine",
    "Trp": "tryptophan",
    "Tyr": "tyrosine",
    "Val": "valine",
    "SeC": "selenocysteine",
}

# Most specific first: where two patterns start at the same letter, the earlier one here wins.
_MICRO = r"(?:micro[- ]?RNA|miRNA|miR)"
_TYPES: tuple[tuple[str, str], ...] = (
    (
        "pre_miRNA",
        rf"pre[- ]?{_MICRO}s?|precursor (?:of an? )?(?:mature )?{_MICRO}s?"
        rf"|{_MICRO}[- ](?:precursor|hairpin|stem[- ]loop)s?|hairpins?(?: precursors?)?|stem[- ]loops?",
    ),
    ("miRNA", rf"(?:mature )?{_MICRO}s?"),
    ("5.8S_rRNA", r"5\.8 ?S(?: (?:ribosomal RNA|rRNA))?s?"),
    ("5S_rRNA", r"5 ?S(?: (?:ribosomal RNA|rRNA))?s?"),
    ("RNase_P_RNA", r"(?:RNase|ribonuclease)[- ]?P(?: RNA)?s?"),
    ("snoRNA", r"snoRNAs?|small nucleolar RNAs?"),
    ("snRNA", r"snRNAs?|(?:spliceosomal )?small nuclear RNAs?|spliceosomal RNAs?"),
    ("riboswitch", r"riboswitch(?:es)?"),
    (
        "autocatalytically_spliced_intron",
        r"(?:self[- ]splicing )?group[- ]I introns?"
        r"|(?:self[- ]splicing|autocatalytically spliced|autocatalytic) introns?"
        r"|(?<!group II )(?<!group-II )introns?",
    ),
    ("SRP_RNA", r"SRP(?: RNA)?s?|signal recognition particle(?: RNA)?s?|7SL(?: RNA)?"),
    ("vault_RNA", r"vault RNAs?|vtRNAs?"),
    ("viral_xrRNA", r"(?:viral )?(?:exoribonuclease[- ]resistant RNA|xrRNA)s?"),
    ("sRNA", r"bacterial small (?:regulatory )?RNAs?|sRNAs?"),
    ("tRNA", r"t-?RNAs?|transfer[- ]RNAs?"),
)
_GROUPS: tuple[tuple[str, str], ...] = (
    ("animal", r"animals?|metazoans?|vertebrates?|mammals?|humans?|insects?|fish(?:es)?|birds?|nematodes?"),
    ("plant", r"plants?|algae?"),
    ("fungus", r"fung(?:us|i|al)|yeasts?"),
    ("protist", r"protists?|protozoans?"),
    ("bacterium", r"bacteri(?:um|a|al)"),
    ("archaeon", r"archae(?:on|a|al)"),
    ("virus", r"virus(?:es)?|viral"),
)
_COMPARTMENTS: tuple[tuple[str, str], ...] = (
    ("nuclear", r"nuclear|nucleus"),
    ("mitochondrial", r"mitochondri(?:al|on|a)"),
    ("plastid", r"plastids?|chloroplasts?"),
    ("bacterial", r"bacteri(?:al|um|a)"),
)
# The words by which an answer about function shows which type's function it tells.
_FUNCTIONS: tuple[tuple[str, str], ...] = (
    ("tRNA", r"(?:carries|carry|brings|delivers)\b[^.]*amino acid|amino acids? to the ribosome"),
    ("pre_miRNA", r"dicer"),
    ("miRNA", r"argonaute|silences|represses"),
    ("5.8S_rRNA", r"eukaryotic ribosomes"),
    ("5S_rRNA", r"large (?:ribosomal )?subunit"),
    ("RNase_P_RNA", r"5' leader"),
    ("snRNA", r"spliceosome"),
    ("snoRNA", r"nucleolus"),
    ("riboswitch", r"(?:binds|senses) a (?:small molecule|metabolite|ligand)"),
    ("autocatalytically_spliced_intron", r"its own (?:removal|excision|splicing)|splices itself"),
    ("SRP_RNA", r"secretory proteins|proteins to the membrane"),
    ("vault_RNA", r"vault"),
    ("viral_xrRNA", r"xrn1"),
    ("sRNA", r"bacterial transcript"),
)
_AMINO_ACIDS: tuple[tuple[str, str], ...] = tuple(
    (code, rf"{name}|(?-i:{code}|{code.upper()})") for code, name in AMINO_ACID_NAMES.items()
) + (("Asp", r"aspartic acid"), ("Glu", r"glutamic acid"))
# "not", then up to seven words (and an opening bracket) before the name, none of which starts a new statement.
_NEGATED = re.compile(
    r"(?:\bnot|n't|\bnever|\bneither|\bnor|\brather than|\bunlike|\binstead of)\s+"
    r"(?:(?!(?:but|is|it|whether)\b)(?:\d\.\d\w*|[\w'-]+)[ (]+){0,7}$",
    re.I,
)
_VOCABULARY = {
    "rna_type": _TYPES,
    "organism_group": _GROUPS,
    "compartment": _COMPARTMENTS,
    "function": _FUNCTIONS,
    "amino_acid": _AMINO_ACIDS,
}


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
    elif topic in _VOCABULARY:
        label = _first_named(text, _VOCABULARY[topic])
    else:
        raise ValueError(f"topic is {topic!r}, expected is_..., anticodon, length_class or one of {list(_VOCABULARY)}")
    return label if options is None or label in options else None


def _parse_length(text: str) -> str | None:
    counted = re.search(r"\b(\d[\d,]*)\s*(?:nt|nucleotides?|bases?)\b(\s+long\b)?", text, re.I)
    word = re.search(r"\b(short|medium|long)\b", text, re.I)
    if counted and (counted[2] or not word):
        return length_class(int(counted[1].replace(",", "")))
    return word[1].lower() if word else None


def _first_named(text: str, vocabulary: tuple[tuple[str, str], ...]) -> str | None:
    """First label whose pattern matches as a whole word and is not negated; where two start together, the earlier.

    A negated name is used up whole, so that "not a pre-miRNA" does not leave "miRNA" to be found.
    """
    text = text.replace("_", " ")
    names = "|".join(f"(?P<n{rank}>{pattern})" for rank, (_, pattern) in enumerate(vocabulary))
    for match in re.finditer(rf"(?<![A-Za-z0-9.])(?:{names})(?![A-Za-z0-9])", text, re.I):
        if not _NEGATED.search(text[: match.start()]):
            return vocabulary[int(match.lastgroup[1:])][0]
    return None
