"""Tiny random encoders of the families that people have, as folders with the files of the families' own repositories.

    family.make(folder); load_encoder(str(folder), family.code)

How a family's users write an RNA for its tokenizer stands here a second time (`text`), and so do the special tokens
around it and the limit: what RNA-GPT finds out by itself is compared with them.
"""

import itertools
import json
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
BERT_MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def mers(k: int, letters: str = "ACGT") -> list[str]:
    return ["".join(letters) for letters in itertools.product(letters, repeat=k)]


def dna(rna: str) -> str:
    return rna.replace("U", "T")


def spaced(rna: str) -> str:
    return " ".join(rna)


def overlapping(k: int) -> Callable[[str], str]:
    return lambda rna: " ".join(rna[i : i + k] for i in range(len(rna) - k + 1))


@dataclass(frozen=True)
class Family:
    """One family.

    Attributes:
        name: as its publication calls it.
        form: its class in transformers and its tokenisation, for docs/models.md.
        make: writes the folder of a tiny one.
        text: an RNA of A, C, G, U as its tokenizer's users write it.
        ends: special tokens before and after.
        limit: tokens of a window, special ones included.
        tokens: tokens of an RNA of N nt.
        code: its repository needs its own code.
    """

    name: str
    form: str
    make: Callable[[Path], None]
    text: Callable[[str], str]
    ends: tuple[int, int]
    limit: int
    tokens: Callable[[int], int] | None = lambda n: n
    code: bool = False


def save(model, folder: Path) -> None:
    """A model's files, with weights large enough for positions to differ."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    model.save_pretrained(folder)


def made(model_class, config, files: dict[str, str | dict], **arguments) -> Callable[[Path], None]:
    """Writes a model with random weights and the files of its tokenizer."""

    def make(folder: Path) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            save(model_class(config, **arguments), folder)
        write(folder, files)

    return make


def write(folder: Path, files: dict[str, str | dict]) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


def bert_files(words: list[str], **settings) -> dict:
    """Of a BertTokenizer: vocab.txt and settings."""
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": False, **settings}
    return {"vocab.txt": "\n".join([*BERT_MARKS, *words]) + "\n", "tokenizer_config.json": settings}


def esm_files(words: list[str], **settings) -> dict:
    """Of an EsmTokenizer."""
    marks = ["<cls>", "<pad>", "<eos>", "<unk>", *words, "<mask>"]
    return {"vocab.txt": "\n".join(marks), "tokenizer_config.json": {"tokenizer_class": "EsmTokenizer", **settings}}


def fast_files(backend, **settings) -> dict:
    """Of a plain fast tokenizer."""
    names = {"tokenizer_class": "PreTrainedTokenizerFast", **settings}
    return {"tokenizer.json": backend.to_str(), "tokenizer_config.json": names}


def letters_tokenizer(letters: str, marks: list[str], template: str | None = None):
    """One token per letter, as `tokenizers` cuts it."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

    words = {word: i for i, word in enumerate([*marks, *letters])}
    backend = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    if template:
        special = [(mark, words[mark]) for mark in template.split() if mark in marks]
        backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    return backend


def bpe_tokenizer(letters: str, marks: list[str], size: int, template: str | None = None):
    """BPE as DNABERT-2 has it, learned from random sequences."""
    import random

    from tokenizers import Tokenizer, models, processors, trainers

    backend, draw = Tokenizer(models.BPE(unk_token="[UNK]")), random.Random(0)
    texts = ["".join(draw.choices(letters, k=200)) for _ in range(20)]
    backend.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, special_tokens=marks, show_progress=False))
    if template:
        special = [(mark, marks.index(mark)) for mark in template.split() if mark in marks]
        backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    return backend


def t5_tokenizer():
    """SentencePiece's unigrams of single letters behind a space, as ProtT5 has them."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<pad>", "</s>", "<unk>", *(f"▁{letter}" for letter in "AGCTUNRYKMSWBDHV")]
    backend = Tokenizer(models.Unigram([(word, -float(i)) for i, word in enumerate(words)], unk_id=2))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return backend


def code_files(kind: str, source: str, tokenizer: str | None = None, **settings) -> dict:
    """A repository with its own code: configuration_KIND.py and modeling_KIND.py, perhaps tokenization_KIND.py."""
    name = kind.capitalize()
    auto = {"AutoConfig": f"configuration_{kind}.{name}Config", "AutoModel": f"modeling_{kind}.{name}Model"}
    files: dict = {
        f"configuration_{kind}.py": textwrap.dedent(f"""
            from transformers import PreTrainedConfig

            class {name}Config(PreTrainedConfig):
                model_type = "{kind}"

                def __init__(self, **kwargs):
                    super().__init__(**kwargs)
        """),
        f"modeling_{kind}.py": textwrap.dedent(source),
        "config.json": {"auto_map": auto, "model_type": kind, **settings},
    }
    if tokenizer is not None:
        files[f"tokenization_{kind}.py"] = textwrap.dedent(tokenizer)
        auto_map = {"AutoTokenizer": [f"tokenization_{kind}.{name}Tokenizer", None]}
        files["tokenizer_config.json"] = {"tokenizer_class": f"{name}Tokenizer", "auto_map": auto_map}
    return files


def made_by_code(files: dict, state: Callable[[], dict]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        from safetensors.torch import save_file

        write(folder, files)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            save_file(state(), folder / "model.safetensors", metadata={"format": "pt"})

    return make


# A Python tokenizer of single letters with [SEP] behind, as HyenaDNA's and Caduceus's repositories bring one.
CHARACTERS = """
    from transformers import PreTrainedTokenizer

    class {name}Tokenizer(PreTrainedTokenizer):
        def __init__(self, **kwargs):
            marks = ["[CLS]", "[SEP]", "[BOS]", "[MASK]", "[PAD]", "[RESERVED]", "[UNK]"]
            self.words = {{word: i for i, word in enumerate([*marks, *"ACGTN"])}}
            names = dict(bos_token="[BOS]", eos_token="[SEP]", sep_token="[SEP]", cls_token="[CLS]", pad_token="[PAD]",
                         mask_token="[MASK]", unk_token="[UNK]")
            super().__init__(**{{**names, **kwargs}})

        @property
        def vocab_size(self):
            return len(self.words)

        def get_vocab(self):
            return dict(self.words)

        def _tokenize(self, text, **kwargs):
            return list(text)

        def _convert_token_to_id(self, token):
            return self.words.get(token, 6)

        def _convert_id_to_token(self, index):
            return list(self.words)[index]

        def build_inputs_with_special_tokens(self, ids, other=None):
            return ids + [1]

        def get_special_tokens_mask(self, ids, other=None, already_has_special_tokens=False):
            return [0] * len(ids) + [1]

        def num_special_tokens_to_add(self, pair=False):
            return 1

        def save_vocabulary(self, folder, filename_prefix=None):
            return ()
"""

# No attention mask: what stands behind an RNA would be read with it.
STATE_SPACE = """
    import torch
    from torch import nn
    from transformers import PreTrainedModel
    from transformers.modeling_outputs import BaseModelOutput

    from .configuration_{kind} import {name}Config

    class {name}Model(PreTrainedModel):
        config_class = {name}Config
        base_model_prefix = "backbone"

        def __init__(self, config):
            super().__init__(config)
            self.embeddings = nn.Embedding(config.vocab_size, config.d_model)
            self.mix = nn.GRU(config.d_model, config.d_model // {ways}, batch_first=True, bidirectional={ways} == 2)
            self.post_init()

        def get_input_embeddings(self):
            return self.embeddings

        def _init_weights(self, module):
            pass

        def forward(self, input_ids=None, inputs_embeds=None, output_hidden_states=None, return_dict=None):
            hidden = self.embeddings(input_ids) if inputs_embeds is None else inputs_embeds
            return BaseModelOutput(last_hidden_state=hidden + self.mix(hidden)[0])
"""

# ALiBi in place of positions, a plain tuple out: as the code of DNABERT-2 does.
ALIBI = """
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from .configuration_mosaic import MosaicConfig

    class MosaicModel(PreTrainedModel):
        config_class = MosaicConfig

        def __init__(self, config, add_pooling_layer=True):
            super().__init__(config)
            self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
            self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
            self.post_init()

        def get_input_embeddings(self):
            return self.embeddings

        def _init_weights(self, module):
            pass

        def forward(self, input_ids, token_type_ids=None, attention_mask=None, position_ids=None, **kwargs):
            mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            hidden = self.embeddings(input_ids)
            query, key, value = self.qkv(hidden).chunk(3, dim=-1)
            place = torch.arange(input_ids.shape[1], device=input_ids.device)
            far = (place[None] - place[:, None]).abs() * 0.1
            scores = query @ key.transpose(1, 2) / hidden.shape[-1] ** 0.5 - far
            scores = scores.masked_fill(mask[:, None] == 0, float("-inf"))
            return hidden + scores.softmax(-1) @ value, None
"""

# multimolecule's form: T read as U inside, letters, k-mers or whole codons, <cls> and <eos>.
CODONS = """
    from transformers import PreTrainedTokenizer

    class {name}Tokenizer(PreTrainedTokenizer):
        def __init__(self, **kwargs):
            marks = ["<pad>", "<cls>", "<eos>", "<unk>", "<mask>", "<null>"]
            codons = [a + b + c for a in "ACGUN" for b in "ACGUN" for c in "ACGUN"]
            self.words = {{word: i for i, word in enumerate([*marks, *codons])}}
            names = dict(bos_token="<cls>", cls_token="<cls>", eos_token="<eos>", sep_token="<eos>", pad_token="<pad>",
                         unk_token="<unk>", mask_token="<mask>")
            super().__init__(**{{**names, **kwargs}})

        @property
        def vocab_size(self):
            return len(self.words)

        def get_vocab(self):
            return dict(self.words)

        def _tokenize(self, text, **kwargs):
            text = text.upper().replace("T", "U")
            if len(text) % 3:
                raise ValueError(f"length of input sequence must be a multiple of 3, but got {{len(text)}}")
            return [text[i : i + 3] for i in range(0, len(text), 3)]

        def _convert_token_to_id(self, token):
            return self.words.get(token, 3)

        def _convert_id_to_token(self, index):
            return list(self.words)[index]

        def build_inputs_with_special_tokens(self, ids, other=None):
            return [1, *ids, 2]

        def get_special_tokens_mask(self, ids, other=None, already_has_special_tokens=False):
            return [1, *[0] * len(ids), 1]

        def num_special_tokens_to_add(self, pair=False):
            return 2

        def save_vocabulary(self, folder, filename_prefix=None):
            return ()
"""


def state_space_weights(vocabulary: int, width: int, ways: int) -> dict:
    from torch import nn

    embeddings, mix = nn.Embedding(vocabulary, width), nn.GRU(width, width // ways, bidirectional=ways == 2)
    return {
        "embeddings.weight": embeddings.weight.detach(),
        **{f"mix.{name}": tensor.detach().clone() for name, tensor in mix.state_dict().items()},
    }


def attention_weights(vocabulary: int, width: int) -> dict:
    from torch import nn

    qkv = nn.Linear(width, 3 * width)
    state = {f"qkv.{name}": tensor.detach() for name, tensor in qkv.state_dict().items()}
    return {"embeddings.weight": nn.Embedding(vocabulary, width).weight.detach(), **state}


def state_space(kind: str, ways: int, **settings) -> Callable[[Path], None]:
    names = {"kind": kind, "name": kind.capitalize(), "ways": ways}
    files = code_files(
        kind, STATE_SPACE.format(**names), CHARACTERS.format(**names), vocab_size=12, d_model=32, **settings
    )
    return made_by_code(files, lambda: state_space_weights(12, 32, ways))


def families() -> list[Family]:
    """All of them, the exact ones."""
    import transformers as t

    from modeling_rnagpt.configuration_rnagpt import RNA_FM
    from processing_rnagpt.rna_tokenizer import build_rna_tokenizer

    def bert(words: list[str], **settings) -> t.BertConfig:
        return t.BertConfig(**{**SMALL, "vocab_size": 5 + len(words), "max_position_embeddings": 128, **settings})

    rna_fm = build_rna_tokenizer(126)
    rna_fm_files = fast_files(rna_fm.backend_tokenizer, model_max_length=128) | {
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": 128,
            **{f"{name}_token": f"<{name}>" for name in ("cls", "eos", "pad", "unk", "mask")},
        }
    }
    small_esm = {**RNA_FM, **SMALL, "max_position_embeddings": 130}
    rotary = {**small_esm, "position_embedding_type": "rotary", "vocab_size": 10, "mask_token_id": 9}
    six = {**small_esm, "vocab_size": 5 + 4096 + 5, "mask_token_id": 4105, "eos_token_id": None}
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    named = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    around = "[CLS] $A [SEP]"
    t5 = t.T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, vocab_size=19, n_positions=128)
    roberta_marks = ["<s>", "<pad>", "</s>", "[UNK]"]
    roberta_names = {"unk_token": "[UNK]", "pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>"}
    roberta_letters = fast_files(letters_tokenizer("ACGUN", roberta_marks, "<s> $A </s>"), **roberta_names)
    offset = {**SMALL, "vocab_size": 9, "max_position_embeddings": 130, "pad_token_id": 1}
    bpe = bpe_tokenizer("ACGT", marks, 60, around)
    mosaic = code_files(
        "mosaic", ALIBI, model_type="mosaic", hidden_size=32, vocab_size=60, max_position_embeddings=64
    )
    codon_code = code_files(
        "codon",
        ALIBI.replace("mosaic", "codon").replace("Mosaic", "Codon"),
        CODONS.format(name="Codon"),
        hidden_size=32,
        vocab_size=131,
        max_position_embeddings=64,
    )
    return [
        Family("RNA-FM", "ESM, letters", made(t.EsmModel, t.EsmConfig(**small_esm), rna_fm_files), str, (1, 1), 128),
        Family(
            "RiNALMo (ESM form)",
            "ESM rotary, letters",
            made(t.EsmModel, t.EsmConfig(**rotary), esm_files(list("ACGUN"), model_max_length=64)),
            str,
            (1, 1),
            64,
        ),
        Family(
            "Nucleotide Transformer",
            "ESM, 6-mers side by side",
            made(t.EsmModel, t.EsmConfig(**six), esm_files([*mers(6), *"ACGTN"], eos_token=None)),
            dna,
            (1, 0),
            128,
            lambda n: n // 6 + n % 6,
        ),
        Family(
            "SpliceBERT",
            "BERT, spaced letters",
            made(t.BertModel, bert(list("NACGT")), bert_files(list("NACGT"), model_max_length=96)),
            lambda rna: spaced(dna(rna)),
            (1, 1),
            96,
        ),
        *(
            Family(
                f"DNABERT-{k}",
                f"BERT, overlapping {k}-mers",
                made(t.BertModel, bert(mers(k)), bert_files(mers(k), model_max_length=512)),
                lambda rna, k=k: overlapping(k)(dna(rna)),
                (1, 1),
                128,
                lambda n, k=k: n - k + 1,
            )
            for k in (3, 6)
        ),
        Family(
            "3UTRBERT",
            "BERT, overlapping 3-mers of RNA",
            made(t.BertModel, bert(mers(3, "ACGU")), bert_files(mers(3, "ACGU"))),
            overlapping(3),
            (1, 1),
            128,
            lambda n: n - 2,
        ),
        Family(
            "DNABERT-2",
            "own code, ALiBi, BPE",
            made_by_code(mosaic | fast_files(bpe, **named), lambda: attention_weights(60, 32)),
            dna,
            (1, 1),
            64,
            None,
            code=True,
        ),
        Family(
            "HyenaDNA",
            "own code, letters, no attention mask",
            state_space("hyenadna", 1, max_seq_len=130),
            dna,
            (0, 1),
            130,
            code=True,
        ),
        Family(
            "Caduceus",
            "own code, both directions, letters, no attention mask",
            state_space("caduceus", 2),
            dna,
            (0, 1),
            4096,
            code=True,
        ),
        Family(
            "CaLM (codons)",
            "own code, codons",
            made_by_code(codon_code, lambda: attention_weights(131, 32)),
            str,
            (1, 1),
            64,
            lambda n: n // 3,
            code=True,
        ),
        Family(
            "ModernBERT",
            "ModernBERT, letters",
            made(
                t.ModernBertModel,
                t.ModernBertConfig(**SMALL, vocab_size=9, max_position_embeddings=128, pad_token_id=0),
                fast_files(letters_tokenizer("ACGTN", marks, around), **named),
            ),
            dna,
            (1, 1),
            128,
        ),
        Family(
            "RoFormer",
            "RoFormer, letters in lower case",
            made(
                t.RoFormerModel,
                t.RoFormerConfig(**SMALL, vocab_size=9, embedding_size=32, max_position_embeddings=128),
                fast_files(letters_tokenizer("acgun", marks, around), **named),
            ),
            str.lower,
            (1, 1),
            128,
        ),
        Family(
            "T5 encoder (ProtT5 form)",
            "T5, spaced letters",
            made(
                t.T5ForConditionalGeneration,
                t5,
                fast_files(t5_tokenizer(), unk_token="<unk>", pad_token="<pad>", eos_token="</s>"),
            ),
            spaced,
            (0, 1),
            128,
        ),
        Family(
            "RoBERTa",
            "RoBERTa, letters",
            made(t.RobertaModel, t.RobertaConfig(**offset), roberta_letters),
            str,
            (1, 1),
            128,
        ),
        Family(
            "Longformer",
            "Longformer, letters",
            made(t.LongformerModel, t.LongformerConfig(**offset, attention_window=16), roberta_letters),
            str,
            (1, 1),
            128,
        ),
        Family(
            "ELECTRA",
            "ELECTRA, spaced letters in lower case",
            made(
                t.ElectraModel,
                t.ElectraConfig(**SMALL, vocab_size=10, embedding_size=16, max_position_embeddings=128),
                bert_files(list("acgun"), do_lower_case=True),
            ),
            lambda rna: spaced(rna.lower()),
            (1, 1),
            128,
        ),
        Family(
            "DistilBERT",
            "DistilBERT, spaced letters",
            made(
                t.DistilBertModel,
                t.DistilBertConfig(
                    dim=32, n_layers=2, n_heads=4, hidden_dim=64, vocab_size=10, max_position_embeddings=128
                ),
                bert_files(list("ACGUN")),
            ),
            spaced,
            (1, 1),
            128,
        ),
        Family(
            "DeBERTa-v2",
            "DeBERTa-v2, letters",
            made(
                t.DebertaV2Model,
                t.DebertaV2Config(**SMALL, vocab_size=9, max_position_embeddings=128),
                fast_files(letters_tokenizer("ACGUN", marks, around), **named),
            ),
            str,
            (1, 1),
            128,
        ),
        Family(
            "BERT without special tokens",
            "BERT, letters, no pad, CLS or SEP token",
            made(
                t.BertModel, bert([], vocab_size=9), fast_files(letters_tokenizer("ACGUN", marks), unk_token="[UNK]")
            ),
            str,
            (0, 0),
            128,
        ),
    ]


def refused_families() -> dict[str, tuple[Callable[[Path], None], str]]:
    """Name -> (writes the folder, what the refusal says)."""
    import transformers as t

    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    letters = fast_files(letters_tokenizer("ACGUN", marks, "[CLS] $A [SEP]"), unk_token="[UNK]", pad_token="[PAD]")
    bert = {**SMALL, "vocab_size": 10, "max_position_embeddings": 64}
    bart = t.BartConfig(
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=32, decoder_ffn_dim=32, vocab_size=9, max_position_embeddings=64
    )  # fmt: skip
    funnel = t.FunnelConfig(
        vocab_size=9, block_sizes=[1, 1], d_model=32, n_head=4, d_head=8, d_inner=64, num_decoder_layers=0
    )
    return {
        "BERT with relative positions": (
            made(t.BertModel, t.BertConfig(**bert, position_embedding_type="relative_key"), letters),
            "positions of the type relative_key, which transformers' bert ignores",
        ),
        "BART": (made(t.BartModel, bart, letters), "an encoder with a decoder"),
        "Funnel without its decoder": (made(t.FunnelBaseModel, funnel, letters), ""),
        "BERT of a text": (
            made(t.BertModel, t.BertConfig(**bert), bert_files(["the", "of", "and", "##ing", "protein"])),
            "words are nucleotides",
        ),
        "BERT whose letters are unknown": (
            made(t.BertModel, t.BertConfig(**bert), bert_files(["ACG", "GGG", "AC", "NN"])),
            "does not know nucleotides",
        ),
        "BERT with another's tokenizer": (
            made(t.BertModel, t.BertConfig(**bert), bert_files(mers(3))),
            "the tokenizer belongs to another encoder",
        ),
        "multimolecule without its package": (
            lambda folder: write(
                folder,
                {
                    "config.json": {"model_type": "rinalmo", "hidden_size": 32},
                    "tokenizer_config.json": {"tokenizer_class": "RnaTokenizer"},
                },
            ),
            "is in multimolecule's form",
        ),
    }


def table_rows(folder: Path) -> list[dict[str, str]]:
    """Rows of docs/models.md, made by running the check on each family: family, form, tokens, limit, result.

    Args:
        folder: where the tiny encoders are written.
    """
    from modeling_rnagpt.modeling_rnagpt import COUNT_FROM_PADDING, encoder_max_tokens
    from rnagpt.checkpoints.encoder_check import check_encoder
    from rnagpt.checkpoints.rna_encoder import load_encoder
    from rnagpt_core.errors import UserError

    rows = []
    for number, family in enumerate(families()):
        place = folder / f"exact{number}"
        family.make(place)
        encoder, tokenizer = load_encoder(str(place), family.code)
        findings = {finding.name: finding for finding in check_encoder(encoder, tokenizer)}
        failed = [finding.detail for finding in findings.values() if not finding.passed]
        limit = "its positions (max_position_embeddings)"
        if encoder_max_tokens(encoder.config) is None:
            limit = "none of its own: the tokenizer's, else as far as it was trained, else 4,096 tokens"
        elif encoder.config.model_type in COUNT_FROM_PADDING:
            limit = "its positions (max_position_embeddings - pad_token_id - 1)"
        rows.append(
            {
                "family": family.name,
                "form": family.form + (" (--trust-remote-code)" if family.code else ""),
                "tokens": f"{findings['alphabet'].detail}: {findings['tokens'].detail}",
                "limit": limit,
                "result": f"refused: {failed[0]}" if failed else "exact",
            }
        )
    for number, (name, (make, _)) in enumerate(refused_families().items()):
        place = folder / f"refused{number}"
        make(place)
        try:
            load_encoder(str(place))
            reason = "not refused"
        except UserError as error:
            reason = f"refused: {str(error).removeprefix(str(place)).strip()}"
        rows.append({"family": name, "form": "", "tokens": "", "limit": "", "result": reason})
    return rows
