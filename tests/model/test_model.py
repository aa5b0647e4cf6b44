"""The model against references: EsmModel's own output, the bare LLM, and itself in other batchings."""

import copy
import subprocess
import sys

import pytest
import torch

from modeling_rnagpt import RnaGptConfig, RnaGptForCausalLM

RNAS = ["ACGUACGUACGGGUUUAC", "GGCUAGCUCAAUCGGUAGAGCGUGAGACUCUUAAUCUC", "ACG"]


def ask(rna, question="What type of RNA is this?"):
    return [{"role": "user", "content": [{"type": "rna", "rna": rna}, {"type": "text", "text": question}]}]


@torch.no_grad()
def test_text_only_logits_equal_the_bare_llms(tiny_model):
    from transformers import LlamaForCausalLM

    model, processor = tiny_model
    llm = LlamaForCausalLM(copy.deepcopy(model.config.text_config)).eval()
    llm.model.load_state_dict(model.model.language_model.state_dict())
    llm.lm_head.load_state_dict(model.lm_head.state_dict())
    batch = processor(["What type of RNA is this?", "Yes."])
    assert torch.equal(model(**batch).logits, llm(**batch).logits)


@torch.no_grad()
@pytest.mark.parametrize("pool_size", [1, 4, 7])
def test_soft_tokens_are_projected_means_of_the_encoders_own_output(tiny_model, pool_size):
    model, processor = copy.deepcopy(tiny_model[0]), copy.deepcopy(tiny_model[1])
    model.config.rna_pool_size = processor.rna_pool_size = pool_size
    batch = processor([ask(rna) for rna in RNAS])
    got = model.model.get_rna_features(batch["rna_input_ids"], batch["rna_attention_mask"])
    expected = []
    for rna in RNAS:  # one by one, without padding, by plain slicing
        ids = processor.rna_tokenizer(rna, return_tensors="pt")["input_ids"]
        hidden = model.model.rna_encoder(ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0, 1:-1]
        expected += [model.model.projector(chunk.mean(0)) for chunk in hidden.split(pool_size)]
    assert (got - torch.stack(expected)).abs().max() < 1e-5
    assert (batch["input_ids"] == processor.rna_token_id).sum() == len(expected)


@torch.no_grad()
def test_batch_equals_single(tiny_model):
    model, processor = tiny_model
    together = model(**processor([ask(rna) for rna in RNAS])).logits[:, -1]
    for row, rna in zip(together, RNAS, strict=True):
        assert (model(**processor(ask(rna))).logits[0, -1] - row).abs().max() < 1e-4


@torch.no_grad()
def test_generation_with_and_without_cache_and_in_a_batch_is_the_same(tiny_model):
    model, processor = tiny_model
    kwargs = {"max_new_tokens": 12, "do_sample": False}
    batch = processor([ask(rna) for rna in RNAS])
    cached = model.generate(**batch, **kwargs)
    assert torch.equal(cached, model.generate(**batch, **kwargs, use_cache=False))
    for i, rna in enumerate(RNAS):
        single = processor(ask(rna))
        alone = model.generate(**single, **kwargs)[0, single["input_ids"].shape[1] :]
        in_batch = cached[i, batch["input_ids"].shape[1] :][: len(alone)]
        assert torch.equal(alone, in_batch)


@torch.no_grad()
def test_the_rna_changes_the_logits(tiny_model):
    model, processor = tiny_model
    one, other = (model(**processor(ask(rna))).logits for rna in ("ACGUACGU", "GGGGCCCC"))
    assert (one[0, -1] - other[0, -1]).abs().max() > 1e-3


@torch.no_grad()
def test_rows_without_rna_mix_with_rows_that_have_two(tiny_model):
    model, processor = tiny_model
    two = [{"role": "user", "content": [*ask(RNAS[0])[0]["content"], {"type": "rna", "rna": RNAS[2]}]}]
    none = [{"role": "user", "content": "Yes."}]
    together = model(**processor([two, none, ask(RNAS[1])])).logits[:, -1]
    for row, messages in zip(together, (two, none, ask(RNAS[1])), strict=True):
        assert (model(**processor(messages)).logits[0, -1] - row).abs().max() < 1e-4


@torch.no_grad()
def test_cached_features_equal_running_the_encoder(tiny_model):
    model, processor = tiny_model
    batch = processor(ask(RNAS[1]))
    features, slots = model.model.encode_rna(batch["rna_input_ids"], batch["rna_attention_mask"])
    cached = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        rna_features=features[None, None],
        rna_feature_mask=torch.ones(1, 1, int(slots)),
    )
    assert torch.equal(cached.logits, model(**batch).logits)


def test_disagreeing_counts_name_both_numbers(tiny_model):
    model, processor = tiny_model
    batch = processor(ask("ACGUACGU"))
    batch["input_ids"][batch["input_ids"] == processor.rna_token_id] = 5
    batch["input_ids"][0, :3] = processor.rna_token_id
    with pytest.raises(ValueError, match=r"3 <RNAHere> placeholders, but the RNAs give 8 soft tokens"):
        model(**batch)


def test_placeholders_without_rna_and_rna_without_mask_are_refused(tiny_model):
    model, processor = tiny_model
    batch = processor(ask("ACGUACGU"))
    text = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    with pytest.raises(ValueError, match="8 <RNAHere> placeholders, but no RNA"):
        model(**text)
    with pytest.raises(ValueError, match="needs rna_attention_mask"):
        model(**text, rna_input_ids=batch["rna_input_ids"])


def test_labels_give_the_mean_next_token_loss(tiny_model):
    model, processor = tiny_model
    batch = processor(ask("ACGU"))
    labels = batch["input_ids"].masked_fill(batch["input_ids"] == processor.rna_token_id, -100)
    out = model(**batch, labels=labels)
    expected = torch.nn.functional.cross_entropy(out.logits[0, :-1], labels[0, 1:])
    assert torch.allclose(out.loss, expected)


def test_default_config_is_rna_fm_and_llama():
    config = RnaGptConfig()
    assert (config.rna_config.hidden_size, config.rna_config.num_hidden_layers) == (640, 12)
    assert config.text_config.model_type == "llama"
    assert config.rna_pool_size == 1 and config.rna_token_id == 128256
    with pytest.raises(Exception, match="at least 1"):
        RnaGptConfig(rna_pool_size=0)


RELOAD = """
import sys, torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoProcessor
try:
    import modeling_rnagpt
except ImportError:
    pass
else:
    sys.exit("the package can be imported: this test would prove nothing")
folder, out = sys.argv[1:]
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
assert config.model_type == "rnagpt"
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
body = AutoModel.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
batch = processor([{"role": "user", "content": [{"type": "rna", "rna": "ACGUACGUACGG"},
                                                {"type": "text", "text": "What type of RNA is this?"}]}])
with torch.no_grad():
    logits = model(**batch).logits
    assert torch.equal(model.lm_head(body(**batch).last_hidden_state), logits)
torch.save({"logits": logits, "input_ids": batch["input_ids"]}, out)
"""


@torch.no_grad()
def test_checkpoint_reloads_by_the_autoclasses_where_the_package_is_absent(tiny_model, tiny_checkpoint, tmp_path):
    model, processor = tiny_model
    # -I keeps the checkout and PYTHONPATH out; -S and the site folders alone keep out the editable install's hooks.
    site = [path for path in sys.path if path.endswith("site-packages")]
    code = f"import sys; sys.path += {site!r}\n" + RELOAD
    (tmp_path / "empty").mkdir()
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(tiny_checkpoint), str(tmp_path / "out.pt")],
        cwd=tmp_path / "empty",
        capture_output=True,
        text=True,
        env={"HF_HOME": str(tmp_path / "hf"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    got = torch.load(tmp_path / "out.pt", weights_only=True)
    batch = processor(ask("ACGUACGUACGG"))
    assert torch.equal(got["input_ids"], batch["input_ids"])
    assert torch.equal(got["logits"], model(**batch).logits)


@torch.no_grad()
def test_save_and_load_keeps_every_logit(tiny_model, tiny_checkpoint):
    from rnagpt.checkpoints import checkpoint

    model, processor = checkpoint.load(tiny_checkpoint)
    batch = processor(ask(RNAS[0]))
    assert torch.equal(model(**batch).logits, tiny_model[0](**batch).logits)
    assert isinstance(model, RnaGptForCausalLM)


@torch.no_grad()
def test_another_embedding_table_is_used(tiny_model):
    model, processor = copy.deepcopy(tiny_model[0]), tiny_model[1]
    batch = processor("Yes.")
    doubled = copy.deepcopy(model.get_input_embeddings())
    doubled.weight.mul_(2)
    expected = model(inputs_embeds=doubled(batch["input_ids"]), attention_mask=batch["attention_mask"]).logits
    model.set_input_embeddings(doubled)
    assert model.get_input_embeddings() is doubled
    assert torch.equal(model(**batch).logits, expected)


def test_a_placeholder_beyond_the_llms_vocabulary_needs_no_suppression(tiny_model):
    model, processor = tiny_model
    vocabulary = model.config.text_config.vocab_size
    inside = processor.rna_token_id < vocabulary
    assert (model.generation_config.suppress_tokens == [processor.rna_token_id]) == inside


def test_an_encoder_that_cannot_be_built_says_why():
    from transformers import EsmConfig

    from modeling_rnagpt.modeling_rnagpt import build_body

    with pytest.raises(ValueError, match="hidden size .30. is not a multiple"):
        build_body(EsmConfig(hidden_size=30, num_attention_heads=4, vocab_size=25, pad_token_id=1))


@torch.no_grad()
def test_labels_pass_over_placeholders(tiny_model):
    model, processor = tiny_model
    batch = processor("<RNAHere>What is it?", rna="ACGUACGGU")
    masked = batch["input_ids"].masked_fill(batch["input_ids"] == processor.rna_token_id, -100)
    loss = model(**batch, labels=batch["input_ids"]).loss
    assert torch.isfinite(loss) and torch.equal(loss, model(**batch, labels=masked).loss)
