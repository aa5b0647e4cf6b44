"""Encoders as people have them: read exactly, or refused by name before anything trains.

What RNA-GPT makes of an RNA is compared with the family's own class run on its own tokenizer's output of the text that
the family's users write (`Family.text`), never with RNA-GPT's reading of it.
"""

import copy
import random

import pytest
import torch
from encoder_families import families, refused_families, table_rows
from transformers import AutoModel, AutoTokenizer, T5EncoderModel

from modeling_rnagpt import RnaGptForCausalLM
from processing_rnagpt import RnaGptProcessor
from processing_rnagpt.rna_sequences import window_spans
from rnagpt.checkpoints.checkpoint import load, save
from rnagpt.checkpoints.encoder_check import check_encoder
from rnagpt.checkpoints.rna_encoder import load_encoder
from rnagpt_core.errors import UserError

FAMILIES = {family.name: family for family in families()}
REFUSED = refused_families()
DRAW = random.Random(0)
RNAS = ["".join(DRAW.choices("ACGU", k=length)) for length in (36, 21, 60, 48)]


@pytest.fixture(scope="module", params=FAMILIES)
def read(request, tiny_model, tmp_path_factory):
    """(family, RNA-GPT with this encoder, processor, the encoder by its auto class, its tokenizer)."""
    family = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp("family")
    family.make(folder)
    encoder, rna_tokenizer = load_encoder(str(folder), family.code)
    model, processor = tiny_model
    processor = RnaGptProcessor(copy.deepcopy(processor.tokenizer), rna_tokenizer, processor.chat_template)
    llm = copy.deepcopy(model)
    shell = type(
        "Llm",
        (),
        {
            "config": llm.config.text_config,
            "base_model": llm.model.language_model,
            "generation_config": llm.generation_config,
            "get_output_embeddings": staticmethod(lambda: llm.lm_head),
        },
    )
    model = RnaGptForCausalLM.from_encoder_and_llm(
        encoder, shell, rna_token_id=processor.rna_token_id, rna_drop_token_ids=processor.rna_drop_token_ids
    )
    auto = T5EncoderModel if "T5" in family.name else AutoModel
    plain = auto.from_pretrained(folder, trust_remote_code=family.code, dtype=torch.float32).eval()
    return family, model, processor, plain, AutoTokenizer.from_pretrained(folder, trust_remote_code=family.code)


@torch.no_grad()
def plain_features(family, plain, tokenizer, rna: str) -> torch.Tensor:
    """Of the whole RNA, without special tokens, (tokens, hidden)."""
    ids = tokenizer(family.text(rna), return_tensors="pt", truncation=False, verbose=False)["input_ids"]
    before, after = family.ends
    return plain(input_ids=ids)[0][0, before : ids.shape[1] - after]


def encode(model, processor, rnas: list[str]):
    batch = processor(["<RNAHere>"] * len(rnas), rna=rnas)
    inputs = [batch.get(f"rna_{name}") for name in ("input_ids", "attention_mask", "index")]
    with torch.no_grad():
        features, slots = model.model.encode_rna(*inputs)
    placeholders = (batch["input_ids"] == processor.rna_token_id).sum(-1)
    assert slots.tolist() == placeholders.tolist()
    return features, slots.tolist()


def test_features_are_a_plain_runs_alone_and_in_a_batch(read):
    family, model, processor, plain, tokenizer = read
    expected = [plain_features(family, plain, tokenizer, rna) for rna in RNAS]
    assert expected[0].std(dim=0).max() > 1e-3  # positions differ, so that an order counts
    together, slots = encode(model, processor, RNAS)
    assert slots == [len(features) for features in expected]
    if family.tokens is not None:
        assert slots == [family.tokens(len(rna)) for rna in RNAS]
    scale = max(1.0, float(torch.cat(expected).abs().max()))
    assert (together - torch.cat(expected)).abs().max() < 1e-5 * scale
    for rna, features in zip(RNAS, expected, strict=True):
        assert (encode(model, processor, [rna])[0] - features).abs().max() < 1e-5 * scale


def test_the_limit_is_the_familys_and_what_is_within_runs(read):
    family, model, processor, *_ = read
    assert processor.rna_tokenizer.model_max_length == family.limit
    if family.limit < 1000:
        rna = "".join(random.Random(1).choices("ACGU", k=9 * family.limit))
        features, _ = encode(model, processor, [rna])
        assert torch.isfinite(features).all()


@torch.no_grad()
def test_windows_are_plain_runs_of_pieces_joined_where_each_token_lies_most_central(read):
    family, model, processor, plain, tokenizer = read
    processor = copy.copy(processor)
    processor.rna_tokenizer = copy.deepcopy(processor.rna_tokenizer)
    processor.rna_tokenizer.model_max_length = 20 + sum(family.ends)
    rna = "".join(random.Random(2).choices("ACGU", k=150))
    before, after = family.ends
    ids = tokenizer(family.text(rna), truncation=False, verbose=False)["input_ids"]
    first, body, last = ids[:before], ids[before : len(ids) - after], ids[len(ids) - after :]
    expected = []
    for start, stop, begin, end in window_spans(len(body), 20):
        hidden = plain(input_ids=torch.tensor([[*first, *body[start:stop], *last]]))[0][0]
        expected.append(hidden[before + begin - start : before + end - start])
    got, _ = encode(model, processor, [rna])
    scale = max(1.0, float(got.abs().max()))
    assert (got - torch.cat(expected)).abs().max() < 1e-5 * scale


def test_every_row_of_the_check_passes(read):
    _, model, processor, *_ = read
    findings = check_encoder(model.model.rna_encoder, processor.rna_tokenizer)
    assert [finding.name for finding in findings] == ["alphabet", "tokens", "limit", "features", "batch", "windows"]
    assert all(finding.passed for finding in findings), findings


def test_dna_and_lower_case_are_read_as_the_rna(read):
    _, model, processor, *_ = read
    rna = RNAS[0]
    (first,) = processor.rna_inputs([rna])
    for other in (rna.lower(), rna.replace("U", "T")):
        assert processor.rna_inputs([other])[0].tokens.tolist() == first.tokens.tolist()


@pytest.mark.parametrize("name", [family.name for family in FAMILIES.values() if family.code])
def test_code_of_a_repository_runs_only_where_that_is_said(name, tmp_path):
    FAMILIES[name].make(tmp_path)
    (source,) = tmp_path.glob("modeling_*.py")
    source.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n" + source.read_text())
    with pytest.raises(UserError, match="Python code of its own.*--trust-remote-code.*model.trust_remote_code: true"):
        load_encoder(str(tmp_path))
    assert not (tmp_path / "ran").exists()
    load_encoder(str(tmp_path), trust_remote_code=True)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", REFUSED)
def test_others_are_refused_by_name_with_the_reason(name, tmp_path):
    make, reason = REFUSED[name]
    make(tmp_path)
    with pytest.raises(UserError) as refusal:
        load_encoder(str(tmp_path))
    assert str(refusal.value).startswith(str(tmp_path)) and reason in str(refusal.value)


def test_missing_weights_are_refused(tmp_path):
    """transformers draws them at random, with a warning."""
    from safetensors.torch import load_file, save_file

    FAMILIES["SpliceBERT"].make(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    left = {name: tensor for name, tensor in state.items() if "layer.1.attention.self.query" not in name}
    save_file(left, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks 2 weights of BertModel .*query"):
        load_encoder(str(tmp_path))


def test_half_codons_are_refused_with_the_rnas_number(tmp_path):
    family = FAMILIES["CaLM (codons)"]
    family.make(tmp_path)
    _, tokenizer = load_encoder(str(tmp_path), trust_remote_code=True)
    from processing_rnagpt.rna_sequences import RnaReader

    with pytest.raises(ValueError, match="RNA 2 of 2 has 10 nt, .*whole codons"):
        RnaReader(tokenizer, []).read(["ACGACG", "ACGACGACGA"])


SAVED = ["SpliceBERT", "DNABERT-3", "T5 encoder (ProtT5 form)", "HyenaDNA", "CaLM (codons)"]


@pytest.mark.parametrize("read", SAVED, indirect=True)
def test_a_saved_checkpoint_loads_with_equal_logits(read, tmp_path):
    family, model, processor, *_ = read
    save(model, processor, tmp_path / "checkpoint")
    if family.code:
        with pytest.raises(UserError, match="needs Python code of its own.*--trust-remote-code"):
            load(tmp_path / "checkpoint")
    again, its_processor = load(tmp_path / "checkpoint", trust_remote_code=family.code)
    assert isinstance(again.model.rna_encoder, type(model.model.rna_encoder)) or family.code
    batch = processor([f"<RNAHere> {n}" for n in range(2)], rna=RNAS[:2])
    same = its_processor([f"<RNAHere> {n}" for n in range(2)], rna=RNAS[:2])
    assert all(torch.equal(batch[key], same[key]) for key in batch)
    with torch.no_grad():
        assert torch.equal(again(**same).logits, model(**batch).logits)


def test_the_table_of_encoders_has_a_row_for_each_and_says_what_the_check_found(tmp_path):
    rows = table_rows(tmp_path)
    results = {row["family"]: row["result"] for row in rows}
    assert len(results) == len(rows) == len(FAMILIES) + len(REFUSED)
    assert {results[name] for name in FAMILIES} == {"exact"}
    assert all(results[name].startswith("refused: ") for name in REFUSED)
    assert not any(str(tmp_path) in result for result in results.values())


def test_a_plan_counts_an_encoder_with_code_of_its_own(tiny_parts, tmp_path):
    from test_training import recipe

    from rnagpt.training.plan import skeleton
    from rnagpt.training.recipe import recipe_from

    FAMILIES["HyenaDNA"].make(tmp_path / "encoder")
    content = recipe(tiny_parts, tmp_path / "out", "alignment")
    content["model"]["encoder"] = str(tmp_path / "encoder")
    with pytest.raises(UserError, match="model.trust_remote_code: true"):
        skeleton(recipe_from(content))
    content["model"]["trust_remote_code"] = True
    model, _ = skeleton(recipe_from(content))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert model.config.rna_config.hidden_size == 32


def test_the_command_builds_with_code_of_its_own_where_that_is_said(tiny_parts, tmp_path):
    from rnagpt.cli import main

    FAMILIES["Caduceus"].make(tmp_path / "encoder")
    command = ["build-checkpoint", "--encoder", str(tmp_path / "encoder"), "--llm", str(tiny_parts / "llm")]
    assert main([*command, "--out", str(tmp_path / "out")]) != 0
    assert main([*command, "--out", str(tmp_path / "out"), "--trust-remote-code"]) == 0
    model, processor = load(tmp_path / "out", trust_remote_code=True)
    assert all(finding.passed for finding in check_encoder(model.model.rna_encoder, processor.rna_tokenizer))


MULTIMOLECULE = {
    **dict.fromkeys(("RiNALMo", "SpliceBert", "RnaBert", "RnaErnie", "ErnieRna", "RnaMsm", "UtrLm", "RnaFm"), {}),
    **{"CaLm": {"codon": True}, "UtrBert": {"nmers": 3}, "DnaBert": {"nmers": 3}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MULTIMOLECULE)
def test_multimolecules_own_classes_are_read_exactly(name, tmp_path):
    """Where its package is installed, which RNA-GPT does not ask for (AGPL-3.0)."""
    package = pytest.importorskip("multimolecule")
    tokenizer = package.RnaTokenizer(**MULTIMOLECULE[name])
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    of_words = {"nmers": 3} if "nmers" in MULTIMOLECULE[name] else {}
    config = getattr(package, f"{name}Config")(**small, **of_words, vocab_size=len(tokenizer))
    getattr(package, f"{name}Model")(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    encoder, rna_tokenizer = load_encoder(str(tmp_path), trust_remote_code=True)
    assert all(finding.passed for finding in check_encoder(encoder, rna_tokenizer))
