"""Ask questions about an RNA: in the terminal, by --question, or one question per line of standard input.

    rnagpt chat --demo --fasta rna.fa                                    talk about its first RNA
    rnagpt chat --demo --rna GCGGAUUUAGC... --question "What is it?"     one answer
    rnagpt chat runs/quickstart/checkpoint --fasta rna.fa --json < questions.txt

reads   a checkpoint (a folder written by RNA-GPT's training, or a Hub id), RNAs as FASTA (plain or .gz)
writes  answers to standard output, everything else to standard error

With --question every RNA of the file is asked every question, each question on its own: one line "id, tab, answer" for
each. In the terminal and from standard input the questions are one conversation about one RNA.
"""

import argparse
import contextlib
import io
import json
import math
import sys
from pathlib import Path

from rnagpt.chat.fasta import Record, check_length, parse_sequence, read_fasta
from rnagpt.errors import UserError
from rnagpt.folders import PACKAGED_ENCODER, PARTS, assets, checkpoint_form

DEMO = assets() / "demo"
DEMO_NOTE = "small demo model: it tells RNA types and groups apart, it has not read the literature"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `rnagpt chat`."""
    parser.add_argument("checkpoint", nargs="?", metavar="CHECKPOINT", help="folder of a checkpoint, or a Hub id")
    parser.add_argument("--demo", action="store_true", help="use the small checkpoint that comes with RNA-GPT")
    parser.add_argument("--fasta", metavar="FILE", help="RNAs to ask about, plain or .gz")
    parser.add_argument("--rna", metavar="SEQUENCE", help="an RNA to ask about, instead of --fasta")
    parser.add_argument("--record", metavar="ID", help="the record of --fasta to ask about")
    parser.add_argument("--question", metavar="TEXT", nargs="+", action="extend", help="answer this and end")
    parser.add_argument("--json", action="store_true", help="a JSON object per answer: rna_id, length_nt, question, "
                        "answer, checkpoint")
    parser.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="longest answer (default: 256)")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T",
                        help="draw the answer's words; the default, 0, takes the likeliest")
    parser.add_argument("--seed", type=int, metavar="N", help="the same draw again, with --temperature")


def run(args: argparse.Namespace) -> int:
    """Check everything that was given, load the checkpoint, answer."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character that the terminal does not know is no reason to stop
            stream.reconfigure(errors="replace")
    checkpoint = chosen_checkpoint(args)
    in_terminal = not args.question and sys.stdin.isatty()
    check_switches(args, in_terminal)
    records = given_records(args)
    # --question asks about all of them, or about --record; a conversation begins with the first, or with --record
    chosen = records if args.record is None else [named_record(records, args)]
    if not args.question:
        chosen = chosen[:1]
    check_lengths(chosen, checkpoint)

    print(f"loading {args.checkpoint or 'the demo'} ...", file=sys.stderr, flush=True)
    conversation = load(checkpoint)
    if args.demo:
        print(DEMO_NOTE, file=sys.stderr, flush=True)
    from rnagpt.chat.terminal import run_script, run_terminal

    options = {"max_new_tokens": args.max_new_tokens, "temperature": args.temperature, "seed": args.seed}
    name = args.checkpoint or "demo"
    if args.question:
        return answer_questions(conversation, chosen, args.question, options, name, args.json)
    for record in chosen:
        conversation.read(record)
    if in_terminal:
        return run_terminal(conversation, records, options)
    return run_script(conversation, records, options, name, args.json)


def chosen_checkpoint(args: argparse.Namespace) -> str:
    """The folder or Hub id that CHECKPOINT and --demo stand for."""
    if args.demo == (args.checkpoint is not None):
        raise UserError("give either a CHECKPOINT (before --question, if there is one) or --demo")
    if args.demo:
        if not DEMO.is_dir():
            raise UserError("this installation has no demo checkpoint: give a CHECKPOINT, or make one by `make demo`")
        return str(DEMO)
    path = Path(args.checkpoint).expanduser()
    checkpoint_form(path)
    return str(path)


def check_switches(args: argparse.Namespace, in_terminal: bool) -> None:
    """UserError for switches out of range, or that make no sense together."""
    if args.fasta is not None and args.rna is not None:
        raise UserError("give the RNA by --fasta FILE or by --rna SEQUENCE, not both")
    if args.record is not None and args.fasta is None:
        raise UserError("--record names a record of --fasta FILE: give that too")
    if args.question and args.fasta is None and args.rna is None:
        raise UserError("a question needs an RNA: give the RNA by --fasta FILE or --rna SEQUENCE")
    if any(not question.strip() for question in args.question or []):
        raise UserError("--question is empty: write a question")
    if args.json and in_terminal:
        raise UserError("--json is for --question, or for questions on standard input")
    if args.max_new_tokens < 1:
        raise UserError(f"--max-new-tokens must be at least 1, got {args.max_new_tokens}")
    if not 0 <= args.temperature < math.inf:
        raise UserError(f"--temperature must be 0 or above, got {args.temperature}")
    if args.seed is not None and args.temperature == 0:
        raise UserError("--seed needs a --temperature above 0: without one the answer is always the same")


def given_records(args: argparse.Namespace) -> list[Record]:
    """The RNAs of --fasta or --rna."""
    if args.rna is not None:
        return [parse_sequence(args.rna, "--rna", "rna1")]
    return [] if args.fasta is None else read_fasta(args.fasta)


def named_record(records: list[Record], args: argparse.Namespace) -> Record:
    """The record that --record names."""
    for record in records:
        if record.rna_id == args.record:
            return record
    some = ", ".join(record.rna_id for record in records[:5]) + (", ..." if len(records) > 5 else "")
    raise UserError(f"{args.fasta} has no record {args.record}: it has {some}")


def check_lengths(records: list[Record], checkpoint: str) -> None:
    """UserError for an RNA that is too long, where the checkpoint's files tell so before anything is loaded."""
    folder = rna_tokenizer_folder(Path(checkpoint))
    if folder is None:
        return
    from tokenizers import Tokenizer

    try:
        max_tokens = json.loads((folder / "tokenizer_config.json").read_text())["model_max_length"]
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # `tokenizers` raises nothing more special
        raise UserError(f"the RNA tokenizer in {folder} is damaged ({error}): copy or download it again") from None
    for record in records:
        check_length(
            record,
            max_tokens - tokenizer.num_special_tokens_to_add(False),
            lambda sequence: len(tokenizer.encode(sequence).ids) <= max_tokens,
        )


def rna_tokenizer_folder(checkpoint: Path) -> Path | None:
    """Where a checkpoint on this disk has its RNA tokenizer; None where only loading tells."""
    folder = checkpoint / "rna_tokenizer"
    if (checkpoint / PARTS).is_file():
        try:
            encoder = json.loads((checkpoint / PARTS).read_text())["build"]["encoder"]
        except (ValueError, KeyError):
            return None  # loading says what is wrong with it
        folder = assets() / "encoder" if encoder == PACKAGED_ENCODER else Path(encoder)
    names = ("tokenizer.json", "tokenizer_config.json")
    return folder if all((folder / name).is_file() for name in names) else None


def load(checkpoint: str):
    """A `Conversation` with the checkpoint's model; what libraries print meanwhile goes to standard error."""
    with contextlib.redirect_stdout(sys.stderr):
        from safetensors import SafetensorError
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        from rnagpt import checkpoint as checkpoints
        from rnagpt.chat.conversation import Conversation

        try:
            return Conversation(*checkpoints.load(checkpoint))
        except SafetensorError as error:
            sentence = f"the weights in {checkpoint} are damaged ({error}): copy or download them again"
            raise UserError(sentence) from None


def answer_questions(
    conversation, records: list[Record], questions: list[str], options: dict, checkpoint: str, as_json: bool
) -> int:
    """Every question about every RNA, each without the others in its prompt, as one line each."""
    from rnagpt.chat.terminal import say_cut, write_answer

    for record in records:
        for question in questions:
            try:
                conversation.read(record)
                answer = conversation.ask(question, **options)
            except UserError as error:
                raise UserError(f"record {record.rna_id}: {error}") from None
            write_answer(record, question, answer, checkpoint, as_json)
            say_cut(conversation, options["max_new_tokens"])
    return 0
