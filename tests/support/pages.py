"""The documents (README.md, CONTRIBUTING.md, docs/) as a reader takes them: fenced blocks, commands, inline code."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from checkout import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```(\w*).*?\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
MARK = re.compile(r"\b(needs|takes) ([^;,]*)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: `line` is that of its fence."""

    page: str
    line: int
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command line as the page has it, its comment apart; `shown` is the output that a console block gives it."""

    page: str
    line: int
    text: str
    comment: str = ""
    shown: str | None = None

    @property
    def needs(self) -> str:
        """What the page says that it needs or takes; "" where it says nothing."""
        found = MARK.search(self.comment)
        return found[2].strip() if found else ""

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)


def blocks(language: str, page: Path | None = None) -> list[Block]:
    """Those of one page, or of all."""
    found = []
    for path in [page] if page else PAGES:
        text = path.read_text()
        for match in FENCED.finditer(text):
            if match[1] == language:
                found.append(Block(path.name, text[: match.start()].count("\n") + 1, language, match[2]))
    return found


def commands() -> list[Command]:
    """Of every bash and console block, one a line."""
    found = []
    for block in blocks("bash"):
        for number, line in enumerate(block.text.splitlines(), start=block.line + 1):
            text, _, comment = line.partition(" #")
            assert not line.endswith("\\"), f"{block.page}:{number}: one line, or teach this function to join them"
            if text.strip() and not line.startswith("#"):
                found.append(Command(block.page, number, text.strip(), comment.strip()))
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            line, _, shown = part.partition("\n")
            found.append(Command(block.page, block.line, line.strip(), shown=shown))
    return found


def inline_code(page: Path) -> list[str]:
    """What stands between backticks outside of blocks: "see `make test`" -> ["make test"]."""
    return re.findall(r"`([^`\n]+)`", FENCED.sub("", page.read_text()))
