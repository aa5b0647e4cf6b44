"""The systems that one evaluation compares: their keys in items.jsonl, their names, and what each is there for.

Another key is welcome in items.jsonl: it is shown under its own key, in the group of those that a recipe names.
"""

from dataclasses import dataclass

GROUPS = {
    "model": "RNA-GPT",
    "other": "Systems named in the recipe",
    "control": "Controls: the same model without the true RNA",
    "reference": "References on the same data",
    "baseline": "Baselines that read no RNA letters",
}


@dataclass(frozen=True)
class System:
    """One row of the tables: `key` in the JSONL, `label` for people, `group` a key of GROUPS.

    `about` explains the label; `phrase` is the label inside a sentence.
    """

    key: str
    label: str
    group: str
    about: str
    phrase: str


# group -> a line for each system: key, label, about, phrase
_TABLE = {
    "model": """
stage2 | Stage 2 | after instruction tuning: RNA, then the question | stage 2
stage1 | Stage 1 | after alignment only: projector trained, LLM unchanged | stage 1
demo | Shipped demo | the checkpoint that comes with the package | the shipped demo
""",
    "reference": """
linear_probe | Linear probe | logistic regression on the same encoder's features | a linear probe on the encoder
kmer_length | 1-3-mers + length | logistic regression on nucleotide counts and length \
| logistic regression on 1-3-mers and length
nearest_identity | Nearest by identity | answers of the training RNA of highest identity \
| copying the training RNA of highest identity
nearest_train | Nearest training RNA | its answers copied; cosine of 4-mer counts | copying the nearest training RNA
llm_text | LLM, sequence as text | the same LLM, untuned, reading the letters | the untuned LLM reading the letters
""",
    "baseline": """
length_only | Length only | a small decision tree on the length | length alone
question_only | Question only | training answers to such a question | the question's wording alone
majority | Majority answer | the commonest training answer of each topic | the majority answer
""",
}
SYSTEMS = {
    key: System(key, label, group, about, phrase)
    for group, rows in _TABLE.items()
    for key, label, about, phrase in (row.split(" | ") for row in rows.strip().splitlines())
}
# what follows a model's key under a control -> what follows its label, what it is, and the label inside a sentence
CONTROL_NAMES = {
    "swapped": (", another RNA", "an RNA of another type in the true one's place", "with another RNA"),
    "swapped_same": (
        ", another of its type",
        "another RNA of the same type in the true one's place",
        "with another RNA of the same type",
    ),
    "shuffled": (", shuffled RNA", "the true RNA, shuffled; dinucleotide counts kept", "with the RNA shuffled"),
    "no_rna": (", no RNA", "the question alone", "without RNA"),
}


def controlled(key: str) -> tuple[str, str] | None:
    """The model and the control that a key names, or None for a key that names no control.

    >>> controlled("stage1_swapped_same"), controlled("stage1")
    (('stage1', 'swapped_same'), None)
    """
    for control in CONTROL_NAMES:
        if key.endswith(f"_{control}"):
            return key.removesuffix(f"_{control}"), control
    return None


def system(key: str) -> System:
    """The system with this key; an unknown key is a control of its model, or a system of the group "other".

    >>> system("length_only").label, system("my_run").group, system("stage1_no_rna").label
    ('Length only', 'other', 'Stage 1, no RNA')
    """
    if key in SYSTEMS:
        return SYSTEMS[key]
    if parts := controlled(key):
        model, (label, about, phrase) = system(parts[0]), CONTROL_NAMES[parts[1]]
        return System(key, model.label + label, "control", about, f"{model.phrase} {phrase}")
    return System(key, key, "other", "", key)


def in_order(keys: set[str]) -> list[System]:
    """The systems with these keys: by group, then in the order of SYSTEMS, controls in that of CONTROL_NAMES,
    other keys by name.

    >>> [spec.key for spec in in_order({"majority", "demo_no_rna", "demo_swapped", "stage1_no_rna", "demo"})]
    ['demo', 'stage1_no_rna', 'demo_swapped', 'demo_no_rna', 'majority']
    """
    groups, controls = list(GROUPS), list(CONTROL_NAMES)

    def rank(spec: System) -> tuple[int, int, str, int]:
        model, control = controlled(spec.key) or (spec.key, controls[0])
        return groups.index(spec.group), [*SYSTEMS, model].index(model), model, controls.index(control)

    return sorted(map(system, keys), key=rank)
