"""The prompt of `rnagpt chat`: one `Session` behind a terminal and behind a script's standard input.

Answers go to standard output, everything else to standard error.
"""

import itertools
import json
import os
import re
import sys
from collections.abc import Callable

from rnagpt.chat.conversation import Conversation
from rnagpt.chat.fasta import Record, parse_fasta, parse_sequence, read_fasta
from rnagpt.chat.safe_text import one_line, printable
from rnagpt.errors import USER_MISTAKE, UserError

HELP = """\
/rna              list the RNAs at hand
/rna ID           ask about another of them
/rna FILE         read a FASTA file and ask about its first RNA
/rna SEQUENCE     ask about a sequence: /rna GCGGAUUUAGCUC...
>ID ...           paste FASTA text; an empty line ends it
/new              forget the questions and answers, keep the RNA
/quit             end (so does Ctrl-D)
Ctrl-C stops an answer. Anything else you type is a question; the model sees the earlier ones too."""
NO_RNA = "there is no RNA yet: give one by /rna FILE (FASTA) or /rna SEQUENCE"
LISTED = 20
BARE_SEQUENCE = re.compile("[ACGTUN]{12,}", re.IGNORECASE)
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
        if command in ("/quit", "/exit"):
            return False
        if command == "/help":
            say(HELP)
        elif command == "/new":
            self.conversation.forget()
            say("the conversation begins again" + (f" about {self.described()}" if self.conversation.rna else ""))
        elif command == "/rna" and not rest:
            self.list_records()
        elif command == "/rna":
            self.choose(rest.strip())
        elif command.startswith("/") and command[1:].isalpha():
            raise UserError(f"there is no command {command}: /help lists them")
        elif BARE_SEQUENCE.fullmatch(line):
            raise UserError("this looks like a sequence: write /rna and all of it on one line to ask about it")
        elif self.conversation.rna is None:
            raise UserError(NO_RNA)
        else:
            self.answer(line)
        return True

    def choose(self, what: str) -> None:
        """Read the RNA that an id, a FASTA file or a sequence stands for, tried in this order."""
        path = os.path.expanduser(what)
        if what.startswith(">"):
            self.pasted.append(what)
        elif what in self.records:
            self.take(self.records[what])
        elif os.path.exists(path):
            self.take_file(read_fasta(path))
        else:
            number = next(n for n in itertools.count(1) if f"rna{n}" not in self.records)
            try:
                record = parse_sequence(what, "as a sequence", f"rna{number}")
            except UserError as error:
                shown = what if len(what) <= 40 else what[:40] + "..."
                if FILE_NAME.search(what):
                    raise UserError(f"{shown} is no file and no RNA at hand: /rna lists those at hand") from None
                raise UserError(f"{shown} is no file and no RNA at hand, and {error}") from None
            self.take(record)

    def take_file(self, records: list[Record]) -> None:
        """These are the RNAs at hand now; read the first. When it is too long, the RNA read before stays."""
        self.records = {record.rna_id: record for record in records}
        self.take(records[0])

    def take(self, record: Record) -> None:
        """Read an RNA and say so."""
        self.conversation.read(record)
        self.records[record.rna_id] = record
        say(f"RNA: {self.described()}; the conversation begins again")

    def described(self) -> str:
        """The current RNA in words: "tRNA-Phe, 76 nt (1 of 3; /rna lists them)"."""
        rna = self.conversation.rna
        place = ""
        if len(self.records) > 1 and rna.rna_id in self.records:
            place = f" ({list(self.records).index(rna.rna_id) + 1} of {len(self.records):,}; /rna lists them)"
        return f"{rna.rna_id}, {len(rna):,} nt{place}"

    def list_records(self) -> None:
        """The RNAs at hand, a star before the current one."""
        if not self.records:
            say(NO_RNA)
        for record in list(self.records.values())[:LISTED]:
            star = "*" if record == self.conversation.rna else " "
            say(f"{star} {record.rna_id}  {len(record):,} nt  {record.description}"[:110].rstrip())
        if len(self.records) > LISTED:
            say(f"  and {len(self.records) - LISTED:,} more")


def write_answer(rna: Record, question: str, answer: str, checkpoint: str, as_json: bool) -> None:
    """One line on standard output: id, tab, answer; or a JSON object."""
    if as_json:
        row = {"rna_id": rna.rna_id, "length_nt": len(rna), "question": printable(question)}
        print(json.dumps({**row, "answer": printable(answer), "checkpoint": checkpoint}, ensure_ascii=False))
    else:
        print(f"{rna.rna_id}\t{one_line(answer)}")
    sys.stdout.flush()


def say_cut(conversation: Conversation, max_new_tokens: int) -> None:
    """Tell that the last answer is not complete, when it is not."""
    if conversation.cut_off:
        say(f"(the answer was cut at {max_new_tokens} tokens; --max-new-tokens allows more)")


def run_terminal(conversation: Conversation, records: list[Record], options: dict) -> int:
    """Questions from a person; `options` go to `Conversation.ask`."""

    def answer(question: str) -> None:
        try:
            text = conversation.ask(
                question, stream_to=lambda piece: print(printable(piece), end="", flush=True), **options
            )
        except KeyboardInterrupt:
            print(flush=True)
            say("(stopped; this question is forgotten)")
        else:
            print(flush=True)
            if not printable(text).strip():
                say("(the model gave no answer)")
            say_cut(conversation, options["max_new_tokens"])
        say()

    session = Session(conversation, records, answer)
    say(f"RNA: {session.described()}" if conversation.rna else NO_RNA)
    say("Ask a question; /help lists the commands, Ctrl-D ends.\n")
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


def read_line(prompt: str) -> str:
    """A line from the terminal, with editing and history where Python has readline."""
    try:
        import readline  # noqa: F401  importing it is what makes input() use it
    except ImportError:
        pass
    if sys.stdout.isatty():
        return input(prompt)
    # input() would write its prompt between the answers
    print(prompt, end="", file=sys.stderr, flush=True)
    return input()


def run_script(
    conversation: Conversation, records: list[Record], options: dict, checkpoint: str, as_json: bool
) -> int:
    """One question or command per line of standard input; exit code 2 when any of them could not be carried out."""

    def answer(question: str) -> None:
        text = conversation.ask(question, **options)
        write_answer(conversation.rna, question, text, checkpoint, as_json)
        say_cut(conversation, options["max_new_tokens"])

    session = Session(conversation, records, answer)
    code = 0
    for number, line in enumerate(itertools.chain(sys.stdin, [""]), start=1):  # the empty line ends pasted text
        try:
            if not session.handle(line):
                break
        except UserError as error:
            say(f"line {number}: {error}")
            code = USER_MISTAKE
    return code
