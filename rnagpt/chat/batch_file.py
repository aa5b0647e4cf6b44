"""Many questions from a file, answered into a file: `rnagpt chat --batch in.tsv --out out.jsonl`.

    in.tsv      columns id, rna, question (a header line names them); several RNAs in a cell are separated by commas
    in.csv      the same, separated by commas or semicolons, quoted as spreadsheets do
    in.jsonl    {"id": ..., "rna": "ACGU" or ["ACGU", "GGCC"], "question": ...} per line
    in.fasta    every record is asked every --question, and so is a row of the others without a question of its own

    out.jsonl   per input row and question, in order: {"row", "id", "question", "answer", "finish_reason"}, or an
                "error"; a "note" where the model gave no answer

Finished rows go to OUT.part at once, so that the same command goes on where it was interrupted. Rows of like length
are answered together, those about the same RNA one after another.
"""

import csv
import hashlib
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rnagpt.known_rnas.rnacentral_ids import is_rnacentral_id
from rnagpt.serving.rna_reading import check_lengths
from rnagpt_core.errors import UserError
from rnagpt_core.files import new_file
from rnagpt_core.json_lines import JsonLines
from rnagpt_core.safe_text import one_line, printable
from rnagpt_core.sequences import Record, decoded, parse_fasta, parse_sequence, read_bytes

if TYPE_CHECKING:  # mistakes in the file are told before torch is imported
    from rnagpt.serving.confidence import Evidence
    from rnagpt.serving.decoding import Sampling
    from rnagpt.serving.engine import Answer, Engine

MAX_BYTES = 500_000_000
WANTED = "a .tsv, .csv, .jsonl or FASTA file"
COLUMNS = ("id", "rna", "question")


@dataclass
class Row:
    """One question of the input, or what is wrong with it."""

    number: int  # from 1, in the file's order; a row that is asked several questions counts as so many
    row_id: str
    rnas: list[Record] = field(default_factory=list)
    question: str = ""
    error: str | None = None

    @property
    def cost(self) -> tuple[int, str]:
        """Sorts rows of like length together, and those about the same RNA one after another."""
        return sum(map(len, self.rnas)), "".join(rna.sequence for rna in self.rnas)


# --- reading


def read_rows(path: Path, questions: list[str]) -> tuple[list[Row], str]:
    """The rows of a batch file, and the sha256 of its content.

    Args:
        questions: of --question; for FASTA, and for rows without a question of their own.

    Raises:
        UserError: the file as a whole cannot be read. What is wrong with one row is that row's `error`.
    """
    content = read_bytes(path, MAX_BYTES, WANTED)
    text = decoded(content, path, WANTED)
    suffix = Path(str(path).removesuffix(".gz")).suffix.lower()
    try:
        if suffix in (".tsv", ".csv"):
            rows = list(rows_of_table(text, path, questions, quoted=suffix == ".csv"))
        else:
            rows = list(rows_of_jsonl(text, questions) if suffix == ".jsonl" else rows_of_fasta(text, path, questions))
    except csv.Error as error:
        raise UserError(f"{path} cannot be read as a table ({error}): is a quotation mark not closed?") from None
    if not rows:
        raise UserError(f"{path} holds no rows: expected a question and an RNA in each")
    for number, row in enumerate(rows, start=1):
        row.number = number
    return rows, hashlib.sha256(content).hexdigest()


def rows_of_table(text: str, path: Path, questions: list[str], quoted: bool) -> Iterator[Row]:
    """Rows of a .tsv, whose cells are taken as they are, or of a .csv, whose cells may be `quoted`."""
    csv.field_size_limit(MAX_BYTES)  # by default a cell over 131,072 characters is an error, and an RNA may be longer
    if quoted:
        first = text[: text.find("\n")]  # where the comma is the decimal point, spreadsheets write semicolons
        delimiter = max(",;\t", key=first.count)
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    else:
        lines = csv.reader(io.StringIO(text, newline=None), delimiter="\t", quoting=csv.QUOTE_NONE)
    header = [name.strip().lower() for name in next(lines, [])]
    if "rna" not in header or ("question" not in header and not questions):
        raise UserError(
            f"{path}, line 1: expected a header with the columns {', '.join(COLUMNS)} (question may be left out where "
            f"--question is given), got {one_line(', '.join(header))[:80]!r}"
        )
    for number, cells in enumerate((cells for cells in lines if any(cells)), start=1):
        given = dict(zip(header, cells, strict=False))
        given["rna"] = [sequence for sequence in given.get("rna", "").split(",") if sequence.strip()]
        for row in rows_of_one(number, given, questions):
            if any(cells[len(header) :]):  # a question with a separator in it, which would be asked by half
                row.error = (
                    f"{len(cells)} cells, and the header has {len(header)}: is there a separator in one of them?"
                )
            yield row


def rows_of_jsonl(text: str, questions: list[str]) -> Iterator[Row]:
    for number, line in enumerate((line for line in io.StringIO(text, newline=None) if line.strip()), start=1):
        try:
            given = json.loads(line)
            if not isinstance(given, dict):
                raise ValueError
        except (ValueError, RecursionError):
            yield Row(number, f"row{number}", error="the line is no JSON object")
            continue
        yield from rows_of_one(number, given, questions)


def rows_of_one(number: int, given: dict, questions: list[str]) -> list[Row]:
    """A row of a table or of JSON lines, checked; without a question of its own it is asked all of --question."""
    own = given.get("question")
    blank = own is None or (isinstance(own, str) and not own.strip())
    return [row_of(number, given, question) for question in (questions or [""] if blank else [own])]


def row_of(number: int, given: dict, question) -> Row:
    """One question about a row's RNAs, checked."""
    row_id = given.get("id")
    row = Row(number, f"row{number}" if row_id in (None, "") else one_line(str(row_id)))
    row.question = question if isinstance(question, str) else ""
    rnas = given.get("rna")
    rnas = [rnas] if isinstance(rnas, str) else rnas
    try:
        if not isinstance(rnas, list) or not rnas or not all(isinstance(rna, str) for rna in rnas):
            raise UserError("rna: expected a sequence, or a list of them")
        if not isinstance(question, str) or not question.strip():
            raise UserError("question: expected a text that is not empty")
        if found := next(filter(is_rnacentral_id, rnas), None):
            raise UserError(f"rna: {found.strip()} is an RNAcentral id, which only --rna fetches: give the sequence")
        names = [f"{row.row_id}.{i}" for i in range(1, len(rnas) + 1)] if len(rnas) > 1 else [row.row_id]
        row.rnas = [parse_sequence(rna, "rna", name) for rna, name in zip(rnas, names, strict=True)]
    except UserError as error:
        row.error = str(error)
    return row


def rows_of_fasta(text: str, path: Path, questions: list[str]) -> Iterator[Row]:
    if not questions:
        raise UserError(f"{path} is read as FASTA: give the questions by --question (or a .tsv, .csv or .jsonl file)")
    if not text.strip():
        return
    chunks = [chunk for chunk in re.split(r"(?m)^(?=>)", text) if chunk.strip()]
    for place, chunk in enumerate(chunks, start=1):
        try:
            (record,) = parse_fasta(chunk, f"{path.name}, record {place}", fallback_id=path.stem)
            rna_id, rnas, error = record.rna_id, [record], None
        except UserError as found:
            rna_id, rnas, error = one_line(chunk.splitlines()[0].lstrip("> "))[:80], [], str(found)
        for question in questions:
            yield Row(place, rna_id, rnas, question, error)


# --- answering


class Journal:
    """OUT.part: a first line that says what is being answered, then finished rows in the order they were finished.

    Raises:
        UserError: another process writes it, or it was left by a run with other rows or settings.
    """

    def __init__(self, out: Path, what: dict):
        self.out, self.path = out, out.with_name(out.name + ".part")
        # two runs would answer everything twice into one journal
        taken = f"another run is writing {self.path}: wait for it, or give another --out"
        self.file = JsonLines(self.path, "a row of a batch", taken)
        heading, *rows = list(self.file.rows()) or [None]
        if heading != what and rows:
            self.file.close()
            raise UserError(
                f"{self.path} was left by a run with other rows or settings: remove it to begin anew, or run "
                "that command again to finish it"
            )
        self.done = {row["row"]: row for row in rows}
        if not rows:
            self.file.clear()
            self.file.write(what)

    def write(self, row: dict) -> None:
        self.done[row["row"]] = row
        self.file.write(row)

    def finish(self) -> None:
        """All rows in order as the file that was asked for; the journal goes."""
        with new_file(self.out) as file:
            for _, row in sorted(self.done.items()):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.path.unlink()
        self.file.close()  # held until nothing is left to take over


def run_batch(
    engine: "Engine", rows: list[Row], journal: Journal, sampling: "Sampling", evidence: "Evidence | None" = None
) -> int:
    """Answer all rows that the journal does not hold yet; returns how many of all rows could not be answered.

    Args:
        evidence: gives each answer's line its confidence and closest known RNAs.
    """
    from tqdm import tqdm

    pending = [row for row in rows if row.number not in journal.done]
    with tqdm(total=len(rows), initial=len(journal.done), desc="answering", unit="row", file=sys.stderr) as progress:

        def write(row: Row, found: dict) -> None:
            question = {"question": printable(row.question)} if row.question else {}
            journal.write({"row": row.number, "id": row.row_id, **question, **found})
            progress.update()

        try:
            queue = iter(sorted(pending, key=lambda row: row.cost))
            row = next(queue, None)
            while row is not None or engine.busy:
                # one batch ahead: the prompts' encoder outputs are not held for all rows at once
                while row is not None and len(engine.active) + len(engine.waiting) < 2 * engine.max_answers:
                    try:
                        engine.start(prepared(engine, row, sampling, evidence, write))
                    except UserError as error:
                        write(row, {"error": str(error)})
                    row = next(queue, None)
                if engine.busy:
                    engine.step()
        except BaseException:
            journal.file.close()
            raise
        finally:
            engine.give_up()
    journal.finish()
    return sum("error" in row for row in journal.done.values())


def prepared(engine: "Engine", row: Row, sampling: "Sampling", evidence, write: Callable[[Row, dict], None]):
    """The row's answer, ready for the engine; UserError for what is wrong with the row."""
    from rnagpt.chat.conversation import with_rnas

    if row.error:
        raise UserError(row.error)
    check_lengths(row.rnas, engine.processor, engine.context)

    def when_done(answer: "Answer") -> None:
        found = {"answer": printable(answer.text), "finish_reason": answer.finish_reason}
        if not answer.text.strip():
            found["note"] = "the model gave no answer"
        write(row, {**found, **(evidence.as_json(answer, row.rnas) if evidence else {})})

    messages = with_rnas([{"role": "user", "content": row.question}], row.rnas)
    return engine.prepare(messages, sampling, confidence=evidence is not None, when_done=when_done)
