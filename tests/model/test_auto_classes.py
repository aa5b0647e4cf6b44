"""Every AutoClass and the pipeline, from a folder and from a repository on a loopback Hub, in an interpreter that
knows nothing of this package: what somebody has who installed transformers alone.

    pytest tests/model/test_auto_classes.py
"""

import subprocess
import sys

import pytest
import torch
from huggingface_hub import HfApi
from loopback_hub import LoopbackHub
from test_build_checkpoint_parts import adapted, ask, sources  # noqa: F401  (sources is a fixture)

from rnagpt.checkpoints import checkpoint

QUESTION = {"rna": "ACGUACGUACGG", "text": "Type?"}
START = """
import sys, torch
from importlib.util import find_spec
found = [name for name in ("rnagpt", "modeling_rnagpt", "processing_rnagpt", "train_sft") if find_spec(name)]
if found:
    sys.exit(f"{found} can be imported: this test would prove nothing")
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoProcessor, AutoTokenizer, pipeline
MESSAGES = [{"role": "user", "content": [{"type": "rna", "rna": "ACGUACGUACGG"}, {"type": "text", "text": "Type?"}]}]
def logits_of(name, **options):
    model = AutoModelForCausalLM.from_pretrained(name, trust_remote_code=True, **options)
    processor = AutoProcessor.from_pretrained(name, trust_remote_code=True, **options)
    with torch.no_grad():
        return model(**processor(MESSAGES)).logits
"""
EVERY_CLASS = """
name, out = sys.argv[1:]
config = AutoConfig.from_pretrained(name, trust_remote_code=True)
assert (config.model_type, config.rna_config.model_type, config.text_config.model_type) == ("rnagpt", "esm", "llama")
model = AutoModelForCausalLM.from_pretrained(name, trust_remote_code=True)
body = AutoModel.from_pretrained(name, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(name)
assert tokenizer("Type? <RNAHere>")["input_ids"] == processor.tokenizer("Type? <RNAHere>")["input_ids"]
assert tokenizer.convert_tokens_to_ids("<RNAHere>") == config.rna_token_id
batch = processor(MESSAGES)
with torch.no_grad():
    logits = model(**batch).logits
    assert torch.equal(model.lm_head(body(**batch).last_hidden_state), logits)
pipe = pipeline("rna-text-generation", model=name, trust_remote_code=True)
question = {"rna": "ACGUACGUACGG", "text": "Type?"}
options = {"max_new_tokens": 8, "do_sample": False}
answers = [
    pipe(question, **options),
    pipe(MESSAGES, **options),
    *pipe([question, MESSAGES], **options),
    *pipe([question, {"text": "Is it?"}, question], batch_size=3, **options)[::2],
]
pipe.save_pretrained("saved")
again = pipeline("rna-text-generation", model="saved", trust_remote_code=True)
answers.append(again(question, **options))
try:
    pipe({"sequence": "ACGU"})
except ValueError as error:
    assert "an input is" in str(error), error
else:
    sys.exit("an unknown key was taken")
torch.save({"logits": logits, "input_ids": batch["input_ids"], "answers": [a["generated_text"] for a in answers]}, out)
"""
FROM_THE_HUB = """
out, commit = sys.argv[1:]
logits = {
    "revision": logits_of("owner/model", revision=commit),
    "tag": logits_of("owner/model", revision="v1"),
    "projector": logits_of("owner/projector"),
    "adapter": logits_of("owner/adapter"),
}
# what was pulled goes up again, by the classes' own push_to_hub, and comes back
model = AutoModelForCausalLM.from_pretrained("owner/model", trust_remote_code=True, revision="v1")
processor = AutoProcessor.from_pretrained("owner/model", trust_remote_code=True, revision="v1")
model.push_to_hub("owner/again")
processor.push_to_hub("owner/again")
logits["pushed"] = logits_of("owner/again")
torch.save(logits, out)
"""


def clean(code: str, *arguments: str, folder, environment: dict) -> None:
    """Run code where only the site-packages can be imported, in an empty folder."""
    # -I keeps the checkout and PYTHONPATH out; -S, with the site folders named, an editable install's hooks
    sites = [path for path in sys.path if path.endswith("site-packages")]
    folder.mkdir()
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path += {sites!r}\n{START}{code}", *arguments]
    options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    done = subprocess.run(command, cwd=folder, env=environment, **options)
    assert done.returncode == 0, done.stderr[-3000:]


@torch.no_grad()
def check_every_class(tiny_model, path) -> None:
    """What EVERY_CLASS wrote is what the model in memory gives."""
    model, processor = tiny_model
    got, batch = torch.load(path, weights_only=True), ask(processor)
    assert torch.equal(got["input_ids"], batch["input_ids"])
    assert torch.equal(got["logits"], model(**batch).logits)
    ids = model.generate(**batch, max_new_tokens=8, do_sample=False)[:, batch["input_ids"].shape[1] :]
    assert set(got["answers"]) == {processor.batch_decode(ids, skip_special_tokens=True)[0].strip()}
    assert len(got["answers"]) == 7


def test_from_a_folder(tiny_model, tiny_checkpoint, tmp_path):
    environment = {"HF_HOME": str(tmp_path / "hf"), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    environment["HF_HUB_OFFLINE"] = "1"
    clean(
        EVERY_CLASS, str(tiny_checkpoint), str(tmp_path / "out.pt"), folder=tmp_path / "empty", environment=environment
    )
    check_every_class(tiny_model, tmp_path / "out.pt")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with LoopbackHub(tmp_path / "hub") as hub:
        yield hub


def test_from_a_repository(hub, tiny_model, tiny_checkpoint, tmp_path):
    api = HfApi(endpoint=hub.url, token=hub.token)
    api.create_repo("owner/model", private=True)
    api.upload_folder(repo_id="owner/model", folder_path=tiny_checkpoint)
    clean(
        EVERY_CLASS,
        "owner/model",
        str(tmp_path / "out.pt"),
        folder=tmp_path / "empty",
        environment=hub.environment(tmp_path / "home"),
    )
    check_every_class(tiny_model, tmp_path / "out.pt")


@torch.no_grad()
def test_push_pull_and_push_again_keep_every_bit(hub, tiny_model, tiny_checkpoint, sources, tmp_path):  # noqa: F811
    """Whole at a commit and at a tag, projector-only and adapter-only, and pushed again by what was pulled."""
    model, processor = tiny_model
    api = HfApi(endpoint=hub.url, token=hub.token)
    names = {"llm": "owner/llm", "encoder": "owner/encoder"}
    commits = {}
    for part, folder in sources.items():
        api.create_repo(names[part])
        commits[f"{part}_revision"] = api.upload_folder(repo_id=names[part], folder_path=folder).oid
    checkpoint.save(model, processor, tmp_path / "projector", weights_from=names | commits, dtype="float32")
    peft = adapted(model)
    checkpoint.save(peft, processor, tmp_path / "adapter", base="owner/projector")
    for name, folder in {
        "model": tiny_checkpoint,
        "projector": tmp_path / "projector",
        "adapter": tmp_path / "adapter",
    }.items():
        api.create_repo(f"owner/{name}")
        commit = api.upload_folder(repo_id=f"owner/{name}", folder_path=folder).oid
        api.create_tag(f"owner/{name}", tag="v1")
        commits[name] = commit
    # later commits on main change what an unpinned load would find
    api.upload_file(repo_id="owner/model", path_or_fileobj=b"{}", path_in_repo="config.json")
    api.upload_file(repo_id="owner/llm", path_or_fileobj=b"{}", path_in_repo="config.json")
    clean(
        FROM_THE_HUB,
        str(tmp_path / "out.pt"),
        commits["model"],
        folder=tmp_path / "empty",
        environment=hub.environment(tmp_path / "home"),
    )
    got, batch = torch.load(tmp_path / "out.pt", weights_only=True), ask(processor)
    expected = model(**batch).logits
    for name in ("revision", "tag", "projector", "pushed"):
        assert torch.equal(got[name], expected), name
    assert torch.equal(got["adapter"], peft(**batch).logits)
