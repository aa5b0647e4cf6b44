"""JSON lines that survive a kill: every row is on disk as soon as it is made, and a half-written last one is cut off.

with JsonLines("run/scores.jsonl", "a measure") as file:
    done = {row["id"] for row in file.rows()}
    file.write({"id": 7})
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rnagpt_core.errors import UserError
from rnagpt_core.files import hold


def read_json_lines(path: str | Path, what: str, parse: Callable[[dict], Any] = lambda row: row) -> Iterator[Any]:
    """`parse(row)` of every whole line; a last line without its line feed was cut off by a crash and is left out.

    Args:
        what: a line is, with its article, for the error: "an answer".

    Raises:
        UserError: a line is no JSON object, or `parse` refuses it (ValueError, KeyError, TypeError); names the line.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise TypeError(f"expected a JSON object, got {type(row).__name__}")
                yield parse(row)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                reason = f"it lacks {error}" if isinstance(error, KeyError) else error
                raise UserError(f"line {number} of {path} is not {what}: {reason}") from None


class JsonLines:
    """Appends rows to a file that one process writes at a time; opened again, it goes on after the last whole line."""

    def __init__(self, path: str | Path, what: str = "a row", taken: str | None = None):
        """`taken`: the sentence of the UserError where another process holds the file; None lets it be shared."""
        self.path, self.what = Path(path), what
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "ab+")
        try:
            if taken is not None:
                hold(self._file, taken)
            self._cut_torn_line()
        except BaseException:
            self._file.close()
            raise

    def _cut_torn_line(self) -> None:
        end = self._file.seek(0, 2)
        while end:
            start = max(0, end - 65536)
            self._file.seek(start)
            if (found := self._file.read(end - start).rfind(b"\n")) >= 0:
                self._file.truncate(start + found + 1)
                return
            end = start
        self._file.truncate(0)

    def rows(self, parse: Callable[[dict], Any] = lambda row: row) -> Iterator[Any]:
        """What the file holds; see `read_json_lines`."""
        return read_json_lines(self.path, self.what, parse)

    def write(self, row: dict) -> None:
        """Append a row and flush it. ValueError for NaN and infinities, which are no JSON."""
        self._file.write((json.dumps(row, allow_nan=False) + "\n").encode())
        self._file.flush()

    def clear(self) -> None:
        """Begin anew."""
        self._file.truncate(0)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "JsonLines":
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()
