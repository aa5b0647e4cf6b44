"""Files and folders that are there whole or not at all, and a folder that one process works in at a time."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rnagpt_core.errors import UserError


@contextmanager
def new_file(path: str | Path, mode: str = "w", sync: bool = True) -> Iterator[IO]:
    """An open file beside `path` that takes its place when the block ends, and goes when the block fails.

    Text is UTF-8 with line feeds. Folders above it are made; with `sync` the content is on disk before the rename.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    encoding, newline = (None, None) if "b" in mode else ("utf-8", "\n")
    try:
        with open(part, mode, encoding=encoding, newline=newline) as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def replace_text(path: str | Path, text: str) -> Path:
    """Write a whole text or none of it, and return its path."""
    with new_file(path) as file:
        file.write(text)
    return Path(path)


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """An empty folder beside `path` that takes its place when the block ends, and goes when the block fails.

    A folder that is there already is kept until then; where another process put one there meanwhile, its stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part, old = (path.with_name(f".{path.name}.{os.getpid()}.{kind}") for kind in ("tmp", "old"))
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    before = path.exists()
    try:
        yield part
        if before:
            path.rename(old)
        try:
            part.rename(path)
        except OSError:
            if before or not path.is_dir():
                raise
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def only_one(folder: Path, instead: str) -> Iterator[None]:
    """Hold FOLDER/.lock while working: two runs in one folder would undo each other's work. `instead` says what a
    second one may be given.

    Raises:
        UserError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        hold(lock, f"another run is working in {folder}: wait for it, or give {instead}")
        yield


def hold(file: IO, taken: str) -> None:
    """Hold an open file until it is closed; UserError, with the sentence `taken`, when another process holds it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(taken) from None
