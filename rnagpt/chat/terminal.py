"""The prompt of `rnagpt chat`: one `Session` behind a terminal and behind a script's standard input.

Answers go to standard output, everything else to standard error.
"""

import itertools
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rnagpt.chat.conversation import Conversation
from rnagpt.chat.transcript import exported
from rnagpt.checkpoints.llm import cache_dir
from rnagpt.known_rnas.rnacentral_ids import is_rnacentral_id
from rnagpt.serving.confidence import Evidence
from rnagpt.serving.decoding import Sampling
from rnagpt.serving.rna_reading import read_rnas
from rnagpt_core.errors import USER_MISTAKE, UserError, explain
from rnagpt_core.files import new_file, replace_text
from rnagpt_core.safe_text import one_line, printable
from rnagpt_core.sequences import BARE_SEQUENCE, MAX_COMPARED, Record, parse_fasta, read_fasta

HELP = """\
/rna              list the RNAs at hand
/rna ID           ask about another of them
/rna ID ID ...    compare several of them: "which of these two ..."
/rna FILE         read a FASTA file and ask about its first RNA
/rna SEQUENCE     ask about a sequence: /rna GCGGAUUUAGCUC...
/rna URS..._9606  ask about an RNA of RNAcentral (needs the internet)
>ID ...           paste FASTA text; an empty line ends it
/new              forget the questions and answers, keep the RNA
/save FILE        write the conversation, and those before it: .md to read, .json for programs
/quit             end (so does Ctrl-D)
Ctrl-C stops an answer. Anything else you type is a question; the model sees the earlier ones too."""
NO_RNA = "there is no RNA yet: give one by /rna FILE (FASTA) or /rna SEQUENCE"
LISTED = 20
LONG = 5_000  # nt, from which reading them takes more than some seconds on two cores
HISTORY = 1000  # questions kept for the next session
COMMANDS = ("/rna", "/new", "/save", "/help", "/quit")
FILE_NAME = re.compile(r"[/\\._\d]")  # what a file's name or an id has, and a sequence has not


def say(text: str = "") -> None:
    """A line for the person, on standard error."""
    print(printable(text), file=sys.stderr, flush=True)


class Session:
    """What the person's lines act on: the conversation, and the RNAs to choose from.

    Args:
        records: the RNAs at hand; the conversation has read one of them, or none.
        answer: question -> None; asks the conversation and writes the answer.
    """

    def __init__(self, conversation: Conversation, records: list[Record], answer: Callable[[str], None]):
        self.conversation, self.answer = conversation, answer
        self.records = {record.rna_id: record for record in records}
        self.pasted: list[str] = []  # lines of FASTA text, until an empty one
        self.earlier: list[tuple[list[Record], list[dict]]] = []  # conversations that another RNA ended

    def handle(self, line: str) -> bool:
        """Carry out one line; False when it ends the session. Raises UserError for what cannot be done."""
        line = line.strip()
        command, _, rest = line.partition(" ")
        if self.pasted and not line:
            lines, self.pasted = self.pasted, []
            self.take_file(parse_fasta("\n".join(lines), "the pasted text"))
        elif self.pasted or line.startswith(">"):
            self.pasted.append(line)
        if self.pasted or not line:
            return True
        if command in ("/quit", "/exit") or line.lower() in ("quit", "exit"):
            return False
        if command == "/help" or line.lower() == "help":
            say(HELP)
        elif command == "/new":
            self.conversation.forget()
            say("the conversation begins again" + (f" about {self.described()}" if self.conversation.rna else ""))
        elif command == "/save":
            self.save(rest.strip())
        elif command == "/rna" and not rest:
            self.list_records()
        elif command == "/rna":
            self.choose(rest.strip())
        elif command.startswith("/") and command[1:].isalpha():
            raise UserError(f"there is no command {command}: /help lists them")
        elif BARE_SEQUENCE.fullmatch(line):
            raise UserError("this looks like a sequence: write /rna and all of it on one line to ask about it")
        elif FILE_NAME.search(line) and os.path.isfile(os.path.expanduser(line)):
            raise UserError(f"this is a file: write /rna {line} to read it")
        elif self.conversation.rna is None:
            raise UserError(NO_RNA)
        else:
            self.answer(line)
        return True

    def choose(self, what: str) -> None:
        """Read the RNA that an id, a FASTA file or a sequence stands for, tried in this order."""
        path = os.path.expanduser(unquoted(what))
        if what.startswith(">"):
            self.pasted.append(what)
        elif what in self.records:
            self.take(self.records[what])
        elif len(several := what.split()) > 1 and all(name in self.records for name in several):
            if len(several) > MAX_COMPARED or len(set(several)) < len(several):
                raise UserError(f"compare 2 to {MAX_COMPARED} different RNAs")
            self.take(*(self.records[name] for name in several))
        elif not is_rnacentral_id(what) and os.path.exists(path):
            self.take_file(read_fasta(path))
        else:
            number = next(n for n in itertools.count(1) if f"rna{n}" not in self.records)
            try:
                (record,) = read_rnas(what, "as a sequence", f"rna{number}")
            except UserError as error:
                if is_rnacentral_id(what):
                    raise
                shown = what if len(what) <= 40 else what[:40] + "..."
                if FILE_NAME.search(what):
                    raise UserError(f"{shown} is no file and no RNA at hand: /rna lists those at hand") from None
                raise UserError(f"{shown} is no file and no RNA at hand, and {error}") from None
            self.take(record)

    def take_file(self, records: list[Record]) -> None:
        """These are the RNAs at hand now; read the first. When it is too long, the RNA read before stays."""
        self.records = {record.rna_id: record for record in records}
        self.take(records[0])

    def take(self, *rnas: Record) -> None:
        """Read an RNA, or several to compare, and say so."""
        before = self.conversation.rnas, self.conversation.messages
        self.conversation.read(*rnas)
        if before[1]:
            self.earlier.append(before)
        self.records |= {rna.rna_id: rna for rna in rnas}
        say(f"RNA: {self.described()}; the conversation begins again")

    def save(self, name: str) -> None:
        """Write the conversation, and those before it, to a file that is not there yet."""
        if not name:
            raise UserError("/save needs a file: /save tRNA.md, or .json for programs")
        path = Path(unquoted(name)).expanduser()
        if path.exists():
            raise UserError(f"{path} is there already: give another name")
        text = exported(self.conversation.rnas, self.conversation.messages, path.suffix, self.earlier)
        if not path.absolute().parent.is_dir():
            raise UserError(f"{path} cannot be written (no such folder): give another name")
        try:
            replace_text(path, text)
        except OSError as error:
            raise UserError(f"{path} cannot be written ({error.strerror}): give another name") from None
        say(f"wrote {path}")

    def described(self) -> str:
        """The current RNA in words: "tRNA-Phe, 76 nt (1 of 3; /rna lists them)"."""
        words = [f"{rna.rna_id}, {len(rna):,} nt" for rna in self.conversation.rnas]
        if len(words) > 1:
            return "; ".join(f"RNA {number} = {rna}" for number, rna in enumerate(words, start=1))
        rna_id = self.conversation.rnas[0].rna_id
        if len(self.records) > 1 and rna_id in self.records:
            words.append(f"({list(self.records).index(rna_id) + 1} of {len(self.records):,}; /rna lists them)")
        return " ".join(words)

    def list_records(self) -> None:
        """The RNAs at hand, a star before the current one."""
        if not self.records:
            say(NO_RNA)
        for record in list(self.records.values())[:LISTED]:
            star = "*" if record in self.conversation.rnas else " "
            say(f"{star} {record.rna_id}  {len(record):,} nt  {record.description}"[:110].rstrip())
        if len(self.records) > LISTED:
            say(f"  and {len(self.records) - LISTED:,} more")


def unquoted(name: str) -> str:
    """A file's name as it is, without the quotation marks that dragging it into a terminal puts around it.

    >>> unquoted("'my two.fa'"), unquoted("two.fa")
    ('my two.fa', 'two.fa')
    """
    return name[1:-1] if len(name) > 2 and name[0] == name[-1] and name[0] in "'\"" else name


@dataclass
class Writer:
    """Writes answers for programs to standard output: "id, tab, answer", or a JSON object per line."""

    checkpoint: str
    as_json: bool = False
    confidence: bool = False
    evidence: Evidence = field(default_factory=Evidence)

    def write(self, conversation: Conversation) -> None:
        """The last question and its answer."""
        rnas, (question, answer) = conversation.rnas, (turn["content"] for turn in conversation.messages[-2:])
        if not self.as_json:
            print(f"{','.join(rna.rna_id for rna in rnas)}\t{one_line(answer)}")
        else:
            row = {"rna_id": rnas[0].rna_id, "length_nt": len(rnas[0])}
            if len(rnas) > 1:
                row = {"rna_ids": [rna.rna_id for rna in rnas], "lengths_nt": [len(rna) for rna in rnas]}
            row |= {"question": printable(question), "answer": printable(answer), "checkpoint": self.checkpoint}
            if self.confidence:
                row |= self.evidence.as_json(conversation.last, rnas)
            print(json.dumps(row, ensure_ascii=False))
        sys.stdout.flush()
        if not printable(answer).strip():
            say(f"(the model gave no answer about {', '.join(rna.rna_id for rna in rnas)})")
        say_cut(conversation)


def say_cut(conversation: Conversation) -> None:
    """Tell that the last answer is not complete, when it is not."""
    if conversation.cut_off:
        limit = len(conversation.last.token_ids)
        say(f"(the answer was cut at {limit} tokens; --max-new-tokens allows more)")


def run_terminal(
    conversation: Conversation, records: list[Record], sampling: Sampling, evidence: Evidence | None = None
) -> int:
    """Questions from a person."""
    evidence = evidence or Evidence()

    def answer(question: str) -> None:
        first = not conversation.messages
        if first and (length := sum(map(len, conversation.rnas))) >= LONG:
            say(f"(reading {length:,} nt, which may take a while; Ctrl-C stops it)")
        try:
            text = conversation.ask(
                question, sampling, lambda piece: print(printable(piece), end="", flush=True), confidence=True
            )
        except KeyboardInterrupt:
            print(flush=True)
            say("(stopped; this question is forgotten)")
        else:
            print(flush=True)
            if not printable(text).strip():
                say("(the model gave no answer)")
            say_cut(conversation)
            if confidence := evidence.confidence(conversation.last):
                say(f"({confidence.described()})")
            if first:
                say_closest(evidence, conversation.rnas)
        say()

    session = Session(conversation, records, answer)
    say(f"RNA: {session.described()}" if conversation.rna else NO_RNA)
    say("Ask a question; /help lists the commands, Ctrl-D ends.\n")
    with line_history(session):
        while True:
            try:
                if not session.handle(read_line("... " if session.pasted else "> ")):
                    return 0
            except EOFError:
                say()
                return 0
            except KeyboardInterrupt:
                session.pasted = []
                say("\n(Ctrl-D or /quit ends)")
            except UserError as error:
                say(f"{error}\n")


def say_closest(evidence: Evidence, rnas: list[Record]) -> None:
    """The known RNAs closest to these, as evidence beside the answer."""
    try:
        found = [evidence.closest(rna.sequence) for rna in rnas]
    except ModuleNotFoundError as error:
        say(f"(closest known RNAs are not shown: {explain(error)[0]})")
        return
    for rna, neighbours in zip(rnas, found, strict=True):
        about = f" to {rna.rna_id}" if len(rnas) > 1 else ""
        if not neighbours:
            say(f"(no known RNA is close{about})")
        for neighbour in neighbours:
            papers = f"; {papers}" if (papers := neighbour.papers()) else ""
            say(f"(closest known RNA{about}: {neighbour.described()}{papers})")


def read_line(prompt: str) -> str:
    """A line from the terminal, with editing, history and completion where Python has readline (`line_history`)."""
    if sys.stdout.isatty():
        return input(prompt)
    # input() would write its prompt between the answers
    print(prompt, end="", file=sys.stderr, flush=True)
    return input()


@contextmanager
def line_history(session: Session) -> Iterator[None]:
    """Questions of earlier sessions under the up arrow, and Tab for commands and the ids of RNAs.

    RNAs are not written to the history file: they may be unpublished.
    """
    try:
        import readline
    except ImportError:  # Python on Windows, or built without it
        yield
        return
    path = cache_dir() / "chat_history"
    words: list[str] = []

    def complete(text: str, state: int) -> str | None:
        if state == 0:
            words[:] = [word for word in (*COMMANDS, *session.records) if word.startswith(text)]
        return words[state] if state < len(words) else None

    with suppress(OSError):
        readline.read_history_file(path)
    readline.set_completer(complete)
    readline.set_completer_delims(" ")
    readline.parse_and_bind("tab: complete")
    try:
        yield
    finally:
        lines = [readline.get_history_item(i + 1) or "" for i in range(readline.get_current_history_length())]
        questions = [
            line for line in lines if not line.startswith((">", "/rna ")) and not BARE_SEQUENCE.fullmatch(line.strip())
        ]
        with suppress(OSError):  # a history that cannot be kept is no reason to fail
            with new_file(path) as file:
                os.fchmod(file.fileno(), 0o600)
                file.writelines(f"{line}\n" for line in questions[-HISTORY:])


def run_script(conversation: Conversation, records: list[Record], sampling: Sampling, writer: Writer) -> int:
    """One question or command per line of standard input; exit code 2 when any of them could not be carried out."""

    def answer(question: str) -> None:
        conversation.ask(question, sampling, confidence=writer.confidence)
        writer.write(conversation)

    session = Session(conversation, records, answer)
    code, empty = 0, True
    for number, line in enumerate(itertools.chain(sys.stdin, [""]), start=1):  # the empty line ends pasted text
        empty = empty and not line.strip()
        try:
            if not session.handle(line):
                break
        except UserError as error:
            say(f"line {number}: {error}")
            code = USER_MISTAKE
    if empty:
        raise UserError("standard input held no question: write one per line, or give --question")
    return code
