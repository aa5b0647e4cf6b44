"""One commit to a repository of the Hub, then a tag: a release is there whole or not at all.

    target = look("model", "owner/name")                     # what is there; refuses what must not be written over
    add_changelog(folder, target, "first release")
    publish(folder, target)

Files that an interrupted upload has sent are not sent again: the Hub knows them by their content.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from rnagpt import __version__
from rnagpt_core.errors import UserError

# every card of ours carries one of these tags: by it a repository of ours is told from a stranger's
OURS = {"model": "rna-gpt", "dataset": "rna-qa", "space": "rna-gpt"}
TAG = re.compile(r"[A-Za-z0-9](?:[\w.-]*\w)?", re.ASCII)


@dataclass(frozen=True)
class Target:
    """Where a release goes: `head` is the commit it is made on (None: there is no repository yet); `changed` says that
    somebody has edited the repository since its last release."""

    kind: str
    repo_id: str
    tag: str
    private: bool
    head: str | None = None
    changelog: str = ""
    tags: tuple[str, ...] = ()
    changed: bool = False

    @property
    def page(self) -> str:
        from huggingface_hub import constants

        places = {"model": "", "dataset": "datasets/", "space": "spaces/"}
        return f"{constants.ENDPOINT}/{places[self.kind]}{self.repo_id}"


def check_names(repo_id: str, tag: str | None) -> None:
    """UserError for what can be no repository's or tag's name, or a tag that would be taken for a branch: found out
    after the commit, it is too late."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo_id)
        _, _ = repo_id.encode("ascii").split(b"/")
    except (HFValidationError, ValueError):
        raise UserError(f"--repo takes OWNER/NAME, letters, digits, '-', '_' and '.', got {repo_id!r}") from None
    if tag is None:
        return
    if not TAG.fullmatch(tag) or ".." in tag or tag.endswith(".lock") or tag == "main" or len(tag) > 64:
        raise UserError(f"--tag takes a name such as v2 or paper-1.0, and not 'main', got {tag!r}")


def look(kind: str, repo_id: str, tag: str | None = None, private: bool = True) -> Target:
    """What the Hub has under a name, and whether this user may write there.

    tag: of the release; by default the next of v1, v2, ...

    Raises:
        UserError: no or a wrong token, another owner's name, a repository that is not of ours, a tag that exists, a
            name that can be no repository's or tag's.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    check_names(repo_id, tag)
    api = HfApi()
    with refusals(repo_id):
        who = api.whoami()
        if ((who.get("auth") or {}).get("accessToken") or {}).get("role") == "read":
            raise UserError("this token may only read: make one with the role 'write', then `hf auth login` with it")
        owners = {who["name"], *(org["name"] for org in who.get("orgs", []))}
        owner = repo_id.split("/")[0]
        if owner not in owners:
            wanted = f"give --repo {who['name']}/NAME, or log in as a member (`hf auth login`)"
            raise UserError(f"the token is {who['name']}'s, who cannot write under {owner!r}: {wanted}")
        try:
            info: Any = api.repo_info(repo_id, repo_type=kind)
        except RepositoryNotFoundError:
            return Target(kind, repo_id, tag or "v1", private)
        refs = api.list_repo_refs(repo_id, repo_type=kind)
        tags = tuple(ref.name for ref in refs.tags)
        files = [sibling.rfilename for sibling in info.siblings or [] if sibling.rfilename != ".gitattributes"]
        card_tags = set((info.card_data or {}).get("tags") or [])
        if files and OURS[kind] not in card_tags:
            wanted = f"no release of this command (its card lacks the tag {OURS[kind]!r}): give another --repo"
            raise UserError(f"the name is taken: {repo_id} exists and is {wanted}")
        if tag is not None and tag in tags:
            raise UserError(f"{repo_id} has the tag {tag} already (of {', '.join(sorted(tags))}): give another --tag")
        if tag in [ref.name for ref in refs.branches]:
            raise UserError(f"{repo_id} has a branch {tag}, and a tag of its name would be ambiguous: another --tag")
        changelog = ""
        if "CHANGELOG.md" in files:
            path = api.hf_hub_download(repo_id, "CHANGELOG.md", repo_type=kind, revision=info.sha)
            changelog = Path(path).read_text(encoding="utf-8")
    changed = bool(tags) and info.sha not in {ref.target_commit for ref in refs.tags}
    return Target(kind, repo_id, tag or next_tag(tags), bool(info.private), info.sha, changelog, tags, changed)


def next_tag(tags: tuple[str, ...]) -> str:
    """v1, or one more than the highest.

    >>> next_tag(()), next_tag(("v1", "v9", "v10", "paper"))
    ('v1', 'v11')
    """
    numbers = [int(tag[1:]) for tag in tags if re.fullmatch(r"v\d+", tag)]
    return f"v{max(numbers, default=0) + 1}"


def add_changelog(folder: Path, target: Target, message: str) -> None:
    """Write CHANGELOG.md: this release above what the repository's own says."""
    title = "# Changelog\n"
    changes = f"- {' '.join(message.split())}\n- RNA-GPT {__version__}\n"
    entry = f"\n## {target.tag}, {date.today().isoformat()}\n\n{changes}"
    # a release whose tag could not be set is made again under the same tag
    same = rf"\n## {re.escape(target.tag)}, .*?(?=\n## |\Z)"
    older = re.sub(same, "", target.changelog.removeprefix(title), flags=re.DOTALL)
    (folder / "CHANGELOG.md").write_text(title + entry + older, encoding="utf-8")


def publish(folder: Path, target: Target, message: str) -> str:
    """Create the repository where it is missing, put the folder there in one commit, tag it. -> the commit's id.

    What an earlier release had and this one has not is deleted in the same commit.

    Raises:
        UserError: somebody else has written to the repository since `look`, or the Hub refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    where: dict[str, Any] = {"repo_id": target.repo_id, "repo_type": target.kind}
    with refusals(target.repo_id):
        if target.head is None:
            sdk = "gradio" if target.kind == "space" else None
            api.create_repo(**where, private=target.private, exist_ok=True, space_sdk=sdk)
        done = api.upload_folder(
            **where,
            folder_path=folder,
            commit_message=f"Release {target.tag}: {message}"[:200],
            parent_commit=target.head,
            delete_patterns=["*"] if target.head is not None else None,
        )
        api.create_tag(**where, tag=target.tag, revision=done.oid, tag_message=message)
    return done.oid


@contextmanager
def refusals(repo_id: str) -> Iterator[None]:
    """What the Hub refuses, as one sentence that says what to do."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    try:
        yield
    except LocalTokenNotFoundError:
        raise UserError("the Hub needs a token that may write: run `hf auth login`, or set HF_TOKEN") from None
    except HfHubHTTPError as error:
        status = int(getattr(error.response, "status_code", 0))
        sentences = {
            401: "the Hub does not know this token: run `hf auth login`, or set HF_TOKEN to a token that may write",
            403: f"the Hub does not let this token write to {repo_id}: use a token with the role 'write'",
            409: f"{repo_id} or its tag was made by somebody else meanwhile: run the command again",
            412: f"somebody else has written to {repo_id} meanwhile: look at it, then run the command again",
        }
        reason = error.server_message or str(error).splitlines()[0]
        otherwise = f"the Hub refused ({status}: {reason}): run the same command again; what was sent is kept"
        raise UserError(sentences.get(status, otherwise)) from None
