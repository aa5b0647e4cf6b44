"""Text from elsewhere (a model's answer, a FASTA header) made safe to print on a terminal."""

import re

# Controls (ESC among them) save line break and tab; marks that turn the writing direction; halves of characters.
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Text without what a terminal would obey.

    >>> printable("a\x1b[31mb\r\n")
    'a[31mb\n'
    """
    return UNSAFE.sub("", text)


def one_line(text: object) -> str:
    r"""Printable text, or an error's message, on one line, without tabs.

    >>> one_line("a\tb\n c")
    'a b c'
    """
    return " ".join(printable(str(text)).split())
