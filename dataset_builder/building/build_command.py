"""Make an RNA-QA dataset from RNAs and the literature about them: annotations and questions, each with its papers.

    rnagpt build-dataset FOLDER --output runs/rna-qa --plan          # calls, tokens, price; nothing is sent
    rnagpt build-dataset FOLDER --output runs/rna-qa --llm gpt-4o-mini --budget-usd 5
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
import dataclasses
import os
import sqlite3
import sys
from pathlib import Path

from rnagpt_core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="a folder of RNAs and papers, or rnacentral")
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="where everything is written")
    parser.add_argument("--plan", action="store_true", help="print calls, tokens, price and hours; send nothing")
    model = parser.add_argument_group("language model")
    model.add_argument(
        "--llm",
        default="gpt-4o-mini",
        help="a model's name at --endpoint (default: %(default)s)",
    )
    model.add_argument(
        "--endpoint",
        metavar="URL",
        help="an OpenAI-compatible base URL, such as a vLLM or Ollama server's (default: OpenAI's)",
    )
    model.add_argument(
        "--key-variable",
        default="OPENAI_API_KEY",
        metavar="NAME",
        help="environment variable with the API key (default: %(default)s)",
    )
    model.add_argument("--batch-api", action="store_true", help="use the endpoint's Batch API: half the price, slower")
    model.add_argument(
        "--batch-seconds",
        type=float,
        default=30,
        metavar="S",
        help="between looks at the batches (default: %(default)s)",
    )
    model.add_argument("--budget-usd", type=float, metavar="USD", help="stop before this is passed")
    model.add_argument("--budget-tokens", type=int, metavar="N", help="stop before this is passed")
    model.add_argument(
        "--price",
        type=float,
        nargs=2,
        metavar=("PROMPT", "ANSWER"),
        help="USD for a million tokens (default: 0.15 0.60)",
    )
    model.add_argument(
        "--concurrency", type=int, default=16, metavar="N", help="calls at a time (default: %(default)s)"
    )
    model.add_argument(
        "--timeout", type=float, default=120, metavar="S", help="seconds for a call (default: %(default)s)"
    )
    model.add_argument("--prompt-tokens", type=int, metavar="N", help="papers of one call, in tokens")
    model.add_argument("--answer-tokens", type=int, metavar="N", help="longest answer, in tokens")
    model.add_argument(
        "--repairs", type=int, default=2, metavar="N", help="times an answer is sent back (default: %(default)s)"
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--method",
        default="divide_and_conquer",
        metavar="LIST",
        help="divide_and_conquer, ais or both, with a comma (default: %(default)s)",
    )
    data.add_argument("--max-length", type=int, default=1024, metavar="NT", help="longest RNA (default: %(default)s)")
    data.add_argument("--cap-papers", type=int, default=500, metavar="N", help="papers per RNA (default: %(default)s)")
    data.add_argument(
        "--topics", default="rule", metavar="RULE", help="rule (one per 12 papers), coherence, or a number"
    )
    data.add_argument(
        "--held-out",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="of the RNAs, to test and as many to validation (default: %(default)s)",
    )
    data.add_argument("--drop-named", action="store_true", help="leave out questions that name the RNA")
    data.add_argument(
        "--most-of-one-answer",
        type=float,
        default=0.6,
        metavar="SHARE",
        help="of the yes-or-no questions that are published; 1 keeps all (default: %(default)s)",
    )
    data.add_argument("--release", default="", help="RNAcentral's release, recorded in every row")
    data.add_argument("--seed", type=int, default=0)
    collect = parser.add_argument_group("collection from RNAcentral")
    collect.add_argument("--contact", metavar="MAIL", help="your address, sent to the services with each request")
    collect.add_argument("--query", help="restrict the RNAs, in RNAcentral's query language: 'rna_type:\"tRNA\"'")
    collect.add_argument(
        "--ids",
        metavar="FILE",
        help="the RNAs instead of a search: RNAcentral ids with taxid, one "
        "a line, or RNAcentral's FASTA, which saves asking for sequences",
    )
    collect.add_argument("--limit", type=int, metavar="N", help="RNAs at most")
    collect.add_argument("--by-export", action="store_true", help="sequences from the export service, in one download")
    collect.add_argument(
        "--facts",
        nargs="+",
        default=[],
        metavar="NAME",
        help="what others say of the RNAs, for the configuration facts: litsumm, rfam, go (a request per RNA each)",
    )
    collect.add_argument(
        "--service",
        nargs="*",
        default=[],
        metavar="NAME=URL",
        help="another address of a service: ebi, rnacentral, export, europe_pmc",
    )
    scale = parser.add_argument_group("scale")
    scale.add_argument("--executor", default="local", choices=["local", "slurm", "ray"])
    scale.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: %(default)s)")
    scale.add_argument("--units-per-rank", type=int, default=1000, metavar="N", help=argparse.SUPPRESS)
    scale.add_argument(
        "--cluster",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="for slurm: time=08:00:00 partition=cpu; for ray: address=auto",
    )


def run(args: argparse.Namespace) -> int:
    from rnagpt_core.errors import UserError

    try:
        return run_build(args)
    except UserError as error:
        raise UserError(str(error)) from None
    except sqlite3.OperationalError as error:  # the disk is full, most often
        said = f"{args.output} cannot be written: {error}; see to it and run the same command to go on"
        raise UserError(said) from None


def run_build(args: argparse.Namespace) -> int:
    from dataset_builder.building.build import build
    from dataset_builder.literature.annotation import Limits
    from dataset_builder.llm.call_cache import Budget
    from dataset_builder.storage.settings import BuildSettings

    model, limits = model_settings(args)
    for name, value in (("prompt_tokens", args.prompt_tokens), ("answer_tokens", args.answer_tokens)):
        if value is not None:
            limits[name] = value
    if args.output.is_file():
        raise UserError(f"--output {args.output} is a file; give a folder")
    settings = BuildSettings(
        model=model,
        source=args.source if args.source == "rnacentral" else str(Path(args.source).absolute()),
        methods=tuple(part.strip() for part in args.method.split(",")),
        limits=Limits(**limits, repairs=args.repairs),
        budget=Budget(args.budget_usd, args.budget_tokens),
        seed=args.seed,
        max_length=args.max_length,
        cap_papers=args.cap_papers,
        topics=args.topics,
        held_out_share=args.held_out,
        drop_named=args.drop_named,
        most_of_one_answer=args.most_of_one_answer,
        release=args.release,
        executor=args.executor,
        workers=args.workers,
        units_per_rank=args.units_per_rank,
        cluster=dict(pair.partition("=")[::2] for pair in args.cluster),
    )
    report = build(settings, args.output, collector(args), plan_only=args.plan, say=say)
    if not args.plan:
        splits = ", ".join(f"{number} {name}" for name, number in report["splits"].items())
        questions = sum(report["kinds"].values())
        say(f"{report['annotations']} annotations, {questions} questions ({splits})")
        if not questions:
            say("no question passed the checks, so there is no config qa: try a better language model")
        config = "qa" if questions else "alignment"
        say(f'load_dataset("{args.output / "dataset"}", "{config}") reads it')
        say(f"{args.output / 'report.txt'} says what was left out and why")
    return 0


def model_settings(args: argparse.Namespace):
    """(ModelSettings, limits) of the endpoint."""
    from dataset_builder.llm.call_cache import Prices
    from dataset_builder.storage.settings import ModelSettings

    prices = Prices(*args.price) if args.price else Prices()
    url = args.endpoint or "https://api.openai.com/v1"
    if not url.startswith(("http://", "https://")):
        raise UserError(f"--endpoint must begin with http:// or https://, got {url}")
    if args.endpoint is None and not args.plan and not os.environ.get(args.key_variable):
        raise UserError(
            f"no API key in the environment variable {args.key_variable}, which {url} asks for: set it, or give "
            "--endpoint of a server without keys"
        )
    if args.batch_api and args.executor != "local":
        raise UserError("--batch-api goes with --executor local: the endpoint does the work, one machine is enough")
    model = ModelSettings("endpoint", args.llm, url, args.key_variable, args.timeout, args.concurrency, prices=prices)
    return dataclasses.replace(model, batch_api=args.batch_api, batch_seconds=args.batch_seconds), {}


def collector(args: argparse.Namespace):
    """The function that fills the library from the source, once what was asked of it is checked."""
    if args.source != "rnacentral":
        from dataset_builder.sources import local_source

        given = {"--query": args.query, "--ids": args.ids, "--limit": args.limit, "--facts": args.facts or None}
        given["--by-export"] = args.by_export or None
        if wrong := [name for name, value in given.items() if value is not None]:
            raise UserError(
                f"{', '.join(wrong)} goes with rnacentral, and the folder {args.source} is read as it is: leave it out"
            )
        if not (args.output / "work" / "library.sqlite").exists():
            local_source.files_of(args.source)  # before anything is written

        return lambda library: local_source.collect(args.source, library, args.max_length, args.release)
    from dataset_builder.sources.local_source import listed
    from dataset_builder.sources.polite_client import PoliteClient
    from dataset_builder.sources.rnacentral import ADDRESSES, Collection
    from dataset_builder.storage.store import Library

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
    begun = args.output / "work" / "library.sqlite"
    library = Library(begun) if begun.exists() else None
    try:
        Collection(library, client, **options).check()  # a finished collection is gone on with as it was asked for
    finally:
        if library:
            library.close()
    return lambda library: Collection(library, client, args.max_length, say=say, **options).run()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
