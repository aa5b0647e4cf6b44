"""The `rnagpt` command: reads the subcommand's name, imports that one module, runs it, and says what went wrong.

    rnagpt quickstart
    rnagpt chat --demo --fasta rna.fa

A subcommand is a module with `add_arguments(parser)` and `run(args) -> int`, its docstring the long help. The module
must be cheap to import (torch inside `run`), so that `rnagpt train --help` answers at once.
Exit codes: 0 done; 2 the user's mistake; 1 trouble with the machine or a bug; 130 interrupted.
"""

import argparse
import logging
import sys
from importlib import import_module

from rnagpt import __version__
from rnagpt_core.arguments import add_debug
from rnagpt_core.errors import USER_MISTAKE, explained

# name -> (module, one line of help)
COMMANDS = {
    "quickstart": ("rnagpt.quickstart", "train a small RNA-GPT here, evaluate it, ask it a question"),
    "build-checkpoint": (
        "rnagpt.checkpoints.build_checkpoint",
        "join RNA-FM and a language model into one untrained checkpoint",
    ),
    "train": ("train_sft", "train one stage from a recipe"),
    "build-dataset": ("dataset_builder.building.build_command", "make RNA-QA from RNAs and their literature"),
    "evaluate": ("rnagpt.evaluation.evaluate_command", "score a run's stored answers, beside their controls"),
    "chat": ("rnagpt.chat.chat_command", "ask questions about an RNA"),
    "serve": ("rnagpt.serving.serve_command", "answer over HTTP, as OpenAI's API does"),
    "export-llm": (
        "rnagpt.serving.export_llm",
        "write the language model alone, for vLLM, and a client that reads RNAs",
    ),
    "release": ("rnagpt.release.release_command", "publish a model, a dataset or the metric to the Hugging Face Hub"),
}


def main(argv: list[str] | None = None) -> int:
    """Arguments (default: the command line's) -> exit code."""
    argv = sys.argv[1:] if argv is None else argv
    # PEFT imports bitsandbytes where it is installed, which then complains of a kernel that nothing here asks for
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    return explained(lambda: dispatch(argv), debug="--debug" in argv)


def dispatch(argv: list[str]) -> int:
    """Parse, then run the subcommand; without one, print the help."""
    # before the subcommand stand only switches, so the first word is its name
    chosen = next((word for word in argv if not word.startswith("-")), None)
    parser, chosen_parser = build_parser(chosen)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        # the subcommand's own usage, not the list of commands
        (chosen_parser or parser).error(f"unknown argument: {' '.join(unknown)} (see --help)")
    if args.command is None:
        parser.print_help()
        return USER_MISTAKE
    return import_module(COMMANDS[args.command][0]).run(args)


def build_parser(chosen: str | None) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser | None]:
    """The parser with every subcommand's name, and that of the chosen one, which alone is imported."""
    parser = argparse.ArgumentParser(
        prog="rnagpt",
        description="A chat model that reads an RNA: train it, evaluate it, talk to it.",
        epilog="`rnagpt COMMAND --help` says what a command reads and writes.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"rnagpt {__version__}")
    add_debug(parser, default=False)
    chosen_parser = None
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, (module_name, line) in COMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=line, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )
        if name == chosen:
            chosen_parser = subparser
            module = import_module(module_name)
            subparser.description = module.__doc__
            # left alone when absent, or it would undo a --debug given before the subcommand
            add_debug(subparser, default=argparse.SUPPRESS)
            module.add_arguments(subparser)
    return parser, chosen_parser
