"""Ask questions about an RNA: in the terminal, in a web page, by --question, or from a file.

    rnagpt chat --demo --fasta rna.fa                                    talk about its first RNA
    rnagpt chat --demo --web                                             the same in a web page on this machine
    rnagpt chat --demo --rna GCGGAUUUAGC... --question "What is it?"     one answer
    rnagpt chat --demo --rna URS000047C79B_9606 --question "What is it?" the RNA is fetched from RNAcentral
    rnagpt chat --demo --fasta two.fa --compare --question "Which of these two is a tRNA?"
    rnagpt chat --demo --batch in.tsv --out out.jsonl                    a file of questions
    rnagpt chat runs/quickstart/checkpoint --fasta rna.fa --json < questions.txt

reads   a checkpoint (a folder written by RNA-GPT's training, or a Hub id), RNAs as FASTA (plain or .gz); --batch: a
        .tsv or .csv (columns id, rna, question), a .jsonl (the same keys) or FASTA with --question
writes  answers to standard output, everything else to standard error; --out: a line of JSON per row of --batch, in
        the order of the rows, "error" where one could not be answered; the same command resumes

With --question every RNA of the file is asked every question, each question on its own: one line "id, tab, answer" for
each. In the terminal, and with one question per line of standard input, the questions are one conversation about one
RNA, or with --compare about all of the file together. --confidence adds how sure the model is, whether the answer
rests on the sequence, and the closest known RNAs.
"""

import argparse
import contextlib
import importlib.util
import io
import itertools
import math
import os
import sys
from pathlib import Path

from rnagpt.checkpoints.opening import DEMO_NOTE, add_checkpoint, chosen_checkpoint, load, share_processors
from rnagpt.serving.rna_reading import read_rnas
from rnagpt.serving.serve_command import check_port
from rnagpt_core.arguments import keep_old_name
from rnagpt_core.errors import UserError
from rnagpt_core.sequences import BARE_SEQUENCE, MAX_COMPARED, Record, read_fasta


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("--fasta", metavar="FILE", help="RNAs to ask about, plain or .gz")
    parser.add_argument(
        "--rna",
        metavar="SEQUENCE",
        help="an RNA to ask about, instead of --fasta; or its RNAcentral id (URS..._taxid)",
    )
    parser.add_argument("--record", metavar="ID", help="the record of --fasta to ask about")
    parser.add_argument("--question", metavar="TEXT", nargs="+", action="extend", help="answer this and end")
    parser.add_argument("--compare", action="store_true", help="put all RNAs of --fasta into one conversation")
    parser.add_argument(
        "--json", action="store_true", help="a JSON object per answer: rna_id, length_nt, question, answer, checkpoint"
    )
    parser.add_argument(
        "--confidence",
        action="store_true",
        help="with --json or --batch: confidence, source of the answer and closest known RNAs, too",
    )
    keep_old_name(parser, "--weigh", "--confidence")
    parser.add_argument(
        "--min-confidence",
        type=float,
        default=0.5,
        metavar="P",
        help="below it an answer is marked as not sure (default: 0.5)",
    )
    parser.add_argument(
        "--known-rnas",
        metavar="DATASET",
        help="an RNA-QA folder or Hub id: among its RNAs, too, the closest are looked up, with papers",
    )
    parser.add_argument(
        "--batch", metavar="FILE", type=Path, help="answer the rows of a .tsv, .csv, .jsonl or FASTA file"
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help="where --batch writes (.jsonl)")
    parser.add_argument("--web", action="store_true", help="open a web page on this machine")
    parser.add_argument("--port", type=int, default=7860, help="of --web; 0 takes a free one (default: 7860)")
    parser.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="longest answer (default: 256)")
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="sample the answer's words; the default, 0, takes the likeliest",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="the same sample again, with --temperature")


def run(args: argparse.Namespace) -> int:
    """Check everything that was given, load the checkpoint, answer."""
    share_processors()
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character that the terminal does not know is no reason to stop
            stream.reconfigure(errors="replace")
    checkpoint = chosen_checkpoint(args)
    in_terminal = not (args.question or args.batch or args.web) and sys.stdin.isatty()
    check_switches(args, in_terminal)
    if args.batch:
        return answer_batch(args, checkpoint)
    if args.web:
        check_web()
        check_port("127.0.0.1", args.port)
    records = given_records(args)
    # --question asks about all of them, or about --record; a conversation begins with the first, or with --record
    chosen = records if args.record is None else [named_record(records, args)]
    if not args.question and not args.compare:
        chosen = chosen[:1]

    print(f"loading {args.checkpoint or 'the demo'} ...", file=sys.stderr, flush=True)
    evidence = given_evidence(args)
    model, processor = load(checkpoint, trust_remote_code=args.trust_remote_code)
    if args.demo:
        print(DEMO_NOTE, file=sys.stderr, flush=True)
    from rnagpt.chat.conversation import Conversation
    from rnagpt.chat.terminal import Writer, run_script, run_terminal
    from rnagpt.serving.decoding import Sampling
    from rnagpt.serving.engine import Engine

    conversation = Conversation(Engine(model, processor))
    writer = Writer(args.checkpoint or "demo", args.json, args.confidence, evidence)
    sampling = Sampling(args.max_new_tokens, args.temperature, seed=args.seed)
    groups = [chosen] if args.compare else [[record] for record in chosen]
    for group in groups if args.question else groups[:1]:  # all of them before the first answer
        conversation.read(*group)
    if args.web:
        from rnagpt.chat.web import run_web

        note = DEMO_NOTE if args.demo else ""
        return run_web(conversation.engine, records, sampling, evidence, args.port, note)
    if args.question:
        for rnas, question in itertools.product(groups, args.question):
            conversation.read(*rnas)  # each question without the others in its prompt
            try:
                conversation.ask(question, sampling, confidence=writer.confidence)
            except UserError as error:
                raise UserError(f"record {', '.join(rna.rna_id for rna in rnas)}: {error}") from None
            writer.write(conversation)
        return 0
    if in_terminal:
        return run_terminal(conversation, records, sampling, evidence)
    return run_script(conversation, records, sampling, writer)


def check_web() -> None:
    """ModuleNotFoundError for a package that the page needs, before the checkpoint loads."""
    for name in ("gradio", "RNA", "edlib"):
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def check_switches(args: argparse.Namespace, in_terminal: bool) -> None:
    """UserError for switches out of range, or that make no sense together."""
    if args.fasta is not None and args.rna is not None:
        raise UserError("give the RNA by --fasta FILE or by --rna SEQUENCE, not both")
    if args.web and (args.question or args.batch or args.json):
        raise UserError("--web opens a page to ask in: leave --question, --batch and --json out")
    if (args.batch is None) != (args.out is None):
        raise UserError("--batch FILE and --out FILE belong together: give both")
    if args.out is not None and str(args.out) == "-":
        raise UserError("--out is a file, so that an interrupted run can go on: give its name")
    if args.batch and (args.fasta is not None or args.rna is not None):
        raise UserError("--batch names the RNAs itself: leave --fasta and --rna out")
    if args.confidence and not (args.json or args.batch):
        raise UserError("--confidence goes with --json or --batch (the terminal and the page always tell it)")
    if args.known_rnas and (args.question or args.json or args.batch) and not args.confidence:
        raise UserError("--known-rnas stands beside confidence: give --confidence, too (with --json or --batch)")
    if args.compare and args.record is not None:
        raise UserError("--compare takes all records of --fasta, and --record one of them: give one of the two")
    if args.record is not None and args.fasta is None:
        raise UserError("--record names a record of --fasta FILE: give that too")
    if args.compare and args.fasta is None:
        raise UserError("--compare needs the RNAs to compare: give them by --fasta FILE")
    if args.question and args.fasta is None and args.rna is None and args.batch is None:
        raise UserError("a question needs an RNA: give the RNA by --fasta FILE or --rna SEQUENCE")
    if any(not question.strip() for question in args.question or []):
        raise UserError("--question is empty: write a question")
    if args.json and in_terminal:
        raise UserError("--json is for --question, or for questions on standard input")
    if args.max_new_tokens < 1:
        raise UserError(f"--max-new-tokens must be at least 1, got {args.max_new_tokens}")
    if not 0 <= args.temperature < math.inf:
        raise UserError(f"--temperature must be 0 or above, got {args.temperature}")
    if not 0 <= args.min_confidence <= 1:
        raise UserError(f"--min-confidence must be from 0 to 1, got {args.min_confidence}")
    if not 0 <= args.port <= 65535:
        raise UserError(f"--port must be 0 to 65535, got {args.port}")
    if args.seed is not None and args.temperature == 0:
        raise UserError("--seed needs a --temperature above 0: without one the answer is always the same")


def given_records(args: argparse.Namespace) -> list[Record]:
    """The RNAs of --fasta or --rna."""
    if args.rna is not None:
        try:
            return read_rnas(args.rna, "--rna", "rna1")
        except UserError:
            if os.path.isfile(args.rna):
                raise UserError(f"--rna takes a sequence, and {args.rna} is a file: give it by --fasta") from None
            raise
    if args.fasta is not None and BARE_SEQUENCE.fullmatch(args.fasta) and not os.path.exists(args.fasta):
        raise UserError("--fasta takes a file, and this is a sequence: give it by --rna")
    records = [] if args.fasta is None else read_fasta(args.fasta)
    if args.compare and not 2 <= len(records) <= MAX_COMPARED:
        raise UserError(f"--compare takes 2 to {MAX_COMPARED} RNAs, and {args.fasta} holds {len(records):,}")
    return records


def given_evidence(args: argparse.Namespace):
    """What is laid beside the answers, with the RNAs of --known-rnas."""
    from rnagpt.known_rnas.base import KnownRnas, rna_qa
    from rnagpt.serving.confidence import Evidence

    if args.known_rnas is None:
        return Evidence(args.min_confidence)
    with contextlib.redirect_stdout(sys.stderr):
        more = rna_qa(args.known_rnas)
    left = f" ({more.left_out:,} rows without an id or with other letters left out)" if more.left_out else ""
    print(f"{len(more):,} known RNAs in {args.known_rnas}{left}", file=sys.stderr, flush=True)
    return Evidence(args.min_confidence, KnownRnas([more]))


def named_record(records: list[Record], args: argparse.Namespace) -> Record:
    """The record that --record names."""
    if found := [record for record in records if record.rna_id == args.record]:
        return found[0]
    some = ", ".join(record.rna_id for record in records[:5]) + (", ..." if len(records) > 5 else "")
    raise UserError(f"{args.fasta} has no record {args.record}: it has {some}")


def answer_batch(args: argparse.Namespace, checkpoint: str) -> int:
    """The rows of --batch; exit code 2 when any of them could not be answered."""
    if args.out.exists():
        raise UserError(f"{args.out} is there already: remove it, or give another --out")
    if not args.out.absolute().parent.is_dir():
        raise UserError(f"{args.out.absolute().parent} is no folder: make it, or give another --out")
    from rnagpt.chat import batch_file as batch

    rows, sha256 = batch.read_rows(args.batch, args.question or [])
    own = sum(row.question not in ("", *args.question) for row in rows) if args.question else 0
    if own:
        print(
            f"{own:,} of {len(rows):,} rows have a question of their own; --question is for the others",
            file=sys.stderr,
        )
    sampling = {"max_new_tokens": args.max_new_tokens, "temperature": args.temperature, "seed": args.seed}
    what = {
        "input_sha256": sha256,
        "checkpoint": args.checkpoint or "demo",
        "questions": args.question or [],
        "weigh": args.confidence and args.min_confidence,  # by its name in journals that were begun before
        "known_rnas": args.known_rnas,
        **sampling,
    }
    journal = batch.Journal(args.out, what)  # before the model loads: a journal of another run is a mistake
    evidence = given_evidence(args) if args.confidence else None
    model, processor = load(checkpoint, trust_remote_code=args.trust_remote_code)
    from rnagpt.serving.decoding import Sampling
    from rnagpt.serving.engine import Engine

    failed = batch.run_batch(Engine(model, processor), rows, journal, Sampling(**sampling), evidence)
    done = len(rows) - failed
    print(f"wrote {args.out}: {done:,} of {len(rows):,} rows answered", file=sys.stderr)
    if failed:
        raise UserError(f'{failed:,} of {len(rows):,} rows could not be answered: "error" in {args.out} says why')
    return 0
