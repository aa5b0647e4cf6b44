"""The systems that one evaluation compares: their keys in items.jsonl, their names, and what each is there for.

Another key is welcome in items.jsonl: it is shown under its own key, in the group "Other".
"""

from dataclasses import dataclass

GROUPS = {
    "model": "RNA-GPT",
    "control": "Controls: the same model without the true RNA",
    "reference": "References on the same data",
    "floor": "Floors that read no RNA letters",
    "other": "Other",
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


SYSTEMS = [
    System("stage2", "Stage 2", "model", "after instruction tuning: RNA, then the question", "stage 2"),
    System("stage1", "Stage 1", "model", "after alignment only: projector trained, LLM unchanged", "stage 1"),
    System("demo", "Shipped demo", "model", "the checkpoint that comes with the package", "the shipped demo"),
    System("stage2_swapped", "Stage 2, another RNA", "control", "an RNA of another type in the true one's place",
           "stage 2 with another RNA"),
    System("stage2_shuffled", "Stage 2, shuffled RNA", "control", "the true RNA, shuffled; dinucleotide counts kept",
           "stage 2 with the RNA shuffled"),
    System("stage2_no_rna", "Stage 2, no RNA", "control", "the question alone", "stage 2 without RNA"),
    System("demo_swapped", "Shipped demo, another RNA", "control", "an RNA of another type in the true one's place",
           "the shipped demo with another RNA"),
    System("linear_probe", "Linear probe", "reference", "logistic regression on the same encoder's features",
           "a linear probe on the encoder"),
    System("kmer_length", "1-3-mers + length", "reference", "logistic regression on nucleotide counts and length",
           "logistic regression on 1-3-mers and length"),
    System("nearest_train", "Nearest training RNA", "reference", "its answers copied; cosine of 4-mer counts",
           "copying the nearest training RNA"),
    System("llm_text", "LLM, sequence as text", "reference", "the same LLM, untuned, reading the letters",
           "the untuned LLM reading the letters"),
    System("length_only", "Length only", "floor", "a small decision tree on the length", "length alone"),
    System("majority", "Majority answer", "floor", "the commonest training answer of each topic",
           "the majority answer"),
]
_BY_KEY = {system.key: (rank, system) for rank, system in enumerate(SYSTEMS)}


def system(key: str) -> System:
    """The system with this key; an unknown key becomes a system of the group "other".

    >>> system("length_only").label, system("my_run").group
    ('Length only', 'other')
    """
    return _BY_KEY[key][1] if key in _BY_KEY else System(key, key, "other", "", key)


def in_order(keys: set[str]) -> list[System]:
    """The systems with these keys in the order of SYSTEMS, unknown ones last and by name."""
    return sorted(map(system, keys), key=lambda s: (_BY_KEY.get(s.key, (len(SYSTEMS), None))[0], s.key))
