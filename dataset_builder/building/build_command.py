"""Make an RNA-QA dataset from RNAs and the literature about them: annotations and questions, each with its papers.

    rnagpt build-dataset FOLDER --output runs/rna-qa --plan          # calls, tokens, price; nothing is sent
    rnagpt build-dataset FOLDER --output runs/rna-qa --llm gpt-4o-mini --budget-usd 5
    rnagpt build-dataset FOLDER --output runs/rna-qa --llm none      # sentences of the abstracts, curated statements
    rnagpt build-dataset rnacentral --contact you@example.org --output runs/rna-qa --plan

reads   FOLDER: rnas (.jsonl, .parquet, .fasta), papers (.jsonl, .parquet), links (where the RNAs name no papers),
        facts (what others say of the RNAs);
        or "rnacentral": RNAs and literature from RNAcentral, LitScan and Europe PMC
writes  OUTPUT/dataset: Parquet and card, for `datasets.load_dataset("OUTPUT/dataset", "qa")` and "alignment"
        OUTPUT/report.txt: what was kept, left out and why, spent;  OUTPUT/work: what a restart goes on from
        OUTPUT/left_out.tsv: rows of FOLDER that were not taken, by file, line and reason

The API key is read from the environment variable that --key-variable names. Stop it at any moment; the same command
goes on, and no answered call is paid again.
"""

import argparse
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path

from rnagpt_core.arguments import keep_old_name
from rnagpt_core.errors import UserError

# of a language model: --llm none has no use for them
OF_A_MODEL = (
    "endpoint",
    "batch_api",
    "budget_usd",
    "budget_tokens",
    "price",
    "prompt_tokens",
    "answer_tokens",
    "method",
)
OF_RNACENTRAL = ("query", "ids", "limit", "facts", "by_export")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="a folder of RNAs and papers, or rnacentral")
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="where everything is written")
    parser.add_argument("--plan", action="store_true", help="print calls, tokens, price and hours; send nothing")
    add_model_arguments(parser.add_argument_group("language model").add_argument)
    add_data_arguments(parser.add_argument_group("data").add_argument)
    add_collection_arguments(parser.add_argument_group("collection from RNAcentral").add_argument)
    scale = parser.add_argument_group("scale").add_argument
    scale("--executor", default="local", choices=["local", "slurm", "ray"])
    scale("--workers", type=int, default=1, metavar="N", help="processes (default: %(default)s)")
    scale("--sets-per-rank", type=int, default=1000, metavar="N", help=argparse.SUPPRESS)
    cluster = "for slurm: time=08:00:00 partition=cpu; for ray: address=auto"
    scale("--cluster", nargs="*", default=[], metavar="KEY=VALUE", help=cluster)
    keep_old_name(parser, "--units-per-rank", "--sets-per-rank")


def add_model_arguments(add: Callable) -> None:
    add(
        "--llm",
        default="gpt-4o-mini",
        help="a model's name at --endpoint; or none, for sentences of the abstracts and questions from curated "
        "statements, without key, calls or price (default: %(default)s)",
    )
    endpoint = "an OpenAI-compatible base URL, such as a vLLM or Ollama server's (default: OpenAI's)"
    add("--endpoint", metavar="URL", help=endpoint)
    key = "environment variable with the API key (default: %(default)s)"
    add("--key-variable", default="OPENAI_API_KEY", metavar="NAME", help=key)
    add("--batch-api", action="store_true", help="use the endpoint's Batch API: half the price, slower")
    looks = "between looks at the batches (default: %(default)s)"
    add("--batch-seconds", type=float, default=30, metavar="S", help=looks)
    add("--budget-usd", type=float, metavar="USD", help="stop before this is passed")
    add("--budget-tokens", type=int, metavar="N", help="stop before this is passed")
    price = "USD for a million tokens (default: 0.15 0.60)"
    add("--price", type=float, nargs=2, metavar=("PROMPT", "ANSWER"), help=price)
    add("--concurrency", type=int, default=16, metavar="N", help="calls at a time (default: %(default)s)")
    add("--timeout", type=float, default=120, metavar="S", help="seconds for a call (default: %(default)s)")
    add("--prompt-tokens", type=int, metavar="N", help="papers of one call, in tokens")
    add("--answer-tokens", type=int, metavar="N", help="longest answer, in tokens")
    add("--repairs", type=int, default=2, metavar="N", help="times an answer is sent back (default: %(default)s)")


def add_data_arguments(add: Callable) -> None:
    add("--method", metavar="LIST", help="divide_and_conquer, ais or both, with a comma (default: divide_and_conquer)")
    add("--max-length", type=int, default=1024, metavar="NT", help="longest RNA (default: %(default)s)")
    add("--cap-papers", type=int, default=500, metavar="N", help="papers per RNA (default: %(default)s)")
    add("--topics", default="rule", metavar="RULE", help="rule (one per 12 papers), coherence, or a number")
    held_out = "of the RNAs, to test and as many to validation (default: %(default)s)"
    add("--held-out", type=float, default=0.05, metavar="SHARE", help=held_out)
    add("--drop-named", action="store_true", help="leave out questions that name the RNA")
    most = "of the yes-or-no questions that are published; 1 keeps all (default: %(default)s)"
    add("--most-of-one-answer", type=float, default=0.6, metavar="SHARE", help=most)
    add("--release", default="", help="RNAcentral's release, recorded in every row")
    add("--seed", type=int, default=0)


def add_collection_arguments(add: Callable) -> None:
    add("--contact", metavar="MAIL", help="your address, sent to the services with each request")
    add("--query", help="restrict the RNAs, in RNAcentral's query language: 'rna_type:\"tRNA\"'")
    add(
        "--ids",
        metavar="FILE",
        help="the RNAs instead of a search: RNAcentral ids with taxid, one a line, or RNAcentral's FASTA, which saves "
        "asking for sequences",
    )
    add("--limit", type=int, metavar="N", help="RNAs at most")
    add("--by-export", action="store_true", help="sequences from the export service, in one download")
    facts = "what others say of the RNAs, for the configuration facts: litsumm, rfam, go (a request per RNA each)"
    add("--facts", nargs="+", default=[], metavar="NAME", help=facts)
    service = "another address of a service: ebi, rnacentral, export, europe_pmc"
    add("--service", nargs="*", default=[], metavar="NAME=URL", help=service)


def run(args: argparse.Namespace) -> int:
    try:
        return run_build(args)
    except sqlite3.OperationalError as error:  # the disk is full, most often
        raise UserError(
            f"{args.output} cannot be written: {error}; see to it and run the same command to go on"
        ) from None


def run_build(args: argparse.Namespace) -> int:
    from dataset_builder.building.build import build

    settings = settings_of(args)
    if args.output.is_file():
        raise UserError(f"--output {args.output} is a file; give a folder")
    report = build(settings, args.output, collector(args), plan_only=args.plan, say=say)
    if args.plan:
        return 0
    splits = ", ".join(f"{number} {name}" for name, number in report["splits"].items())
    questions = sum(report["kinds"].values())
    say(f"{report['annotations']} annotations, {questions} questions ({splits})")
    if not questions:
        why = "no RNA has curated statements" if settings.extractive else "no question passed the checks"
        cure = "give facts" if settings.extractive else "try a better language model"
        say(f"{why}, so there is no config qa: {cure}")
    config = "qa" if questions else "alignment"
    say(f'load_dataset("{args.output / "dataset"}", "{config}") reads it')
    say(f"{args.output / 'report.txt'} says what was left out and why")
    return 0


def settings_of(args: argparse.Namespace):
    """The BuildSettings that were asked for.

    Raises:
        UserError: one is impossible, or does not go with another.
    """
    from dataset_builder.storage.settings import NO_MODEL, BuildSettings
    from rnagpt_core.typed_yaml import checked

    url = args.endpoint or "https://api.openai.com/v1"
    if args.llm == NO_MODEL:
        refuse(args, OF_A_MODEL, f"a language model, and --llm {NO_MODEL} asks none")
    elif not url.startswith(("http://", "https://")):
        raise UserError(f"--endpoint must begin with http:// or https://, got {url}")
    elif args.endpoint is None and not args.plan and not os.environ.get(args.key_variable):
        raise UserError(
            f"no API key in the environment variable {args.key_variable}, which {url} asks for: set it, or give "
            f"--endpoint of a server without keys, or --llm {NO_MODEL}"
        )
    if args.batch_api and args.executor != "local":
        raise UserError("--batch-api goes with --executor local: the endpoint does the work, one machine is enough")
    same = "max_length cap_papers topics drop_named most_of_one_answer release seed executor workers sets_per_rank"
    model = {
        name: getattr(args, name) for name in ("key_variable", "timeout", "concurrency", "batch_api", "batch_seconds")
    }
    limits = {"prompt_tokens": args.prompt_tokens, "answer_tokens": args.answer_tokens, "repairs": args.repairs}
    method = args.method or ("extractive" if args.llm == NO_MODEL else "divide_and_conquer")
    return checked(
        BuildSettings,
        {
            "model": {
                **model,
                "name": args.llm,
                "url": url,
                "prices": dict(zip(("prompt", "answer"), args.price or (), strict=False)),
            },
            "source": args.source if args.source == "rnacentral" else str(Path(args.source).absolute()),
            "methods": [part.strip() for part in method.split(",")],
            "limits": {name: number for name, number in limits.items() if number is not None},
            "budget": {"usd": args.budget_usd, "tokens": args.budget_tokens},
            "held_out_share": args.held_out,
            "cluster": dict(pair.partition("=")[::2] for pair in args.cluster),
            **{name: getattr(args, name) for name in same.split()},
        },
    )


def refuse(args: argparse.Namespace, names: tuple[str, ...], belongs_to: str) -> None:
    """UserError where one of these switches was given."""
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(args, name) not in (None, False, [])]
    if given:
        raise UserError(f"{', '.join(given)} goes with {belongs_to}: leave it out")


def collector(args: argparse.Namespace) -> Callable:
    """The function that fills the store from the source, once what was asked of it is checked."""
    begun = args.output / "work" / "library.sqlite"
    if args.source != "rnacentral":
        from dataset_builder.sources import local_source

        refuse(args, OF_RNACENTRAL, f"rnacentral, and the folder {args.source} is read as it is")
        if not begun.exists():
            local_source.files_of(args.source)  # before anything is written
        return lambda store: local_source.collect(args.source, store, args.max_length, args.release)
    from dataset_builder.sources.local_source import listed
    from dataset_builder.sources.polite_client import PoliteClient
    from dataset_builder.sources.rnacentral import ADDRESSES, Collection
    from dataset_builder.storage.store import Store

    services = dict(pair.partition("=")[::2] for pair in args.service)
    for name, url in services.items():
        if name not in ADDRESSES or not url.startswith(("http://", "https://")):
            raise UserError(f"--service takes NAME=URL with a NAME of {', '.join(ADDRESSES)}, got {name}={url}")
    client = PoliteClient(ADDRESSES | services, args.contact or "")
    options = {"release": args.release, "query": args.query or "", "limit": args.limit, "by_export": args.by_export}
    options |= {"facts": tuple(args.facts), "ids": args.ids}
    if args.ids is not None:
        next(listed(args.ids), None)  # a file that cannot be read is told before anything is written
    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit must be at least 1, got {args.limit}")
    with closing(Store(begun)) if begun.exists() else nullcontext() as store:
        Collection(store, client, **options).check()  # a finished collection is gone on with as it was asked for
    return lambda store: Collection(store, client, args.max_length, say=say, **options).run()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
