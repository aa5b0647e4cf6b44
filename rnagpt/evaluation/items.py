"""The questions of one evaluation and every system's answers to them, one JSON line each.

    items = evaluation_items(held_out, seed=0)                       # what is asked, the same for all systems
    with ItemWriter("run/evaluation/items.jsonl") as writer:         # resumes where an earlier run stopped
        for item in items:
            if not writer.done("stage2", item):
                writer.write(answered(item, "stage2", model_answer, shown_rna_id=item.rna_id))
    items = read_items("run/evaluation/items.jsonl")                 # everything the report is computed from
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from rnagpt.errors import UserError

CLOSED_PER_RNA = 3
SHUFFLED = "|shuffled"  # follows the id of an RNA whose letters were shuffled before the model saw it


@dataclass(frozen=True)
class Item:
    """One question about one held-out RNA and, once `system` is set, one system's answer to it.

    `kind` is "closed" where the answer is one of a few labels and "open" for the RNA type, which is asked without
    naming any. `gold` is the right label, `reference` the right answer as a sentence, `answer` the text as generated,
    and `parsed` the label found in it, or None. `shown_rna_id` is the RNA the system saw: its own id, another's,
    own id + "|shuffled", or None. `true_length` is in nt.
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

    @property
    def key(self) -> tuple[str, str, str]:
        """What the item asks: (rna_id, topic, question); the same for every system."""
        return self.rna_id, self.topic, self.question


_FIELDS = {field.name for field in fields(Item)}
_REQUIRED = _FIELDS - {"name"}


def evaluation_items(facts: Sequence, seed: int = 0, closed_per_rna: int = CLOSED_PER_RNA) -> list[Item]:
    """One RNA-type question and up to `closed_per_rna` closed ones per RNA, the same for the same facts and seed.

    facts: `dataset_builder.facts.RnaFact`s of the evaluation types; another type is a ValueError. The closed ones: is
    it of type X (yes and no alternate within each type), then two of amino acid, organism group and length class,
    the least asked first. With one closed question per RNA, is-it-of-type-X and the others alternate within each type.
    `options` are all labels that the answer may be, whether or not the question names them.
    """
    from dataset_builder.fact_questions import questions

    choices = answer_choices()
    items, seen_of_type, asked = [], Counter(), Counter()
    for fact in sorted(facts, key=lambda fact: fact.rna_id):
        if fact.rna_type not in choices["rna_type"]:
            raise ValueError(f"{fact.rna_id} is of type {fact.rna_type}, expected one of {choices['rna_type']}")
        offered = defaultdict(list)
        for question in questions(fact, seed):
            offered[question.topic].append(question)
        turn = seen_of_type[fact.rna_type]
        seen_of_type[fact.rna_type] += 1
        wanted = ("yes", "no")[(turn if closed_per_rna > 1 else turn // 2) % 2]
        n_is_type = 1 if closed_per_rna > 1 else (turn + 1) % 2
        chosen = offered["rna_type"][:1] + [
            question for question in offered["is_type"] if question.gold == wanted
        ][:n_is_type]
        others = [topic for topic in choices if topic not in ("rna_type", "is_type") and topic in offered]
        for topic in sorted(others, key=lambda topic: asked[topic])[: closed_per_rna - n_is_type]:
            asked[topic] += 1
            chosen.append(offered[topic][0])
        for question in chosen:
            items.append(Item(
                rna_id=fact.rna_id, cluster=fact.cluster, rna_type=fact.rna_type, true_length=len(fact.sequence),
                topic=question.topic, kind="open" if question.topic == "rna_type" else "closed",
                question=question.question, options=choices[question.topic], gold=question.gold,
                reference=question.answer, name=fact.name))
    return items


def answer_choices() -> dict[str, tuple[str, ...]]:
    """Topic -> all labels that an answer to it may be; these are the topics that are evaluated."""
    from dataset_builder.fact_answers import AMINO_ACID_NAMES, GROUPS, LENGTH_CLASSES
    from dataset_builder.facts import EVALUATION_TYPES

    return {"rna_type": tuple(EVALUATION_TYPES), "is_type": ("yes", "no"), "amino_acid": tuple(AMINO_ACID_NAMES),
            "organism_group": tuple(GROUPS), "length_class": tuple(LENGTH_CLASSES)}


def answered(item: Item, system: str, answer: str, shown_rna_id: str | None) -> Item:
    """The item with a system's generated text, the label parsed from it, and whether that is the right one."""
    from dataset_builder.fact_questions import parse_answer

    return labelled(item, system, parse_answer(answer, item.topic, item.options), shown_rna_id, answer)


def labelled(item: Item, system: str, label: str | None, shown_rna_id: str | None, answer: str | None = None) -> Item:
    """The item with a label that needs no parsing (a baseline's); its text is the label unless given."""
    return replace(item, system=system, answer=label if answer is None else answer, parsed=label,
                   correct=label == item.gold, shown_rna_id=shown_rna_id)


def to_line(item: Item) -> str:
    """The item as one line of JSON, newline included; ASCII, so that no reader takes a character for a line's end."""
    return json.dumps({"system": item.system} | asdict(item), allow_nan=False) + "\n"


def from_line(line: str) -> Item:
    """The item of one JSON line; a ValueError says which fields are missing or contradict each other."""
    record = json.loads(line)
    if not isinstance(record, dict) or _REQUIRED - set(record):
        missing = sorted(_REQUIRED - set(record)) if isinstance(record, dict) else sorted(_REQUIRED)
        raise ValueError(f"it lacks {', '.join(missing)}")
    item = Item(**{name: value for name, value in record.items() if name in _FIELDS} |
                {"options": tuple(record["options"] or ())})
    if item.correct != (item.parsed == item.gold):
        raise ValueError(f'"correct" is {item.correct}, yet parsed is {item.parsed!r} and gold is {item.gold!r}')
    return item


def write_items(path: str | Path, items: Iterable[Item]) -> None:
    """Write all items at once: a temporary file first, then a rename, so no reader ever sees half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(map(to_line, items))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_items(path: str | Path) -> list[Item]:
    """All items of a JSONL file; a last line cut off by a crash is left out, any other bad line is a UserError."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist: expected the per-item answers of an evaluation")
    return _parse(path)[0]


def _parse(path: Path) -> tuple[list[Item], int]:
    """The items of a file and the number of bytes that its whole lines take."""
    items, whole = [], 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):  # a writer was stopped in the middle of this line
                break
            try:
                items.append(from_line(line.decode("utf-8")))
            except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors too
                raise UserError(f"line {number} of {path} is not an evaluation item: {error}") from error
            whole += len(line)
    return items, whole


class ItemWriter:
    """Appends items to a JSONL file; opened again, it keeps what is there and knows what is done.

    A half-written last line is cut off first. Every line is flushed, so a killed run loses one answer at most.
    One process writes at a time.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        items, whole = _parse(self.path) if self.path.exists() else ([], 0)
        self._done = {(item.system, *item.key) for item in items}
        self._file = self.path.open("ab")
        self._file.truncate(whole)

    def done(self, system: str, item: Item) -> bool:
        """Whether this system's answer to this item is in the file."""
        return (system, *item.key) in self._done

    def write(self, item: Item) -> bool:
        """Append an answered item; False, and nothing written, where it is in the file already."""
        if not item.system:
            raise ValueError(f"the item about {item.rna_id} names no system: use answered() or labelled() first")
        if self.done(item.system, item):
            return False
        self._file.write(to_line(item).encode("utf-8"))
        self._file.flush()
        self._done.add((item.system, *item.key))
        return True

    def close(self) -> None:
        """Close the file; writing again is a ValueError."""
        self._file.close()

    def __enter__(self) -> "ItemWriter":
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()
