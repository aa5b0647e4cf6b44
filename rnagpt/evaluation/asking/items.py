"""The questions of one evaluation and every system's answers to them, one JSON line each.

items = evaluation_items(held_out, seed=0)                       # what is asked, the same for all systems
with ItemWriter("run/evaluation/items.jsonl") as writer:         # resumes where an earlier run stopped
    for item in items:
        if not writer.done("stage2", item):
            writer.write(written(item, "stage2", model_answer, shown_rna_id=item.rna_id))
items = read_items("run/evaluation/items.jsonl")                 # everything the report is computed from
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from dataset_builder.facts_table.fact_answers import AMINO_ACID_NAMES, GROUPS, LENGTH_CLASSES
from dataset_builder.facts_table.fact_questions import parse_answer, questions
from dataset_builder.facts_table.facts import EVALUATION_TYPES
from rnagpt_core.errors import UserError
from rnagpt_core.json_lines import JsonLines, read_json_lines

# topics that are evaluated -> all labels that the answer may be, whether or not the question names them
ANSWER_CHOICES: dict[str, tuple[str, ...]] = {
    "rna_type": tuple(EVALUATION_TYPES),
    "is_type": ("yes", "no"),
    "amino_acid": tuple(AMINO_ACID_NAMES),
    "organism_group": tuple(GROUPS),
    "length_class": tuple(LENGTH_CLASSES),
}
SHUFFLED = "|shuffled"  # follows the id of an RNA whose letters were shuffled before the model saw it


@dataclass(frozen=True)
class Item:
    """One question about one held-out RNA and, once `system` is set, one system's answer to it.

    `kind` is "closed" where the answer is one of a few labels and "open" otherwise: for the RNA type, which is asked
    without naming any, and for questions answered in free text, which have no `gold` label and no `options`.
    `reference` is the right answer as a sentence, `answer` the text as generated, and `parsed` the label found in it,
    or None. `shown_rna_id` is the RNA the system saw: its own id, another's, own id + "|shuffled", or None.
    `true_length` is in nt.

    Known of some items only: `method`, the annotation set (ais, divide_and_conquer); `train_identity`, 0 to 1, with
    the nearest training RNA; `evidence_pmids`, what the reference rests on; `option_logprobs`, log-likelihood of each
    of `options` as the answer; `reference_logprob`, mean log-likelihood per token of the reference as the answer.
    """

    rna_id: str
    cluster: int
    rna_type: str
    true_length: int
    topic: str
    kind: str
    question: str
    options: tuple[str, ...]
    gold: str
    reference: str
    name: str = ""
    system: str = ""
    answer: str | None = None
    parsed: str | None = None
    correct: bool = False
    shown_rna_id: str | None = None
    method: str = ""
    train_identity: float | None = None
    evidence_pmids: tuple[str, ...] = ()
    option_logprobs: tuple[float, ...] = ()
    reference_logprob: float | None = None

    @property
    def free_text(self) -> bool:
        """Whether the answer is compared with the reference as a text: it has no label."""
        return not self.gold

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What the item asks: (rna_id, topic, question, method); the same for every system."""
        return self.rna_id, self.topic, self.question, self.method


_FIELDS = {field.name for field in fields(Item)}
_KNOWN_OF_SOME = {field.name: field.default for field in fields(Item)[-5:]}
_REQUIRED = _FIELDS - {"name", *_KNOWN_OF_SOME}


def evaluation_items(facts: Sequence, seed: int = 0, closed_per_rna: int = 3) -> list[Item]:
    """One RNA-type question and up to `closed_per_rna` closed ones per RNA, the same for the same facts and seed.

    facts: `RnaFact`s of the evaluation types; another type is a ValueError. The closed ones: is it of type X (yes and
    no alternate within each type), then amino acid, organism group and length class, the least asked first. With one
    closed question per RNA, is-it-of-type-X and the others alternate within each type.
    """
    items, of_type, of_topic = [], Counter(), Counter()
    for fact in sorted(facts, key=lambda fact: fact.rna_id):
        if fact.rna_type not in EVALUATION_TYPES:
            raise ValueError(f"{fact.rna_id} is of type {fact.rna_type}, expected one of {tuple(EVALUATION_TYPES)}")
        offered = defaultdict(list)
        for question in questions(fact, seed):
            offered[question.topic].append(question)
        turn = of_type[fact.rna_type]
        of_type[fact.rna_type] += 1
        wanted = ("yes", "no")[(turn if closed_per_rna > 1 else turn // 2) % 2]
        n_is_type = 1 if closed_per_rna > 1 else (turn + 1) % 2
        is_type = [question for question in offered["is_type"] if question.gold == wanted]
        others = [topic for topic in list(ANSWER_CHOICES)[2:] if topic in offered]
        others = sorted(others, key=of_topic.__getitem__)[: closed_per_rna - n_is_type]
        of_topic.update(others)
        chosen = offered["rna_type"][:1] + is_type[:n_is_type] + [offered[topic][0] for topic in others]
        items += [
            Item(
                fact.rna_id,
                fact.cluster,
                fact.rna_type,
                len(fact.sequence),
                question.topic,
                "open" if question.topic == "rna_type" else "closed",
                question.question,
                ANSWER_CHOICES[question.topic],
                question.gold,
                question.answer,
                fact.name,
            )
            for question in chosen
        ]
    return items


def labelled(item: Item, system: str, label: str | None, shown_rna_id: str | None, answer: str | None = None) -> Item:
    """The item with a label that needs no parsing (a baseline's); its text is the label unless given."""
    return replace(
        item,
        system=system,
        answer=label if answer is None else answer,
        parsed=label,
        correct=label == item.gold,
        shown_rna_id=shown_rna_id,
    )


def written(item: Item, system: str, answer: str, shown_rna_id: str | None) -> Item:
    """The item with a text that may be free or hold a label: its own options are looked for in it.

    A topic of the facts is parsed as in training's questions; other options count where exactly one of them stands in
    the answer as whole words.
    """
    label = None
    if item.topic in ANSWER_CHOICES:
        label = parse_answer(answer, item.topic, item.options)
    elif not item.free_text:
        label = option_in(answer, item.options)
    return labelled(item, system, label, shown_rna_id, answer)


def option_in(answer: str, options: Sequence[str]) -> str | None:
    """The one option that an answer names, or None where it names none or several. A letter before the options
    ("B) no") counts, and so does the first word for yes and no.

    >>> option_in("It is a snoRNA, I think.", ["tRNA", "snoRNA"]), option_in("B", ["tRNA", "snoRNA"])
    ('snoRNA', 'snoRNA')
    >>> option_in("No, it does not; yes would be wrong.", ["yes", "no"]), option_in("tRNA or yes", ["tRNA", "yes"])
    ('no', None)
    """
    text = " ".join(answer.split())
    letter = re.match(r"\(?([A-Z])(?:[).:]|$)", text)
    if letter and ord(letter[1]) - ord("A") < len(options):
        return options[ord(letter[1]) - ord("A")]
    first = re.match(r"\W*(\w+)", text.lower())
    if first and first[1] in ("yes", "no"):
        if same := [option for option in options if option.lower() == first[1]]:
            return same[0]
    # the longest first, each taken out once found: "RNA" is not found again inside "messenger RNA"
    found, rest = [], text.lower()
    for option in sorted(options, key=len, reverse=True):
        pattern = rf"(?<!\w){re.escape(option.lower())}(?!\w)"
        if re.search(pattern, rest):
            found.append(option)
            rest = re.sub(pattern, " ", rest)
    return found[0] if len(found) == 1 else None


def to_row(item: Item) -> dict:
    """The item as a JSON object; what is known of some items only is left out of the others."""
    known = {name: value for name, value in asdict(item).items() if _KNOWN_OF_SOME.get(name, ...) != value}
    return {"system": item.system} | known


def to_line(item: Item) -> str:
    """The item as one line of JSON, newline included; ASCII, so that no reader takes a character for a line's end."""
    return json.dumps(to_row(item), allow_nan=False) + "\n"


def from_row(row: dict) -> Item:
    """The item of one JSON object; a ValueError says which fields are missing or contradict each other."""
    if missing := sorted(_REQUIRED - set(row)):
        raise ValueError(f"it lacks {', '.join(missing)}")
    row = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items() if name in _FIELDS}
    item = Item(**row | {"options": row["options"] or ()})
    if item.correct != (item.parsed == item.gold):
        raise ValueError(f'"correct" is {item.correct}, yet parsed is {item.parsed!r} and gold is {item.gold!r}')
    return item


def read_items(path: str | Path) -> list[Item]:
    """All items of a JSONL file; a last line cut off by a crash is left out, any other bad line is a UserError."""
    if not Path(path).is_file():
        raise UserError(f"{path} does not exist: expected the per-item answers of an evaluation")
    return list(read_json_lines(path, "an evaluation item", from_row))


class ItemWriter(JsonLines):
    """Appends items to a JSONL file; opened again, it keeps what is there and knows what is done."""

    def __init__(self, path: str | Path):
        super().__init__(path, "an evaluation item")
        self._done = {(item.system, *item.key) for item in self.rows(from_row)}

    def done(self, system: str, item: Item) -> bool:
        """Whether this system's answer to this item is in the file."""
        return (system, *item.key) in self._done

    def write(self, item: Item) -> bool:
        """Append an answered item; False, and nothing written, where it is in the file already."""
        if not item.system:
            raise ValueError(f"the item about {item.rna_id} names no system: use written() or labelled() first")
        if new := not self.done(item.system, item):
            super().write(to_row(item))
            self._done.add((item.system, *item.key))
        return new
