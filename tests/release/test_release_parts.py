"""A training stage's output (parts) released in every form, and loaded by repo id where RNA-GPT is not installed.

pytest tests/release/test_release_parts.py
"""

import json

import pytest
import torch
from huggingface_hub import HfApi
from test_auto_classes import clean
from test_build_checkpoint_parts import ask
from test_release_model import api, hub, release  # noqa: F401  (api and hub are fixtures)

from rnagpt.checkpoints import checkpoint
from rnagpt.cli import main

RNA, TYPE = "ACGUACGUACGG", "What type of RNA is this?"
EVERY_FORM = """
out, *names = sys.argv[1:]
answers = {}
for name in names:
    model = AutoModelForCausalLM.from_pretrained(name, trust_remote_code=True, revision="v1")
    processor = AutoProcessor.from_pretrained(name, trust_remote_code=True, revision="v1")
    batch = processor(MESSAGES)
    with torch.no_grad():
        ids = model.generate(**batch, max_new_tokens=12, do_sample=False)
        answers[name] = {"logits": model(**batch).logits, "ids": ids[:, batch["input_ids"].shape[1]:]}
torch.save(answers, out)
"""


@pytest.fixture
def pushed(hub, api: HfApi, tiny_parts):  # noqa: F811
    """The Hub, with the LLM and the encoder that the stages were trained with."""
    for part in ("llm", "encoder"):
        api.create_repo(f"owner/{part}")
        api.upload_folder(repo_id=f"owner/{part}", folder_path=tiny_parts / part)
    return hub


@pytest.mark.slow
@pytest.mark.timeout(1800)
@torch.no_grad()
def test_every_form_of_a_stage_comes_back_by_repo_id(pushed, api, tiny_run, tmp_path, capsys):  # noqa: F811
    """The alignment stage whole and as its projector, the instruction stage merged and as its adapter: logits and the
    greedy answer are those of the stage's own folder."""
    run, _ = tiny_run
    first, second = run / "stage1", run / "stage2"
    parts = ["--llm", "owner/llm", "--encoder", "owner/encoder"]
    assert release(first, "--repo", "owner/base") == 0
    assert release(first, *parts, "--form", "projector", "--repo", "owner/projector") == 0
    assert release(second, "--form", "adapter", "--base", "owner/base", "--repo", "owner/adapter") == 0
    assert release(second, "--repo", "owner/merged") == 0
    assert capsys.readouterr().out.count("reloaded without RNA-GPT installed") == 4

    weights = {
        name: {path for path in api.list_repo_files(f"owner/{name}") if path.endswith(".safetensors")}
        for name in ("base", "projector", "adapter", "merged")
    }
    assert weights["adapter"] == {"adapter_model.safetensors"}
    assert weights["base"] == weights["projector"] == weights["merged"] == {"model.safetensors"}
    sizes = {row.path: row.size for row in api.list_repo_tree("owner/projector") if row.path in weights["projector"]}
    assert sizes["model.safetensors"] < 20_000  # 32 x 32 numbers and a head

    stages = {"owner/base": first, "owner/projector": first, "owner/adapter": second, "owner/merged": second}
    clean(
        EVERY_FORM,
        str(tmp_path / "out.pt"),
        *stages,
        folder=tmp_path / "empty",
        environment=pushed.environment(tmp_path / "stranger"),
    )
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    for name, stage in stages.items():
        model, processor = checkpoint.load(stage)
        batch = ask(processor, RNA)
        logits = model(**batch).logits
        torch.testing.assert_close(found[name]["logits"], logits, rtol=0, atol=1e-4, msg=name)
        ids = model.generate(**batch, max_new_tokens=12, do_sample=False)[:, batch["input_ids"].shape[1] :]
        assert torch.equal(found[name]["ids"], ids), name
    # what trained is in it: the two stages answer differently
    assert (found["owner/adapter"]["logits"] - found["owner/base"]["logits"]).abs().max() > 1e-2

    # and in the terminal, by repo id
    said = []
    for name in (second, "owner/adapter"):
        assert main(["chat", str(name), "--rna", RNA, "--question", TYPE, "--max-new-tokens", "12"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and said[0].startswith("rna1\t")


def test_forms_that_do_not_suit_a_stage(tiny_run, capsys):
    run, _ = tiny_run
    for stage, arguments, says in (
        ("stage2", ["--form", "projector"], "holds an adapter beside its projector: give --form adapter"),
        ("stage1", ["--form", "adapter", "--base", "owner/base"], "holds no adapter of its own"),
        ("stage2", ["--form", "adapter"], "give --base OWNER/NAME"),
        ("stage1", ["--form", "projector"], "is no Hub id: give --"),
    ):
        assert release(run / stage, *arguments, "--repo", "owner/name", "--dry-run") == 2
        assert says in capsys.readouterr().err
    assert "adapter_model.safetensors" in {path.name for path in (run / "stage2").iterdir()}
    assert json.loads((run / "stage2" / "parts.json").read_text())["llm_fingerprint"]


@pytest.mark.slow
def test_an_adapter_beside_another_base_is_refused(pushed, api, tiny_run, capsys):  # noqa: F811
    """The merged checkpoint in place of what the stage started from: its adapter would be added twice."""
    run, _ = tiny_run
    assert release(run / "checkpoint", "--repo", "owner/base") == 0
    assert release(run / "stage2", "--form", "adapter", "--base", "owner/base", "--repo", "owner/adapter") == 2
    assert "computes other logits than the checkpoint" in capsys.readouterr().err
    assert not api.repo_exists("owner/adapter")
