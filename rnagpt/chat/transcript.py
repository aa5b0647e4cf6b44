"""A conversation as a file: Markdown to read, JSON for programs."""

import json
import re
from collections.abc import Sequence

from rnagpt_core.safe_text import one_line, printable
from rnagpt_core.sequences import Record

NOTICE = "Answers of a language model: check them before you rely on them. Not medical advice."


def exported(
    rnas: Sequence[Record],
    messages: Sequence[dict],
    suffix: str,
    earlier: Sequence[tuple[Sequence[Record], Sequence[dict]]] = (),
) -> str:
    """The text of the file; `suffix` ".json" gives JSON, any other Markdown.

    Args:
        earlier: RNAs and turns of the same session's conversations before this one, in their order.
    """
    if suffix.lower() == ".json":
        found = as_json(rnas, messages)
        if earlier:
            found["earlier"] = [as_json(*one) for one in earlier]
        return json.dumps({**found, "notice": NOTICE}, ensure_ascii=False, indent=1) + "\n"
    lines = ["# Conversation with RNA-GPT", ""]
    for one in [*earlier, (rnas, messages)]:
        lines += as_markdown(*one)
    return "\n".join([*lines, f"_{NOTICE}_", ""])


def as_json(rnas: Sequence[Record], messages: Sequence[dict]) -> dict:
    """RNAs and turns as JSON has them."""
    return {
        "rnas": [
            {"rna_id": rna.rna_id, "description": rna.description, "length_nt": len(rna), "sequence": rna.sequence}
            for rna in rnas
        ],
        "messages": [{"role": turn["role"], "content": printable(turn["content"])} for turn in messages],
    }


def as_markdown(rnas: Sequence[Record], messages: Sequence[dict]) -> list[str]:
    """RNAs and turns as lines of Markdown."""
    lines = []
    for rna in rnas:
        lines += [f"**{as_text(f'{rna.rna_id} {rna.description}'.strip())}**, {len(rna):,} nt", ""]
        lines += ["```", *(rna.sequence[i : i + 80] for i in range(0, len(rna), 80)), "```", ""]
    for turn in messages:
        quoted = "\n> ".join(as_text(line) for line in printable(turn["content"]).splitlines())
        lines += [f"**{'Question' if turn['role'] == 'user' else 'Answer'}**", "", f"> {quoted}", ""]
    return lines


def as_text(line: str) -> str:
    r"""A line that Markdown shows as it is: no markup, no HTML, no links.

    >>> as_text("<b>*a*</b> [x](y)")
    '\\<b\\>\\*a\\*\\</b\\> \\[x\\](y)'
    """
    return re.sub(r"([\\`*_\[\]<>#|~!$&])", r"\\\1", one_line(line))
