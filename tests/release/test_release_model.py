"""`rnagpt release model` against a Hub on loopback: what goes up comes back and answers; what is wrong does not go up.

pytest tests/release/test_release_model.py
"""

import json
import re
import shutil

import pytest
import torch
import yaml
from huggingface_hub import HfApi
from loopback_hub import LoopbackHub
from test_auto_classes import clean
from test_build_checkpoint_parts import adapted, ask, sources  # noqa: F401  (sources is a fixture)

from rnagpt.checkpoints import checkpoint, model_card
from rnagpt.checkpoints.forms import assets
from rnagpt.cli import main
from rnagpt.release import upload
from rnagpt_core.errors import UserError

NAMES = ["--llm", "tiny-llm", "--encoder", "tiny-encoder"]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with LoopbackHub(tmp_path / "hub") as hub:
        hub.connect(monkeypatch, tmp_path)
        yield hub


@pytest.fixture
def api(hub) -> HfApi:
    return HfApi(endpoint=hub.url, token=hub.token)


def release(*arguments) -> int:
    return main(["release", "model", *map(str, arguments)])


# --- the whole path

TWO_REVISIONS = """
out, first, second = sys.argv[1:]
torch.save({name: logits_of("owner/tiny", revision=name) for name in (first, second)}, out)
"""


@torch.no_grad()
def test_a_release_comes_back_by_repo_id_and_revision(hub, api, tiny_model, tiny_checkpoint, tmp_path, capsys):
    arguments = [tiny_checkpoint, *NAMES, "--repo", "owner/tiny"]
    assert release(*arguments, "--dry-run") == 0
    assert "dry run: nothing was sent" in capsys.readouterr().out
    assert not any(request.startswith(("POST", "PUT")) for request in hub.requests)
    assert not hub.repos

    hub.fail("POST /api/models/owner/tiny/commit/", status=400)  # everything was sent; the commit is not made
    assert release(*arguments) == 2
    assert "run the same command again" in capsys.readouterr().err
    before = len(hub.requests)
    assert release(*arguments, "--message", "Says hello.", "--cost-usd", "12.5", "--hardware", "one abacus") == 0
    assert "same answer" in capsys.readouterr().out
    sent = hub.requests[before:]
    assert not [request for request in sent if request.startswith("PUT /lfs/")]  # the weights were there already
    assert sum("/commit/" in request for request in sent) == 1

    info = api.model_info("owner/tiny")
    assert info.private and [ref.name for ref in api.list_repo_refs("owner/tiny").tags] == ["v1"]
    names = set(api.list_repo_files("owner/tiny"))
    assert {"README.md", "CHANGELOG.md", "config.json", "model.safetensors", "modeling_rnagpt.py"} <= names
    card = open(api.hf_hub_download("owner/tiny", "README.md", cache_dir=tmp_path / "c")).read()
    assert 'name = "owner/tiny"' in card and "It cost 12.50 USD" in card and "one abacus" in card
    assert "treat its answers as untested" in card  # no evaluation was found, and the card says so
    changes = open(api.hf_hub_download("owner/tiny", "CHANGELOG.md", cache_dir=tmp_path / "c")).read()
    assert "## v1, 20" in changes and "Says hello." in changes

    # a second release in place of the first: what it has not goes, the tag and the changelog tell both
    staged = tmp_path / "second"
    shutil.copytree(tiny_checkpoint, staged)
    model, processor = tiny_model
    (staged / "README.md").write_text("---\ntags: [rna-gpt]\n---\n# Another\n")
    shutil.rmtree(staged / "additional_chat_templates")
    target = upload.look("model", "owner/tiny")
    upload.add_changelog(staged, target, "Less templates.")
    upload.publish(staged, target, "Less templates.")
    assert not any("additional_chat_templates" in name for name in api.list_repo_files("owner/tiny"))
    changes = open(api.hf_hub_download("owner/tiny", "CHANGELOG.md", cache_dir=tmp_path / "c")).read()
    assert changes.index("## v2") < changes.index("Less templates.") < changes.index("## v1")

    clean(
        TWO_REVISIONS,
        str(tmp_path / "out.pt"),
        "v1",
        "v2",
        folder=tmp_path / "empty",
        environment=hub.environment(tmp_path / "stranger"),
    )
    for logits in torch.load(tmp_path / "out.pt", weights_only=True).values():
        assert torch.equal(logits, model(**ask(processor)).logits)


@pytest.mark.slow
@torch.no_grad()
def test_projector_and_adapter_alone(hub, api, tiny_model, tiny_checkpoint, sources, tmp_path, capsys):  # noqa: F811
    """Both fetch the rest from the Hub; a projector beside another LLM than its own is refused."""
    model, processor = tiny_model
    for part, folder in sources.items():
        api.create_repo(f"owner/{part}")
        commit = api.upload_folder(repo_id=f"owner/{part}", folder_path=folder).oid
        if part == "llm":
            right = commit
    api.upload_file(
        repo_id="owner/llm", path_or_fileobj=other_weights(sources["llm"], tmp_path), path_in_repo="model.safetensors"
    )
    arguments = [tiny_checkpoint, "--form", "projector", "--encoder", "owner/encoder", "--repo", "owner/projector"]
    assert release(*arguments, "--llm", "owner/llm") == 2
    assert "computes other logits than the checkpoint" in capsys.readouterr().err
    assert not api.repo_exists("owner/projector")
    assert release(*arguments, "--llm", f"owner/llm@{right}") == 0
    files = api.list_repo_files("owner/projector")
    path = api.hf_hub_download("owner/projector", "model.safetensors", cache_dir=tmp_path / "c")
    assert "config.json" in files and len(open(path, "rb").read()) < 10_000
    assert "weights_from" in open(api.hf_hub_download("owner/projector", "README.md", cache_dir=tmp_path / "c")).read()

    checkpoint.save(adapted(model), processor, tmp_path / "adapter", base="owner/projector")
    assert release(tmp_path / "adapter", *NAMES, "--repo", "owner/adapter") == 0
    assert "adapter_model.safetensors" in api.list_repo_files("owner/adapter")
    assert release(tmp_path / "adapter", *NAMES, "--form", "whole", "--repo", "owner/other") == 2
    assert "goes up as that" in capsys.readouterr().err


def other_weights(folder: str, tmp_path) -> str:
    from safetensors.torch import load_file, save_file

    state = {name: tensor * 1.5 for name, tensor in load_file(f"{folder}/model.safetensors").items()}
    save_file(state, tmp_path / "other.safetensors", metadata={"format": "pt"})
    return str(tmp_path / "other.safetensors")


def test_code_that_needs_the_package_is_found_by_the_reload(tiny_model, tiny_checkpoint, tmp_path):
    from rnagpt.release import model

    folder = tmp_path / "staged"
    shutil.copytree(tiny_checkpoint, folder)
    code = folder / "modeling_rnagpt.py"
    code.write_text(code.read_text() + "\nimport rnagpt\n")
    with pytest.raises(UserError, match="does not load where only transformers is installed.*rnagpt"):
        model.reload_and_compare(folder, torch.zeros(1, 2, 3), "", torch.float32)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["staged"]


# --- what is refused before anything is sent


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--repo", "name"], "takes OWNER/NAME"),
        (["--repo", "owner/a--b"], "takes OWNER/NAME"),
        (["--repo", "owner/name", "--demo"], "one checkpoint"),
        (["--repo", "owner/name"], "does not tell which llm and encoder"),
        (["--repo", "owner/name", *NAMES, "--form", "projector"], "is no Hub id"),
        (["--repo", "owner/name", *NAMES, "--form", "adapter"], "--base OWNER/NAME"),
        (["--repo", "owner/name", *NAMES, "--licence", "none"], "takes a file"),
        (["--repo", "owner/name", *NAMES, "--run", "none"], "is no folder"),
        (["--repo", "owner/name.git", *NAMES], "takes OWNER/NAME"),
        (["--repo", "owner/name-", *NAMES], "takes OWNER/NAME"),
        (["--repo", "owner/na\u00efve", *NAMES], "takes OWNER/NAME"),
        (["--repo", "owner/name", *NAMES, "--tag", "v 2"], "--tag takes a name such as v2"),
        (["--repo", "owner/name", *NAMES, "--tag", "v1/../main"], "--tag takes a name such as v2"),
        (["--repo", "owner/name", *NAMES, "--tag", "main"], "--tag takes a name such as v2"),
        (["--repo", "owner/name", *NAMES, "--cost-usd", "-5"], "--cost-usd takes a number of at least 0"),
        (["--repo", "owner/name", *NAMES, "--co2-grams", "nan"], "--co2-grams takes a number of at least 0"),
        (["--repo", "owner/name", "--llm", "meta-llama/Meta-Llama-3-8B", "--encoder", "x"], "Llama-3-name"),
        (["--repo", "owner/Llama-3-rna", "--llm", "meta-llama/Meta-Llama-3-8B", "--encoder", "x"], "--licence FILE"),
    ],
)
def test_mistakes_are_one_sentence(tiny_checkpoint, capsys, arguments, says):
    assert release(tiny_checkpoint, *arguments, "--dry-run") == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_a_hub_id_is_no_checkpoint_to_release(capsys):
    assert release("owner/name", *NAMES, "--repo", "owner/other", "--dry-run") == 2
    assert "there is no folder owner/name" in capsys.readouterr().err


# --- what the Hub has to say


@pytest.fixture
def staged(tmp_path):
    folder = tmp_path / "staged"
    folder.mkdir()
    (folder / "README.md").write_text("---\ntags: [rna-gpt]\n---\n# A model\n")
    (folder / "model.safetensors").write_bytes(b"weights" * 1000)
    return folder


def test_tokens_and_names(hub, api, staged, monkeypatch):
    with pytest.raises(UserError, match="the token is owner's, who cannot write under 'other'"):
        upload.look("model", "other/name")
    api.create_repo("owner/taken")
    api.upload_file(repo_id="owner/taken", path_or_fileobj=b"mine", path_in_repo="notes.txt")
    with pytest.raises(UserError, match="the name is taken: owner/taken exists"):
        upload.look("model", "owner/taken")
    api.create_repo("owner/ours")
    api.create_branch("owner/ours", branch="v7")
    with pytest.raises(UserError, match="has a branch v7"):
        upload.look("model", "owner/ours", tag="v7")
    hub.role = "read"
    with pytest.raises(UserError, match="this token may only read"):
        upload.look("model", "owner/name")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match="does not know this token"):
        upload.look("model", "owner/name")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="needs a token|does not know this token"):
        upload.look("model", "owner/name")


def test_an_existing_tag_and_a_commit_in_between(hub, api, staged):
    target = upload.look("model", "owner/name", private=False)
    upload.publish(staged, target, "First")
    assert api.model_info("owner/name").private is False
    with pytest.raises(UserError, match="has the tag v1 already"):
        upload.look("model", "owner/name", tag="v1")
    target = upload.look("model", "owner/name")
    assert target.tag == "v2"
    api.upload_file(repo_id="owner/name", path_or_fileobj=b"x", path_in_repo="a.txt")
    with pytest.raises(UserError, match="somebody else has written"):
        upload.publish(staged, target, "Second")
    assert [ref.name for ref in api.list_repo_refs("owner/name").tags] == ["v1"]


def test_a_killed_upload_goes_on(hub, api, staged):
    """The second weights file is refused for good; the first is not sent again."""
    (staged / "model-00002-of-00002.safetensors").write_bytes(b"more" * 1000)
    target = upload.look("model", "owner/name")
    # no answer that the client tries again
    hub.fail("POST /api/models/owner/name/commit/", status=403)
    with pytest.raises(UserError, match="does not let this token write"):
        upload.publish(staged, target, "First")
    assert api.list_repo_files("owner/name") == []
    before = len(hub.requests)
    upload.publish(staged, upload.look("model", "owner/name"), "First")
    assert not [row for row in hub.requests[before:] if row.startswith("PUT /lfs/")]
    assert set(api.list_repo_files("owner/name")) == {path.name for path in staged.iterdir()}


def test_a_release_whose_tag_failed_is_finished_by_the_same_command(hub, api, staged):
    target = upload.look("model", "owner/name")
    hub.fail("POST /api/models/owner/name/tag/", status=403)
    upload.add_changelog(staged, target, "First.")
    with pytest.raises(UserError, match="does not let this token write"):
        upload.publish(staged, target, "First.")
    target = upload.look("model", "owner/name")
    assert target.tag == "v1"
    upload.add_changelog(staged, target, "First.")
    assert (staged / "CHANGELOG.md").read_text().count("## v1") == 1
    commit = upload.publish(staged, target, "First.")
    (tag,) = api.list_repo_refs("owner/name").tags
    assert (tag.name, tag.target_commit) == ("v1", commit)


# --- the card


def test_the_demos_card_says_what_it_can_and_cannot_do():
    """With the figures of the recorded answers: the swapped RNA, the floors and what it cannot do."""
    from rnagpt.release.card_facts import read_facts

    facts = read_facts(assets() / "demo")
    counts = dict.fromkeys(("encoder", "projector", "llm"), 1)
    card = model_card.fill(
        "smollm2-135m-instruct", "packaged", counts, 1022, metadata=facts.metadata("demo"), **facts.sections()
    )
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["license"] == "apache-2.0" and head["base_model"] == ["HuggingFaceTB/SmolLM2-135M-Instruct"]
    metrics = {
        metric["name"]: metric["value"] for result in head["model-index"][0]["results"] for metric in result["metrics"]
    }
    right, swapped = recorded_share("demo"), recorded_share("demo_swapped")
    assert metrics["RNA type, share right (Shipped demo)"] == pytest.approx(right, abs=1e-4)
    assert metrics["RNA type, share right (Shipped demo, another RNA)"] == pytest.approx(swapped, abs=1e-4)
    assert re.search(rf"\| RNA type \| {100 * right:.1f}% \[[^|]*\| {100 * swapped:.1f}% \[", card)
    assert "| Amino acid | 0.0% [0.0, 56.1] |" in card and "| **no** |" in card
    assert re.search(r"\| Nearest by identity [^|]*\| 93\.8% ", card)  # whom the demo does not beat
    assert "1-3-mers + length" in card and "not medical advice" not in card and "nothing it says is medical" in card
    assert "public domain" in card and "$" not in card and "OWNER/NAME" in card


def recorded_share(system: str) -> float:
    """Share of right answers to the type question, counted from the recorded lines with nothing of ours."""
    import gzip

    with gzip.open(assets() / "demo" / "items.jsonl.gz", "rt") as file:
        rows = [row for row in map(json.loads, file) if row["system"] == system and row["topic"] == "rna_type"]
    return sum(row["parsed"] == row["gold"] for row in rows) / len(rows)


def test_llama_is_named_on_the_card():
    counts = dict.fromkeys(("encoder", "projector", "llm"), 1)
    card = model_card.fill("meta-llama/Meta-Llama-3-8B-Instruct", "multimolecule/rnafm", counts, 1022)
    head = yaml.safe_load(card.split("---\n")[1])
    assert "**Built with Meta Llama 3.**" in card and "AGPL-3.0: whoever offers it over a network" in card
    assert head["license"] == "other" and head["base_model"][0] == "meta-llama/Meta-Llama-3-8B-Instruct"
