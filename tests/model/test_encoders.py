"""Any encoder that AutoModel loads: features against the encoder's own output, RNA by RNA; slots from its tokenizer.

Each kind has the shape of a published RNA model: rotary Esm (RiNALMo), Bert of nucleotides (SpliceBERT, ERNIE-RNA),
Bert of overlapping 3-mers (DNABERT), of codons, of BPE on DNA (DNABERT-2), and DebertaV2, which refuses sdpa.
"""

import copy

import pytest
import torch
from test_model import ask
from transformers import LlamaForCausalLM

from modeling_rnagpt import RnaGptForCausalLM

RNAS = ["ACGUACGUACGGGUUUAC", "GGCUAGCUCAAUCGGUAGAGCGUGAGACUCUUAAUCUC", "ACGUNRACG"]
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def word_tokenizer(words: list[str], split: str, special: tuple[str, str] | None, max_length: int):
    """Fast tokenizer of the words that the pattern cuts, between two special tokens or none."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    marks = ["[PAD]", "[UNK]", *(special or ())]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*marks, *words])}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(split), behavior="isolated")
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]"}
    if special:
        first, last = special
        backend.post_processor = processors.TemplateProcessing(
            single=f"{first} $A {last}", special_tokens=[(first, 2), (last, 3)]
        )
        names |= {"cls_token": first, "sep_token": last}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=max_length, **names)


def kmer_tokenizer(max_length: int):
    """Overlapping 3-mers of DNA, N - 2 tokens, in the style of DNABERT's Python tokenizer."""
    from transformers import PreTrainedTokenizer

    class KmerTokenizer(PreTrainedTokenizer):
        def __init__(self, **kwargs):
            mers = [a + b + c for a in "ACGT" for b in "ACGT" for c in "ACGT"]
            self.words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *mers])}
            super().__init__(pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", **kwargs)

        vocab_size = 68

        def get_vocab(self):
            return dict(self.words)

        def _tokenize(self, text, **kwargs):
            return [text[i : i + 3] for i in range(len(text) - 2)]

        def _convert_token_to_id(self, token):
            return self.words.get(token, 1)

        def _convert_id_to_token(self, index):
            return list(self.words)[index]

        def build_inputs_with_special_tokens(self, ids, other=None):
            return [2, *ids, 3]

        def get_special_tokens_mask(self, ids, other=None, already_has_special_tokens=False):
            return [1, *[0] * len(ids), 1]

        def num_special_tokens_to_add(self, pair=False):
            return 2

    return KmerTokenizer(model_max_length=max_length)


def bpe_tokenizer(max_length: int):
    """BPE on DNA without special tokens around."""
    import random

    from tokenizers import Tokenizer, models, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(unk_token="[UNK]"))
    draw = random.Random(0)
    texts = ["".join(draw.choices("ACGT", k=200)) for _ in range(20)]
    backend.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=60, special_tokens=["[PAD]", "[UNK]"]))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=max_length, unk_token="[UNK]", pad_token="[PAD]"
    )


def encoder_of(kind: str):
    """(encoder, tokenizer), random weights."""
    from transformers import (
        BertConfig,
        BertModel,
        DebertaV2Config,
        DebertaV2Model,
        EsmConfig,
        EsmModel,
        ModernBertConfig,
        ModernBertModel,
    )

    from modeling_rnagpt.configuration_rnagpt import RNA_FM
    from processing_rnagpt.rna_tokenizer import build_rna_tokenizer

    torch.manual_seed(0)
    marks = ("[CLS]", "[SEP]")
    if kind == "rotary esm":
        config = EsmConfig(**{**RNA_FM, **SMALL, "position_embedding_type": "rotary"})
        return EsmModel(config, add_pooling_layer=False), build_rna_tokenizer(1022)
    if kind == "deberta, lower case":
        tokenizer = word_tokenizer(list("acgun"), ".", marks, 64)
        return DebertaV2Model(DebertaV2Config(**SMALL, vocab_size=9, max_position_embeddings=64)), tokenizer
    if kind == "modernbert":
        tokenizer = word_tokenizer(list("ACGTN"), ".", marks, 64)
        config = ModernBertConfig(**SMALL, vocab_size=9, max_position_embeddings=64, pad_token_id=0)
        return ModernBertModel(config), tokenizer
    tokenizer = {
        "bert": lambda: word_tokenizer(list("ACGUN"), ".", marks, 64),
        "bert of 3-mers": lambda: kmer_tokenizer(64),
        "bert of codons": lambda: word_tokenizer(
            [a + b + c for a in "ACGU" for b in "ACGU" for c in "ACGU"], ".{3}", marks, 16
        ),
        "bert of bpe": lambda: bpe_tokenizer(20),
    }[kind]()
    config = BertConfig(**SMALL, vocab_size=len(tokenizer), max_position_embeddings=tokenizer.model_max_length)
    return BertModel(config), tokenizer  # with a pooler, as AutoModel loads it


KINDS = ["rotary esm", "bert", "bert of 3-mers", "bert of codons", "bert of bpe", "deberta, lower case", "modernbert"]


@pytest.fixture(params=KINDS)
def joined(request, tiny_model):
    """(model, processor, text as the encoder's tokenizer spells it: RNA -> str)."""
    from processing_rnagpt import RnaGptProcessor

    encoder, rna_tokenizer = encoder_of(request.param)
    model, processor = tiny_model
    processor = RnaGptProcessor(
        copy.deepcopy(processor.tokenizer), rna_tokenizer, chat_template=processor.chat_template
    )
    llm = copy.deepcopy(model)
    llm_shell = type(
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
        encoder, llm_shell, rna_token_id=processor.rna_token_id, rna_drop_token_ids=processor.rna_drop_token_ids
    )
    spellings = {
        "rotary esm": str,
        "bert": lambda rna: rna.replace("R", "N"),  # no R in its vocabulary
        "bert of 3-mers": lambda rna: rna.replace("U", "T"),
        "bert of codons": str,
        "bert of bpe": lambda rna: rna.replace("U", "T"),
        "deberta, lower case": lambda rna: rna.replace("R", "N").lower(),
        "modernbert": lambda rna: rna.replace("R", "N").replace("U", "T"),
    }
    return model, processor, spellings[request.param]


@torch.no_grad()
def test_features_are_the_encoders_own_at_the_tokens_between_the_special_ones(joined):
    model, processor, spelled = joined
    batch = processor([ask(rna) for rna in RNAS])
    got, slots = model.model.encode_rna(batch["rna_input_ids"], batch["rna_attention_mask"])
    expected = []
    for rna in RNAS:
        inputs = processor.rna_tokenizer(spelled(rna), return_tensors="pt", return_special_tokens_mask=True)
        special = inputs.pop("special_tokens_mask").bool()
        hidden = model.model.rna_encoder(**inputs).last_hidden_state
        expected.append(hidden[~special])
    assert slots.tolist() == [len(features) for features in expected]
    assert (got - torch.cat(expected)).abs().max() < 1e-5
    assert (batch["input_ids"] == processor.rna_token_id).sum(-1).tolist() == slots.tolist()
    assert torch.isfinite(model(**batch).logits).all()


@torch.no_grad()
def test_special_tokens_are_kept_where_the_settings_say_so(joined):
    model, processor, spelled = copy.deepcopy(joined)
    processor.keep_rna_special_tokens = True
    model.config.rna_drop_token_ids = processor.rna_drop_token_ids
    batch = processor(ask(RNAS[0]))
    ids = processor.rna_tokenizer(spelled(RNAS[0]), return_tensors="pt")
    hidden = model.model.rna_encoder(**ids).last_hidden_state[0]
    got, _ = model.model.encode_rna(batch["rna_input_ids"], batch["rna_attention_mask"])
    assert got.shape == hidden.shape and (got - hidden).abs().max() < 1e-5


@torch.no_grad()
def test_long_rnas_take_windows_of_the_encoders_own_tokens(joined):
    model, processor, spelled = joined
    rna = "ACGGUUACGAUCCGAUUGCA" * 60
    encoded = processor.rna_input(rna)
    slots = encoded.soft_tokens
    body = processor.rna_tokenizer(spelled(rna), add_special_tokens=False, verbose=False)["input_ids"]
    kept = [int(i) for window, keep in zip(encoded.windows, encoded.kept, strict=True) for i in window[keep]]
    assert kept == body and slots == len(body)
    assert len(encoded.windows) > 1
    assert all(len(window) <= processor.rna_tokenizer.model_max_length for window in encoded.windows)
    batch = processor("<RNAHere>", rna=rna)
    inputs = [batch[f"rna_{name}"] for name in ("input_ids", "attention_mask", "index")]
    features, (found,) = model.model.encode_rna(*inputs)
    assert found == slots and torch.isfinite(features).all()


@torch.no_grad()
def test_it_is_saved_and_loaded_with_any_attention_asked_for(joined, tmp_path):
    model, processor, _ = joined
    batch = processor([ask(rna) for rna in RNAS])
    real = batch["attention_mask"].bool()  # eager and sdpa differ in what they make of padding
    expected = model(**batch).logits[real]
    model.save_pretrained(tmp_path)
    for implementation in (None, "sdpa", "eager"):
        again, info = RnaGptForCausalLM.from_pretrained(
            tmp_path, attn_implementation=implementation, output_loading_info=True
        )
        assert not info["missing_keys"] and not info["unexpected_keys"]
        if implementation:
            assert again.model.language_model.config._attn_implementation == implementation
        assert (again(**batch).logits[real] - expected).abs().max() < 1e-4


def test_what_an_alphabet_lacks_is_named_with_its_position():
    """A tokenizer without an unknown token drops what it does not know: that would shift every later nucleotide."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    from processing_rnagpt.rna_sequences import RnaReader

    backend = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate("ACGU")}, merges=[]))
    reader = RnaReader(PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=50), [])
    assert reader.read(["ACGU"])[0].windows[0].tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match=r"RNA 2 of 2: 'R' at position 3 is not in the alphabet"):
        reader.read(["ACGU", "A-CRU"])


def test_an_rna_too_short_for_a_token_is_refused():
    from processing_rnagpt.rna_sequences import RnaReader

    with pytest.raises(ValueError, match="RNA 1 of 1 is too short"):
        RnaReader(kmer_tokenizer(20), [2, 3]).read(["AC"])


def test_a_tokenizer_with_special_tokens_inside_the_rna_is_refused():
    from processing_rnagpt.rna_sequences import RnaReader

    tokenizer = kmer_tokenizer(20)
    tokenizer.build_inputs_with_special_tokens = lambda ids, other=None: [2, *ids[:3], 3, *ids[3:]]
    with pytest.raises(ValueError, match="KmerTokenizer cannot be used"):
        RnaReader(tokenizer, [2, 3])


def test_rows_beyond_the_encoders_positions_are_refused_with_both_numbers(tiny_model):
    model, _ = tiny_model
    ids = torch.full((1, 1, 123), 4)
    with pytest.raises(ValueError, match="rows of 123 tokens, but the encoder has 122 positions"):
        model.model.encode_rna(ids, torch.ones_like(ids))


@pytest.mark.parametrize("kind", KINDS)
def test_the_limit_told_is_the_encoders_own(kind):
    """What is within it runs; one token more fails inside the encoder where there is a limit at all."""
    from modeling_rnagpt.modeling_rnagpt import encoder_max_tokens

    encoder, _ = encoder_of(kind)
    limit = encoder_max_tokens(encoder.config)
    ids = torch.full((1, (limit or 300) + 1), 4)
    encoder(input_ids=ids[:, :-1], attention_mask=torch.ones_like(ids[:, :-1]))
    if limit is None:
        encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
    else:
        with pytest.raises((IndexError, RuntimeError)):
            encoder(input_ids=ids, attention_mask=torch.ones_like(ids))


@pytest.mark.parametrize("frozen", [True, False])
def test_the_encoder_is_frozen_when_made_and_when_loaded(tiny_model, tmp_path, frozen):
    model = copy.deepcopy(tiny_model[0])
    made = RnaGptForCausalLM.from_encoder_and_llm(
        model.model.rna_encoder,
        LlamaForCausalLM(model.config.text_config),
        rna_token_id=model.config.rna_token_id,
        freeze_rna_encoder=frozen,
    )
    made.save_pretrained(tmp_path)
    for either in (made, RnaGptForCausalLM.from_pretrained(tmp_path), RnaGptForCausalLM(made.config)):
        assert {p.requires_grad for p in either.model.rna_encoder.parameters()} == {not frozen}
        others = [p for name, p in either.named_parameters() if "rna_encoder" not in name]
        assert all(p.requires_grad for p in others)


def test_a_frozen_encoder_stays_in_evaluation_mode(tiny_model):
    model = copy.deepcopy(tiny_model[0])
    model.model.rna_encoder.requires_grad_(True)
    model.train()
    assert model.model.rna_encoder.training
    model.model.rna_encoder.requires_grad_(False)
    model.train()
    assert model.model.projector.training and not any(m.training for m in model.model.rna_encoder.modules())
