"""The loopback Hub, asked by huggingface_hub's own client: what works, and what is refused as on the real one.

pytest tests/model/test_hub_loopback.py
"""

import hashlib
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, HfFileSystem
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from loopback_hub import LoopbackHub
from loopback_repositories import blob_id

# urlopen would keep the proxies of whichever test called it first
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
CARD = "---\ntags: [rna]\n---\n# A model\n"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    # what `hub.environment` sets for a new process, for the client imported here
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with LoopbackHub(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def api(hub) -> HfApi:
    return HfApi(endpoint=hub.url, token=hub.token)


@pytest.fixture
def folder(tmp_path):
    """Regular files, one of them in a subfolder and one empty, and an LFS file."""
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    (folder / "config.json").write_text("{}")
    (folder / "empty.txt").write_text("")
    (folder / "sub" / "notes ü.txt").write_text("ACGU")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 5000)
    return folder


def contents(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pull(api, repo_id, to, **options) -> dict[str, bytes]:
    found = contents(to) if (path := api.snapshot_download(repo_id, local_dir=to, **options)) is None else contents(to)
    assert path == str(to)
    return {name: content for name, content in found.items() if not name.startswith(".cache")}


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
def test_a_folder_comes_back_as_it_went_up(hub, api, folder, tmp_path, kind):
    url = api.create_repo("owner/thing", repo_type=kind, **({"space_sdk": "static"} if kind == "space" else {}))
    assert (url.repo_id, url.repo_type) == ("owner/thing", kind)
    commit = api.upload_folder(repo_id="owner/thing", folder_path=folder, repo_type=kind, commit_message="First")
    assert [row for row in hub.requests if "/commit/" in row] == [f"POST /api/{kind}s/owner/thing/commit/main"]
    assert pull(api, "owner/thing", tmp_path / "back", repo_type=kind) == contents(folder)
    info = api.repo_info("owner/thing", repo_type=kind, files_metadata=True)
    assert info.sha == commit.oid and info.card_data.tags == ["rna"]
    assert sorted(api.list_repo_files("owner/thing", repo_type=kind)) == sorted(contents(folder))
    assert [c.title for c in api.list_repo_commits("owner/thing", repo_type=kind)] == ["First", "initial commit"]


def test_large_files_go_by_lfs(hub, api, folder):
    api.create_repo("owner/thing")
    api.upload_folder(repo_id="owner/thing", folder_path=folder)
    assert sum(row.startswith("PUT /lfs/") for row in hub.requests) == 1
    rows = {row.path: row for row in api.list_repo_tree("owner/thing", recursive=True) if hasattr(row, "size")}
    content = (folder / "model.safetensors").read_bytes()
    assert rows["model.safetensors"].lfs.sha256 == hashlib.sha256(content).hexdigest()
    assert rows["config.json"].lfs is None and rows["config.json"].blob_id == blob_id(b"{}")
    assert {row.path for row in api.list_repo_tree("owner/thing", "sub")} == {"sub/notes ü.txt"}
    assert {row.path for row in api.list_repo_tree("owner/thing")} >= {"sub", "config.json"}
    assert [row.path for row in api.get_paths_info("owner/thing", ["sub", "config.json", "none"])] == [
        "sub",
        "config.json",
    ]


def test_the_same_again_makes_no_second_upload(hub, api, folder):
    api.create_repo("owner/thing")
    first = api.upload_folder(repo_id="owner/thing", folder_path=folder)
    before = len(hub.requests)
    api.upload_folder(repo_id="owner/thing", folder_path=folder)
    assert not [row for row in hub.requests[before:] if row.startswith("PUT")]
    assert api.repo_info("owner/thing").sha == first.oid


def test_blob_ids_are_gits(tmp_path):
    (tmp_path / "file").write_bytes(b"ACGU\n" * 100)
    git = subprocess.run(["git", "hash-object", "file"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert blob_id(b"ACGU\n" * 100) == git.stdout.strip()


def test_revisions_tags_and_branches(api, tmp_path):
    api.create_repo("owner/thing")
    one = api.upload_file(repo_id="owner/thing", path_or_fileobj=b"one", path_in_repo="a.txt")
    api.create_tag("owner/thing", tag="v1")
    api.create_branch("owner/thing", branch="work/x")
    two = api.upload_file(repo_id="owner/thing", path_or_fileobj=b"two", path_in_repo="a.txt")
    api.upload_file(repo_id="owner/thing", path_or_fileobj=b"branch", path_in_repo="a.txt", revision="work/x")
    expected = {one.oid: "one", "v1": "one", two.oid: "two", None: "two", "main": "two", "work/x": "branch"}
    for revision, content in expected.items():
        path = api.hf_hub_download("owner/thing", "a.txt", revision=revision, cache_dir=tmp_path / "cache")
        assert open(path).read() == content
    refs = api.list_repo_refs("owner/thing")
    assert {ref.name for ref in refs.branches} == {"main", "work/x"}
    assert [(ref.name, ref.target_commit) for ref in refs.tags] == [("v1", one.oid)]
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_tag("owner/thing", tag="v1")
    api.delete_tag("owner/thing", tag="v1")
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download("owner/thing", "a.txt", revision="v1", cache_dir=tmp_path / "other")


def test_delete_and_a_stale_parent(api):
    api.create_repo("owner/thing")
    start = api.repo_info("owner/thing").sha
    names = ("a.txt", "sub/b.txt", "sub/c.txt")
    files, late = ([CommitOperationAdd(name, name.encode()) for name in names] for _ in range(2))
    api.create_commit("owner/thing", files, commit_message="Add")
    api.create_commit("owner/thing", [CommitOperationDelete("sub/", is_folder=True)], commit_message="Delete")
    assert api.list_repo_files("owner/thing") == ["a.txt"]
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit("owner/thing", late, commit_message="Late", parent_commit=start)
    api.delete_repo("owner/thing")
    assert not api.repo_exists("owner/thing")


def test_who_may_do_what(hub, api, folder):
    hub.users["hf_stranger"] = "stranger"
    api.create_repo("owner/open")
    api.create_repo("owner/closed", private=True)
    wrong, nobody, stranger = (HfApi(endpoint=hub.url, token=token) for token in ("hf_wrong", False, "hf_stranger"))
    assert api.whoami()["name"] == "owner"
    for call in (
        wrong.whoami,
        lambda: wrong.model_info("owner/open"),
        lambda: wrong.create_repo("owner/new"),
        lambda: wrong.upload_folder(repo_id="owner/open", folder_path=folder),
        lambda: nobody.create_repo("owner/new"),
    ):
        with pytest.raises(HfHubHTTPError) as caught:
            call()
        assert caught.value.response.status_code == 401
    for call in (
        lambda: stranger.create_repo("owner/new"),
        lambda: stranger.upload_folder(repo_id="owner/open", folder_path=folder),
    ):
        with pytest.raises(HfHubHTTPError) as caught:
            call()
        assert caught.value.response.status_code == 403
    assert nobody.model_info("owner/open").private is False
    for reader in (nobody, stranger):
        with pytest.raises(RepositoryNotFoundError):
            reader.model_info("owner/closed")
    assert api.model_info("owner/closed").private is True
    api.update_repo_settings("owner/closed", private=False)
    assert nobody.model_info("owner/closed").private is False


def test_unknown_repository_file_and_revision(api, tmp_path):
    api.create_repo("owner/thing")
    with pytest.raises(RepositoryNotFoundError) as caught:
        api.model_info("owner/nothing")
    assert caught.value.response.status_code == 404
    with pytest.raises(RepositoryNotFoundError):
        api.dataset_info("owner/thing")  # there is a model of that name, no dataset
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download("owner/thing", "none.txt", cache_dir=tmp_path)
    with pytest.raises(RevisionNotFoundError):
        api.model_info("owner/thing", revision="v9")


def test_an_existing_name(api):
    api.create_repo("owner/thing")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("owner/thing")
    assert api.create_repo("owner/thing", exist_ok=True).repo_id == "owner/thing"


def test_a_card_that_is_no_yaml(api, folder):
    (folder / "README.md").write_text("---\ntags: [rna\n---\n")
    api.create_repo("owner/thing")
    with pytest.raises(ValueError, match="Invalid metadata in README.md"):
        api.upload_folder(repo_id="owner/thing", folder_path=folder)


def test_an_interrupted_upload_goes_on_where_it_stopped(hub, api, folder, tmp_path):
    (folder / "other.safetensors").write_bytes(b"x" * 1000)
    api.create_repo("owner/thing")
    hub.fail("POST /api/models/owner/thing/commit/", status=400)
    with pytest.raises(BadRequestError):
        api.upload_folder(repo_id="owner/thing", folder_path=folder)
    assert api.list_repo_files("owner/thing") == []
    before = len(hub.requests)
    api.upload_folder(repo_id="owner/thing", folder_path=folder)
    assert not [row for row in hub.requests[before:] if row.startswith("PUT /lfs/")]  # they are there already
    assert pull(api, "owner/thing", tmp_path / "back") == contents(folder)


def test_a_server_error_is_tried_again_by_the_client(hub, api, folder, tmp_path):
    api.create_repo("owner/thing")
    hub.fail("PUT /lfs/", status=503)
    api.upload_folder(repo_id="owner/thing", folder_path=folder)
    assert sum(row.startswith("PUT /lfs/") for row in hub.requests) == 2
    assert pull(api, "owner/thing", tmp_path / "back") == contents(folder)


def test_content_that_is_not_what_its_name_says(hub, api):
    request = urllib.request.Request(f"{hub.url}/lfs/{'0' * 64}", data=b"something", method="PUT")
    with pytest.raises(urllib.error.HTTPError, match="400"):
        DIRECT.open(request)


def test_ranges(hub, api):
    """A part of a file, as a resumed download and Parquet's reader ask for it."""
    api.create_repo("owner/thing")
    api.upload_file(repo_id="owner/thing", path_or_fileobj=b"0123456789", path_in_repo="a.bin")
    url = f"{hub.url}/owner/thing/resolve/main/a.bin"
    for asked, expected in (("bytes=2-4", b"234"), ("bytes=7-", b"789"), ("bytes=8-99", b"89")):
        with DIRECT.open(urllib.request.Request(url, headers={"Range": asked})) as answer:
            assert (answer.status, answer.read()) == (206, expected)
    with pytest.raises(urllib.error.HTTPError, match="416"):
        DIRECT.open(urllib.request.Request(url, headers={"Range": "bytes=10-"}))
    with HfFileSystem(endpoint=hub.url, token=hub.token).open("owner/thing/a.bin", "rb") as file:
        file.seek(6)
        assert file.read(2) == b"67"


def test_it_listens_on_this_machine_alone(hub):
    assert hub.server.server_address[0] == "127.0.0.1"


def test_by_hand(tmp_path):
    path = Path(__file__).parents[1] / "support" / "loopback_hub.py"
    with subprocess.Popen([sys.executable, path, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        process.terminate()
    assert line.startswith("export HF_ENDPOINT=http://127.0.0.1:")
