"""The RNA encoder by name: RNA-FM's official weights, a folder, a Hub id, or the small one that ships.

Whatever the name, an encoder is a transformers model with `last_hidden_state` and a tokenizer beside it.
"""

import re
import sys
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, AutoTokenizer, EsmConfig, PreTrainedConfig

from modeling_rnagpt.configuration_rnagpt import RNA_FM
from modeling_rnagpt.modeling_rnagpt import encoder_arguments
from processing_rnagpt.rna_tokenizer import RNA_FM_TOKENS, build_rna_tokenizer
from rnagpt.checkpoints import rnafm_weights
from rnagpt.checkpoints.forms import PACKAGED_ENCODER, assets
from rnagpt.checkpoints.llm import RANDOM, reach_hub, refuse_rnagpt
from rnagpt_core.errors import UserError, one_line

OFFICIAL_ENCODER = "rna-fm"
MULTIMOLECULE_FILES = ["config.json", "vocab.txt", "model.safetensors"]


def load_encoder(name: str):
    """Encoder (fp32, eval) and its tokenizer.

    Args:
        name: "packaged" (the small one that ships); "rna-fm" (the official weights, fetched by the package rna-fm); a
            RNA-FM_pretrained.pth; a folder or Hub id that AutoModel loads, or one of multimolecule's RNA-FM;
            "config:PATH" (random weights by a config.json) or "config:rna-fm" (by RNA-FM's own).

    Raises:
        UserError: there is no such encoder, or it cannot be read.
    """
    if name.startswith(RANDOM):
        return random_encoder(name.removeprefix(RANDOM))
    if name == OFFICIAL_ENCODER:
        if Path(name).exists():
            print(f"reading RNA-FM's official weights; for the folder of that name give ./{name}", file=sys.stderr)
        name = str(rnafm_weights.fetch_official())
    if Path(name).is_file() or name.endswith((".pth", ".pt", ".bin")):
        encoder = rnafm_weights.read_official(Path(name))
        return encoder, esm_tokenizer(encoder.config, name)
    path = assets() / "encoder" if name == PACKAGED_ENCODER else name
    if Path(path).exists() and not (Path(path) / "config.json").is_file():
        raise UserError(f"{path} is no encoder: expected a folder with config.json, RNA-FM_pretrained.pth or a Hub id")
    if not Path(path).exists():
        reach_hub(str(path))
    settings, _ = PreTrainedConfig.get_config_dict(path)
    refuse_rnagpt(settings, name, "encoder")
    if settings.get("model_type") == "rnafm":
        folder = path if Path(path).exists() else snapshot_download(path, allow_patterns=MULTIMOLECULE_FILES)
        encoder = rnafm_weights.read_multimolecule(Path(folder), settings)
        return encoder, esm_tokenizer(encoder.config, name)
    try:
        config = AutoConfig.from_pretrained(path)
        encoder = AutoModel.from_pretrained(path, dtype=torch.float32, **encoder_arguments(config)).eval()
    except (ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{path} is no encoder that transformers can load: {one_line(error)[:200]}") from error
    if not hasattr(config, "hidden_size"):
        raise UserError(f"{path} is no RNA encoder: a {config.model_type} model has no hidden_size")
    return encoder, encoder_tokenizer(path, config)


def random_encoder(name: str):
    """Encoder with random weights by a config.json (or "rna-fm"), and its tokenizer: for tests."""
    if name == OFFICIAL_ENCODER:
        config = EsmConfig(**RNA_FM)
    elif Path(name).exists():
        config = AutoConfig.from_pretrained(name)
    else:
        raise UserError(f"no configuration at {name}: expected {RANDOM}{OFFICIAL_ENCODER}, or a config.json's path")
    encoder = AutoModel.from_config(config, **encoder_arguments(config)).float().eval()
    return encoder, encoder_tokenizer(Path(name) if Path(name).is_dir() else Path(name).parent, config)


def encoder_tokenizer(path: str | Path, config):
    """The tokenizer beside an encoder; RNA-FM's own where there is none and the encoder has RNA-FM's form."""
    if Path(path).exists() and not (Path(path) / "tokenizer_config.json").is_file() and config.model_type == "esm":
        return esm_tokenizer(config, path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (ValueError, KeyError) as error:
        raise UserError(f"{path} has no tokenizer that transformers can load: {one_line(error)[:200]}") from error
    words = [word for word in tokenizer.get_vocab() if word not in tokenizer.all_special_tokens]
    nucleotides = sum(bool(re.fullmatch("[ACGTURYKMSWBDHVN]+", word.upper())) for word in words)
    if nucleotides < len(words) / 3:  # the letters of a protein model's are 13 of 25 at most, a text model's far fewer
        raise UserError(
            f"{path} is no RNA encoder: {nucleotides:,} of its tokenizer's {len(words):,} words are nucleotides "
            "(were --encoder and --llm swapped?)"
        )
    # Where its files are missing, transformers makes up an empty one.
    ids = tokenizer("ACGUACGUACGU", add_special_tokens=False)["input_ids"]
    if not ids or set(ids) == {tokenizer.unk_token_id}:
        raise UserError(f"{path} has no tokenizer that knows nucleotides (A, C, G, U): put the encoder's beside it")
    return tokenizer


def esm_tokenizer(config, name: str | Path):
    """RNA-FM's tokenizer for an encoder with its alphabet."""
    if config.vocab_size != len(RNA_FM_TOKENS):
        raise UserError(
            f"{name} has no tokenizer, and its vocabulary of {config.vocab_size} tokens is not RNA-FM's "
            f"({len(RNA_FM_TOKENS)}): put the encoder's tokenizer beside it"
        )
    # Two positions are unused padding offsets, two are BOS and EOS.
    return build_rna_tokenizer(config.max_position_embeddings - config.pad_token_id - 3)
