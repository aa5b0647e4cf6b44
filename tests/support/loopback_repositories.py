"""Repositories as the loopback Hub keeps them, and as its answers describe them (see loopback_hub.py)."""

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

import yaml


class Refused(Exception):
    """An answer that is an error: status, message and, where the client reads one, the Hub's error code."""

    def __init__(self, status: int, message: str, code: str | None = None, **content):
        super().__init__(message)
        self.status, self.code, self.content = status, code, content


@dataclass(frozen=True)
class File:
    """A file of a commit; `sha256` is set for LFS files, whose content lies on disk, `content` for the others."""

    size: int
    oid: str  # git's id of the blob; for LFS files, of its pointer
    content: bytes = b""
    sha256: str | None = None


@dataclass(frozen=True)
class Commit:
    id: str
    title: str
    message: str
    date: str
    files: dict[str, File]
    parent: "Commit | None" = None


@dataclass
class Repo:
    kind: str  # model, dataset or space
    id: str
    private: bool
    branches: dict[str, Commit] = field(default_factory=dict)
    tags: dict[str, Commit] = field(default_factory=dict)
    created: str = field(default_factory=lambda: now())

    def at(self, revision: str) -> Commit:
        """Commit of a branch, a tag or a commit id."""
        revision = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        for named in (self.branches, self.tags):
            if revision in named:
                return named[revision]
        for head in [*self.branches.values(), *self.tags.values()]:
            for commit in history(head):
                if commit.id == revision:
                    return commit
        raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def history(commit: Commit | None):
    """The commit, its parent, and so on."""
    while commit is not None:
        yield commit
        commit = commit.parent


def new_commit(files: dict[str, File], title: str, message: str, parent: Commit | None) -> Commit:
    return Commit(secrets.token_hex(20), title, message, now(), dict(sorted(files.items())), parent)


def blob_id(content: bytes) -> str:
    """Git's id of a blob.

    >>> blob_id(b"")
    'e69de29bb2d1d6434b8b29ae775ad8c2e48c5391'
    """
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def regular(content: bytes) -> File:
    return File(len(content), blob_id(content), content)


def lfs(sha256: str, size: int) -> File:
    file = File(size, "", sha256=sha256)
    return File(size, blob_id(pointer(file)), sha256=sha256)


def pointer(file: File) -> bytes:
    """What git itself stores for an LFS file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{file.sha256}\nsize {file.size}\n".encode()


def file_row(path: str, file: File, commit: Commit) -> dict:
    row = {"type": "file", "path": path, "oid": file.oid, "size": file.size, "lastCommit": commit_row(commit)}
    if file.sha256:
        row["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": len(pointer(file))}
    return row


def folder_row(path: str, commit: Commit) -> dict:
    oid = hashlib.sha1(f"{commit.id}/{path}".encode()).hexdigest()
    return {"type": "directory", "path": path, "oid": oid, "size": 0, "lastCommit": commit_row(commit)}


def commit_row(commit: Commit) -> dict:
    return {"id": commit.id, "title": commit.title, "date": commit.date}


def card_data(readme: bytes) -> dict | None:
    """The YAML between the first two lines `---` of a README."""
    match = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", readme.decode(errors="replace"), flags=re.DOTALL)
    return yaml.safe_load(match[1]) if match else None


def page_of(url: str, kind: str, repo_id: str) -> str:
    return f"{url}/{'' if kind == 'model' else kind + 's/'}{quote(repo_id)}"
