"""RNA-FM's weights in our encoder, against the `rna-fm` package itself, which reads the same file.

    pytest tests/checkpoints/test_build_checkpoint_rnafm.py

No published weights can be had here: the files are written with seeded random numbers in the official form.
"""

import argparse
import json
import pickle
import subprocess
import sys
import urllib.request
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from processing_rnagpt.rna_tokenizer import RNA_FM_TOKENS, build_rna_tokenizer
from rnagpt.checkpoints.rnafm_weights import fetch_official, read_multimolecule, read_official
from rnagpt_core.errors import UserError

TRUE_SIZE = {"layers": 12, "embed_dim": 640, "ffn_embed_dim": 5120, "attention_heads": 20, "max_positions": 1024}
SMALL = {"layers": 2, "embed_dim": 32, "ffn_embed_dim": 64, "attention_heads": 4, "max_positions": 128}


def random_rnas(lengths, letters="ACGU") -> list[str]:
    generator = torch.Generator().manual_seed(1)
    return ["".join(letters[i] for i in torch.randint(len(letters), (n,), generator=generator)) for n in lengths]


def write_official(path, sizes=SMALL, token_dropout=False, prefix="encoder.sentence_encoder.", theme="rna"):
    """A file as fairseq writes it and RNA-FM's authors publish it: {"args": Namespace, "model": state dict}."""
    import fm

    arguments = argparse.Namespace(
        arch="roberta_large",
        **{name if name == "max_positions" else f"encoder_{name}": size for name, size in sizes.items()},
        token_dropout=token_dropout,
        task="masked_lm",
    )
    model = fm.BioBertModel(
        argparse.Namespace(arch="roberta_large", emb_layer_norm_before=True, **sizes),
        fm.Alphabet.from_architecture("roberta_large", theme),
    )
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("contact_head"):
            continue  # not in the published file
        # no norm at 1 and no bias at 0: two names exchanged would go unseen
        centre = 1.0 if "layer_norm" in name and name.endswith("weight") else 0.0
        # contiguous copies: fairseq's file holds no shared storage but the tied head's
        state[name] = centre + 0.05 * torch.randn(tensor.shape, generator=generator)
    state["embed_tokens.weight"][1] = state["embed_positions.weight"][1] = 0.0  # padding
    state["lm_head.weight"] = state["embed_tokens.weight"]
    names = {name: ("encoder." if name.startswith("lm_head") else prefix) + name for name in state}
    torch.save({"args": arguments, "model": {names[name]: tensor for name, tensor in state.items()}}, path)
    return path


def reference(path):
    """The model that the rna-fm package makes of the file."""
    import fm

    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(path, weights_only=True)
    with pytest.warns(UserWarning, match="Regression weights"):  # the published file has none either
        return fm.pretrained.load_model_and_alphabet_core("rna-fm", content, None, "rna")[0].eval()


@torch.no_grad()
def largest_difference(model, encoder, rnas, layers, masked=False) -> float:
    """max |our last hidden state - rna-fm's| over the real tokens of a padded batch."""
    batch = build_rna_tokenizer()(rnas, padding=True, return_tensors="pt")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    if masked:
        ids[:, 2] = RNA_FM_TOKENS.index("<mask>")
    expected = model(ids, repr_layers=[layers])["representations"][layers]
    got = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    assert got.dtype == expected.dtype
    return float((got - expected)[mask.bool()].abs().max())


@pytest.fixture(scope="module")
def true_size(tmp_path_factory):
    """(rna-fm's model, ours) of one file at the published size, 99.1 M parameters."""
    path = write_official(tmp_path_factory.mktemp("rnafm") / "RNA-FM_pretrained.pth", TRUE_SIZE)
    return reference(path), read_official(path)


def test_true_size_is_the_published_one(true_size):
    assert sum(p.numel() for p in true_size[1].parameters()) == 99_110_001


def test_true_size_fp32_with_padding(true_size):
    assert largest_difference(*true_size, random_rnas([200, 33, 1, 90]), 12) <= 1e-5


@pytest.mark.slow
def test_true_size_fp32_to_the_longest_rna(true_size):
    assert largest_difference(*true_size, random_rnas([1022, 501, 33]), 12) <= 1e-5


def test_true_size_fp64_with_padding(true_size):
    model, encoder = (module.double() for module in true_size)
    try:
        assert largest_difference(model, encoder, random_rnas([60, 33, 1]), 12) <= 1e-12
    finally:
        model.float(), encoder.float()


@pytest.mark.parametrize("prefix", ["", "encoder.encoder.", "module.encoder.sentence_encoder.", "backbone."])
def test_every_prefix_in_use(tmp_path, prefix):
    path = write_official(tmp_path / "weights.pth", prefix=prefix)
    expected = reference(write_official(tmp_path / "plain.pth"))
    every_token = random_rnas([40, 7], RNA_FM_TOKENS[4:20])
    assert largest_difference(expected.double(), read_official(path).double(), every_token, 2) <= 1e-12


def test_token_dropout_is_honoured(tmp_path):
    path = write_official(tmp_path / "dropout.pth", token_dropout=True)
    encoder = read_official(path).double()
    assert encoder.config.token_dropout
    rnas = random_rnas([40, 7, 22])
    assert largest_difference(reference(path).double(), encoder, rnas, 2, masked=True) <= 1e-12
    without = reference(write_official(tmp_path / "plain.pth")).double()
    assert largest_difference(without, encoder, rnas, 2) > 1e-3


def test_the_mask_tokens_row_is_what_rna_fm_makes_it(tmp_path):
    path = write_official(tmp_path / "weights.pth")
    rnas = random_rnas([40, 7, 22])
    assert largest_difference(reference(path).double(), read_official(path).double(), rnas, 2, masked=True) <= 1e-12


def test_a_bare_state_dict_of_rna_fms_own_model(tmp_path):
    path = write_official(tmp_path / "weights.pth", {**SMALL, "embed_dim": 640, "attention_heads": 20}, prefix="")
    torch.save(reference(path).state_dict(), tmp_path / "bare.pth")  # with the contact head, without arguments
    encoder = read_official(tmp_path / "bare.pth").double()
    assert largest_difference(reference(path).double(), encoder, random_rnas([30, 7]), 2) <= 1e-12


# --- the package's own loader


def test_fetched_by_rna_fms_own_loader(tmp_path, monkeypatch):
    """The loader finds the file in torch's cache, as after a download; no network is asked."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    placed = write_official(tmp_path / "hub" / "checkpoints" / "RNA-FM_pretrained.pth")
    assert fetch_official() == placed


def test_what_the_loader_fetched_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    write_trap(tmp_path / "hub" / "checkpoints" / "RNA-FM_pretrained.pth", tmp_path / "ran")
    with pytest.raises(UserError, match="is no RNA-FM checkpoint.*remove it"):
        fetch_official()
    assert not (tmp_path / "ran").exists()


def test_no_network_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "_opener", None)  # urllib keeps the proxies of its first request
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(UserError, match="could not be fetched.*by hand and give its path as --encoder"):
        fetch_official()


# --- multimolecule


def write_multimolecule(folder, official, prefix="model."):
    """The same weights in multimolecule's form: other names, and the vocabulary in another order with more tokens."""
    vocabulary = ["<pad>", "<cls>", "<eos>", "<unk>", "<mask>", "<null>", *"ACGUNRYSWKMBDHVIX|.*-?"]
    content = torch.load(official, weights_only=False)["model"]
    plain = {name.replace("encoder.sentence_encoder.", ""): tensor for name, tensor in content.items()}
    hidden = plain["embed_tokens.weight"].shape[1]
    words = torch.randn(len(vocabulary), hidden, generator=torch.Generator().manual_seed(5))
    for row, token in enumerate(vocabulary):
        if token in RNA_FM_TOKENS:
            words[row] = plain["embed_tokens.weight"][RNA_FM_TOKENS.index(token)]
    state = {
        "embeddings.word_embeddings.weight": words,
        "embeddings.position_embeddings.weight": plain["embed_positions.weight"],
        "lm_head.decoder.weight": words.clone(),
    }
    for kind in ("weight", "bias"):
        state[f"embeddings.layer_norm.{kind}"] = plain[f"emb_layer_norm_before.{kind}"]
        state[f"encoder.layer_norm.{kind}"] = plain[f"emb_layer_norm_after.{kind}"]
        for i in range(SMALL["layers"]):
            for theirs, ours in {
                "attention.self.query": "self_attn.q_proj",
                "attention.self.key": "self_attn.k_proj",
                "attention.self.value": "self_attn.v_proj",
                "attention.output.dense": "self_attn.out_proj",
                "attention.layer_norm": "self_attn_layer_norm",
                "intermediate.dense": "fc1",
                "output.dense": "fc2",
                "layer_norm": "final_layer_norm",
            }.items():
                state[f"encoder.layer.{i}.{theirs}.{kind}"] = plain[f"layers.{i}.{ours}.{kind}"]
    folder.mkdir()
    named = {(name if name.startswith("lm_head") else prefix + name): tensor for name, tensor in state.items()}
    save_file(named, folder / "model.safetensors")
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    config = {
        "model_type": "rnafm",
        "vocab_size": len(vocabulary),
        "hidden_size": SMALL["embed_dim"],
        "num_hidden_layers": SMALL["layers"],
        "num_attention_heads": SMALL["attention_heads"],
        "intermediate_size": SMALL["ffn_embed_dim"],
        "max_position_embeddings": plain["embed_positions.weight"].shape[0],
        "layer_norm_eps": 1e-5,
        "pad_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder, config


@pytest.mark.parametrize("prefix", ["model.", "rnafm."])
def test_multimolecule_folder(tmp_path, prefix):
    official = write_official(tmp_path / "weights.pth")
    encoder = read_multimolecule(*write_multimolecule(tmp_path / "rnafm", official, prefix)).double()
    every_code = random_rnas([60, 7], RNA_FM_TOKENS[4:19])
    assert largest_difference(reference(official).double(), encoder, every_code, 2) <= 1e-12


@pytest.mark.slow
@torch.no_grad()
def test_multimolecules_own_model(tmp_path):
    """Against multimolecule itself, where somebody has installed it (AGPL-3.0: no requirement of ours)."""
    multimolecule = pytest.importorskip("multimolecule")
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    theirs = multimolecule.RnaFmForPreTraining(multimolecule.RnaFmConfig(**small)).eval()
    for parameter in theirs.parameters():
        parameter.data.normal_(0, 0.1)
    tokenizer = multimolecule.RnaTokenizer()
    theirs.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    ours = read_multimolecule(tmp_path, json.loads((tmp_path / "config.json").read_text()))
    rnas = random_rnas([60, 7], RNA_FM_TOKENS[4:19])
    expected = theirs.model(**tokenizer(rnas, padding=True, return_tensors="pt")).last_hidden_state
    batch = build_rna_tokenizer()(rnas, padding=True, return_tensors="pt")
    got = ours(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    assert (got - expected)[batch["attention_mask"].bool()].abs().max() <= 1e-5


@pytest.mark.parametrize("name", ["vocab.txt", "model.safetensors"])
def test_multimolecule_folder_that_is_incomplete(tmp_path, name):
    folder, config = write_multimolecule(tmp_path / "rnafm", write_official(tmp_path / "weights.pth"))
    (folder / name).unlink()
    with pytest.raises(UserError, match=name):
        read_multimolecule(folder, config)


def test_multimolecule_vocabulary_that_does_not_fit(tmp_path):
    folder, config = write_multimolecule(tmp_path / "rnafm", write_official(tmp_path / "weights.pth"))
    (folder / "vocab.txt").write_text((folder / "vocab.txt").read_text() + "Z\n")
    with pytest.raises(UserError, match="28 rows of embeddings for the 29 tokens"):
        read_multimolecule(folder, config)


# --- files that are something else


class Trap:
    """Unpickled without restriction, it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def write_trap(path, ran):
    torch.save({"args": argparse.Namespace(arch="roberta_large"), "model": Trap(ran)}, path)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    write_trap(tmp_path / "trap.pth", tmp_path / "ran")
    with pytest.raises(UserError, match="trap.pth is no file of weights alone"):
        read_official(tmp_path / "trap.pth")
    assert not (tmp_path / "ran").exists()


def plain_pickle(path):
    path.write_bytes(pickle.dumps({"a": 1}))


def cut_off(path):
    write_official(path)
    path.write_bytes(path.read_bytes()[:-2000])


def another_vocabulary(path):
    write_official(path, theme="rna-3mer")


def another_model(path):
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)


def one_tensor_less(path):
    content = torch.load(write_official(path), weights_only=False)
    del content["model"]["encoder.sentence_encoder.layers.1.fc2.bias"]
    torch.save(content, path)


def another_shape(path):
    content = torch.load(write_official(path), weights_only=False)
    content["model"]["encoder.sentence_encoder.layers.1.fc2.bias"] = torch.zeros(3)
    torch.save(content, path)


def another_architecture(path):
    content = torch.load(write_official(path), weights_only=False)
    content["args"].arch = "transformer_xl"
    torch.save(content, path)


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda path: None, "no file .*expected RNA-FM_pretrained.pth"),
        (lambda path: path.write_text("<html>404</html>"), "no file of weights|damaged"),
        (lambda path: path.write_bytes(b""), "damaged, cut off or no file"),
        (lambda path: zipfile.ZipFile(path, "w").writestr("a", "b"), "damaged, cut off or no file"),
        (lambda path: torch.save(torch.zeros(3), path), "expected a state dict, got Tensor"),
        (lambda path: torch.save({"model": [1, 2]}, path), "expected a state dict"),
        pytest.param(
            plain_pickle,
            "weights|damaged|state dict",
            marks=pytest.mark.filterwarnings("ignore:Detected pickle protocol"),
        ),
        (cut_off, "damaged, cut off or no file"),
        (another_vocabulary, "vocabulary of 73 tokens, RNA-FM's has 25 .mRNA-FM"),
        (another_model, "it has no embed_tokens.weight"),
        (one_tensor_less, r"has no layers.1.fc2.bias \(1 missing, 0 unknown\)"),
        (another_shape, "wrong shape: .*output.dense.bias"),
        (another_architecture, "its architecture is 'transformer_xl'"),
    ],
)
def test_a_file_that_is_something_else_is_named_in_one_sentence(tmp_path, write, sentence):
    path = tmp_path / "weights.pth"
    write(path)
    with pytest.raises(UserError, match=sentence) as caught:
        read_official(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 400


def test_reading_imports_neither_rna_fm_nor_multimolecule(tmp_path):
    path = write_official(tmp_path / "weights.pth")
    code = f"""
import sys
from pathlib import Path
from rnagpt.checkpoints.rnafm_weights import read_official
read_official(Path({str(path)!r}))
print(sorted({{"fm", "multimolecule"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
