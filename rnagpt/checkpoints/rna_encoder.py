"""The RNA encoder by name: RNA-FM's official weights, a folder, a Hub id, or the small one that ships.

Whatever the name, an encoder is a transformers model with `last_hidden_state` and a tokenizer beside it.
"""

import importlib.util
import re
import sys
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoTokenizer,
    EsmConfig,
    PreTrainedConfig,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from modeling_rnagpt.base_weights_rnagpt import encoder_class
from modeling_rnagpt.configuration_rnagpt import RNA_FM
from modeling_rnagpt.modeling_rnagpt import encoder_arguments, encoder_max_tokens
from processing_rnagpt.rna_tokenizer import RNA_FM_TOKENS, build_rna_tokenizer
from rnagpt.checkpoints import rnafm_weights
from rnagpt.checkpoints.encoder_check import refuse_unfit
from rnagpt.checkpoints.forms import PACKAGED_ENCODER, assets
from rnagpt.checkpoints.llm import RANDOM, reach_hub, refuse_rnagpt
from rnagpt_core.errors import UserError, one_line

OFFICIAL_ENCODER = "rna-fm"
MULTIMOLECULE_FILES = ["config.json", "vocab.txt", "model.safetensors"]
MULTIMOLECULE_TOKENIZERS = ("RnaTokenizer", "DnaTokenizer")
WIDTHS = ("hidden_size", "d_model", "n_embd", "dim", "embed_dim")  # what configurations call an encoder's width
ENDLESS = 4096  # tokens of a window where neither encoder nor tokenizer has a limit: attention grows with its square
# of a transformers model, what features do not depend on
UNREAD_WEIGHTS = re.compile(r"pooler|contact_head|position_ids|lm_head|cls\.")


def load_encoder(name: str, trust_remote_code: bool = False):
    """Encoder (fp32, eval) and its tokenizer, whose `model_max_length` is the encoder's limit.

    Args:
        name: "packaged" (the small one that ships); "rna-fm" (the official weights, fetched by the package rna-fm); a
            RNA-FM_pretrained.pth; a folder or Hub id that AutoModel loads, or one of multimolecule's RNA-FM;
            "config:PATH" (random weights by a config.json) or "config:rna-fm" (by RNA-FM's own).
        trust_remote_code: run the Python code that a folder or repository brings, or multimolecule's.

    Raises:
        UserError: there is no such encoder, it cannot be read, needs code that is not trusted, or RNA-GPT would not
            read it exactly (see `encoder_check`).
    """
    if name.startswith(RANDOM):
        return random_encoder(name.removeprefix(RANDOM), trust_remote_code)
    if name == OFFICIAL_ENCODER:
        if Path(name).exists():
            print(f"reading RNA-FM's official weights; for the folder of that name give ./{name}", file=sys.stderr)
        name = str(rnafm_weights.fetch_official())
    if Path(name).is_file() or name.endswith((".pth", ".pt", ".bin")):
        encoder = rnafm_weights.read_official(Path(name))
        return encoder, esm_tokenizer(encoder.config, name)
    path = str(assets() / "encoder" if name == PACKAGED_ENCODER else name)
    if Path(path).exists() and not (Path(path) / "config.json").is_file():
        raise UserError(f"{path} is no encoder: expected a folder with config.json, RNA-FM_pretrained.pth or a Hub id")
    if not Path(path).exists():
        reach_hub(path)
    settings, _ = PreTrainedConfig.get_config_dict(path)
    refuse_rnagpt(settings, name, "encoder")
    if settings.get("model_type") == "rnafm":
        folder = path if Path(path).exists() else snapshot_download(path, allow_patterns=MULTIMOLECULE_FILES)
        encoder = rnafm_weights.read_multimolecule(Path(folder), settings)
        return encoder, esm_tokenizer(encoder.config, name)
    trust = admit_code(path, settings, trust_remote_code)
    try:
        config = AutoConfig.from_pretrained(path, **trust)
        refuse_config(config, path)
        arguments = {"dtype": torch.float32, "output_loading_info": True, **encoder_arguments(config), **trust}
        encoder, loading = encoder_class(config).from_pretrained(path, **arguments)
    except UserError:
        raise
    except (ValueError, KeyError, RuntimeError, ImportError, AttributeError, TypeError, SafetensorError) as error:
        raise UserError(f"{path} is no encoder that transformers can load: {one_line(error)[:200]}") from error
    missing = sorted(key for key in loading["missing_keys"] if not UNREAD_WEIGHTS.search(key))
    if missing:
        raise UserError(
            f"{path} lacks {len(missing):,} weights of {type(encoder).__name__} ({missing[0]}, ...), which would be "
            "random: give an encoder of that class, or the files of a whole one"
        )
    return with_tokenizer(encoder.eval(), path, trust)


def random_encoder(name: str, trust_remote_code: bool = False):
    """Encoder with random weights by a config.json (or "rna-fm"), and its tokenizer: for tests, and for `--plan`."""
    if name == OFFICIAL_ENCODER:
        config, trust = EsmConfig(**RNA_FM), {}
    elif Path(name).exists():
        trust = admit_code(name, PreTrainedConfig.get_config_dict(name)[0], trust_remote_code)
        config = AutoConfig.from_pretrained(name, **trust)
    else:
        raise UserError(f"no configuration at {name}: expected {RANDOM}{OFFICIAL_ENCODER}, or a config.json's path")
    refuse_config(config, name)
    encoder = encoder_class(config).from_config(config, **encoder_arguments(config), **trust).float().eval()
    return with_tokenizer(encoder, str(Path(name) if Path(name).is_dir() else Path(name).parent), trust)


def with_tokenizer(encoder, path: str, trust: dict):
    """The encoder and the tokenizer beside it, after the check that RNA-GPT reads it exactly."""
    config = encoder.config
    config.hidden_size = width_of(config)
    tokenizer = encoder_tokenizer(path, config, trust)
    limit = encoder_max_tokens(config)
    if limit is None:
        # as far as it was trained, where that is told
        trained = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
        limit = trained if tokenizer.model_max_length > 10**9 else tokenizer.model_max_length
    tokenizer.model_max_length = min(int(tokenizer.model_max_length), limit or ENDLESS)
    refuse_unfit(encoder, tokenizer, path)
    return encoder, tokenizer


def admit_code(path: str, settings: dict, trusted: bool) -> dict:
    """Arguments for the auto classes: whether to run what code the encoder at `path` needs.

    Args:
        settings: content of its config.json.

    Raises:
        UserError: it needs code of its own, or of multimolecule's, and that is not trusted or not installed.
    """
    kind = settings.get("model_type")
    tokenizer = get_tokenizer_config(path)
    where = "--trust-remote-code, or in a recipe model.trust_remote_code: true"
    if settings.get("auto_map") or tokenizer.get("auto_map"):
        if not trusted:
            raise UserError(
                f"{path} brings Python code of its own, which would run on this machine: read it, then give {where}"
            )
        return {"trust_remote_code": True}
    if kind in CONFIG_MAPPING or tokenizer.get("tokenizer_class") not in MULTIMOLECULE_TOKENIZERS:
        return {"trust_remote_code": False}
    if not trusted or importlib.util.find_spec("multimolecule") is None:
        raise UserError(
            f"{path} is in multimolecule's form ({kind}), whose code transformers lacks: pip install multimolecule "
            f"(its licence is AGPL-3.0), then give {where}"
        )
    with torch.random.fork_rng(devices=[]):  # importing it draws random numbers anew
        importlib.import_module("multimolecule")
    return {"trust_remote_code": False}


def refuse_config(config, path: str) -> None:
    """UserError for a configuration that transformers would build otherwise than it says, or not as an encoder."""
    kind, own = config.model_type, not type(config).__module__.startswith("transformers.")
    positions = getattr(config, "position_embedding_type", None) or "absolute"
    if not own and positions not in ("absolute", "rotary" if kind == "esm" else "absolute"):
        raise UserError(
            f"{path} wants positions of the type {positions}, which transformers' {kind} ignores: its features would "
            "not be its own"
        )
    if getattr(config, "is_encoder_decoder", False) and encoder_class(config).__name__ == "AutoModel":
        raise UserError(f"{path} is an encoder with a decoder ({kind}): of these, T5's encoder alone can be taken")
    if width_of(config) is None:
        raise UserError(f"{path} is no RNA encoder: a {kind} model has no hidden_size")


def width_of(config) -> int | None:
    """Width of an encoder's features, by whatever name its configuration has for it."""
    return next((getattr(config, name) for name in WIDTHS if getattr(config, name, None)), None)


def encoder_tokenizer(path: str, config, trust: dict):
    """The tokenizer beside an encoder; RNA-FM's own where there is none and the encoder has RNA-FM's form."""
    if Path(path).exists() and not (Path(path) / "tokenizer_config.json").is_file() and config.model_type == "esm":
        return esm_tokenizer(config, path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **trust)
    except (ValueError, KeyError, ImportError, AttributeError, TypeError) as error:
        raise UserError(f"{path} has no tokenizer that transformers can load: {one_line(error)[:200]}") from error
    words = [word for word in tokenizer.get_vocab() if word not in tokenizer.all_special_tokens]
    nucleotides = sum(bool(re.fullmatch("[▁#]*[ACGTURYKMSWBDHVN]+", word.upper())) for word in words)
    if nucleotides < len(words) / 3:  # the letters of a protein model's are 13 of 25 at most, a text model's far fewer
        raise UserError(
            f"{path} is no RNA encoder: {nucleotides:,} of its tokenizer's {len(words):,} words are nucleotides "
            "(were --encoder and --llm swapped?)"
        )
    if not words:  # where its files are missing, transformers makes up an empty one
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
