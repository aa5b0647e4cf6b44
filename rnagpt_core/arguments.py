"""What the subcommands' arguments share."""

import argparse
import sys


def add_debug(parser: argparse.ArgumentParser, default) -> None:
    parser.add_argument("--debug", action="store_true", default=default, help="show the traceback of an error")


def keep_old_name(parser: argparse.ArgumentParser, old: str, new: str) -> None:
    """Let `old` do what the switch `new` of this parser does, with a word about it on standard error.

    >>> parser = argparse.ArgumentParser()
    >>> _ = parser.add_argument("--plan", action="store_true")
    >>> keep_old_name(parser, "--estimate", "--plan")
    >>> parser.parse_args(["--estimate"]).plan
    True
    """
    # argparse offers no public look-up of an option
    action = parser._option_string_actions[new]

    class Renamed(argparse.Action):
        def __call__(self, parser, namespace, values, option_string=None):
            print(f"{old} is called {new} now; the old name goes with the next release", file=sys.stderr)
            action.required = False  # it was given, by its old name
            action(parser, namespace, values, new)

    kind: dict = {} if action.type is None else {"type": action.type}
    parser.add_argument(
        old,
        action=Renamed,
        nargs=action.nargs,
        choices=action.choices,
        dest=action.dest,
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
        **kind,
    )
