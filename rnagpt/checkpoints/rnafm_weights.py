"""RNA-FM's published weights as the `EsmModel` that RNA-GPT carries: the same numbers under other names.

    RNA-FM_pretrained.pth      {"args": Namespace, "model": state dict}, the official file; nothing it holds is run
    a multimolecule folder     config.json (model_type "rnafm"), model.safetensors, vocab.txt

Neither `rna-fm` nor `multimolecule` is needed to read them. `fetch_official` asks `rna-fm`'s own loader to download
the official file.
"""

import argparse
import os
import pickle
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import EsmConfig, EsmModel

from modeling_rnagpt.configuration_rnagpt import RNA_FM
from processing_rnagpt.rna_tokenizer import RNA_FM_TOKENS
from rnagpt_core.errors import UserError
from rnagpt_core.safe_text import one_line

OFFICIAL_FILE = "RNA-FM_pretrained.pth"
# EsmModel's words -> the official file's, applied in this order
OFFICIAL_WORDS = {
    "embeddings.word_embeddings": "embed_tokens",
    "embeddings.position_embeddings": "embed_positions",
    "embeddings.layer_norm": "emb_layer_norm_before",
    "encoder.emb_layer_norm_after": "emb_layer_norm_after",
    "encoder.layer.": "layers.",
    "attention.self.query": "self_attn.q_proj",
    "attention.self.key": "self_attn.k_proj",
    "attention.self.value": "self_attn.v_proj",
    "attention.output.dense": "self_attn.out_proj",
    "attention.LayerNorm": "self_attn_layer_norm",
    "intermediate.dense": "fc1",
    "output.dense": "fc2",
    "LayerNorm": "final_layer_norm",
}
MULTIMOLECULE_WORDS = {"LayerNorm": "layer_norm", "encoder.emb_layer_norm_after": "encoder.layer_norm"}
# settings of a multimolecule config.json that mean the same in EsmConfig
MULTIMOLECULE_SETTINGS = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings"),
    *("layer_norm_eps", "token_dropout"),
)
# What no hidden state depends on: the heads of pre-training, of contact maps and of structure, and a pooler.
HEADS = ("lm_head.", "contact_head.", "ss_head.", "pooler.")


def fetch_official() -> Path:
    """The official file, downloaded by `rna-fm`'s own loader on first use and kept in torch's cache.

    Raises:
        UserError: it cannot be fetched, or what came is not that file.
        ModuleNotFoundError: `rna-fm` (the extra "encoder") is not installed.
    """
    from fm.pretrained import rna_fm_t12

    path = Path(torch.hub.get_dir()) / "checkpoints" / OFFICIAL_FILE
    # The loader unpickles what it fetched without restriction; torch reads this variable and allows tensors alone.
    before = dict(os.environ)
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            rna_fm_t12()
    except OSError as error:
        raise UserError(
            f"RNA-FM's weights could not be fetched by the package rna-fm ({one_line(error)}): connect, "
            f"or download {OFFICIAL_FILE} from the RNA-FM project's page by hand and give its path as --encoder"
        ) from error
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path}, which the package rna-fm fetched, is no RNA-FM checkpoint ({one_line(error)[:120]}"
            "): remove it and run the command again"
        ) from error
    finally:
        del os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]
        os.environ.update(before)
    return path


def read_official(path: Path) -> EsmModel:
    """The encoder in RNA-FM_pretrained.pth (fp32, eval).

    `token_dropout` in the file's arguments is honoured: EsmModel then scales its embeddings as RNA-FM does.

    Raises:
        UserError: the file is no such checkpoint, or one of another architecture.
    """
    content = load_tensors(path)
    state = content.get("model", content)
    if "args" not in content:
        print(f"{path} holds weights without arguments: token_dropout is taken to be off", file=sys.stderr)
    arguments = content.get("args", {})
    arguments = vars(arguments) if isinstance(arguments, argparse.Namespace) else arguments
    if not isinstance(arguments, Mapping):
        raise UserError(f"{path} is no RNA-FM checkpoint: its 'args' are {type(arguments).__name__}, not a Namespace")
    arguments = {name.removeprefix("encoder_"): value for name, value in arguments.items()}
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path} is no RNA-FM checkpoint: expected a state dict, alone or under the key 'model'")
    prefix = re.compile(r"^((module|backbone|model|encoder|sentence_encoder)\.)+")
    state = {prefix.sub("", name): tensor for name, tensor in state.items()}
    needed = ("embed_tokens.weight", "embed_positions.weight", "layers.0.fc1.weight")
    absent = [name for name in needed if name not in state]
    if absent or arguments.get("arch", "roberta_large") != "roberta_large":
        found = f"it has no {absent[0]}" if absent else f"its architecture is {arguments['arch']!r}"
        raise UserError(f"{path} is no RNA-FM checkpoint: {found}")
    words = state["embed_tokens.weight"]
    vocabulary, hidden = words.shape
    if vocabulary != len(RNA_FM_TOKENS):
        codons = " (mRNA-FM, which reads codons, is not supported)" if vocabulary == 73 else ""
        raise UserError(
            f"{path} has a vocabulary of {vocabulary} tokens, RNA-FM's has {len(RNA_FM_TOKENS)}{codons}: give "
            f"{OFFICIAL_FILE}"
        )
    published = RNA_FM["num_attention_heads"] if hidden == RNA_FM["hidden_size"] else None
    heads = arguments.get("attention_heads", published)
    if heads is None:
        raise UserError(f"{path} does not say how many attention heads it has: expected args.attention_heads in it")
    sizes = {
        "hidden_size": hidden,
        "num_hidden_layers": 1 + max(int(name.split(".")[1]) for name in state if name.startswith("layers.")),
        "num_attention_heads": int(heads),
        "intermediate_size": state["layers.0.fc1.weight"].shape[0],
        "max_position_embeddings": state["embed_positions.weight"].shape[0],
    }
    config = EsmConfig(**{**RNA_FM, **sizes, "token_dropout": bool(arguments.get("token_dropout", False))})
    # As rna-fm's loader does: a masked position starts from nothing.
    state["embed_tokens.weight"] = words.index_fill(0, torch.tensor(RNA_FM["mask_token_id"]), 0.0)
    return filled(config, state, OFFICIAL_WORDS, path)


def read_multimolecule(folder: Path, config: Mapping) -> EsmModel:
    """The encoder in a multimolecule RNA-FM folder (fp32, eval), its vocabulary put in RNA-FM's own order.

    Args:
        config: the content of the folder's config.json.

    Raises:
        UserError: a file is missing, or a size in it is not what RNA-FM's form allows.
    """
    vocabulary_file = folder / "vocab.txt"
    if not vocabulary_file.is_file():
        raise UserError(f"{folder} has no vocab.txt: without it the rows of its embeddings have no names")
    vocabulary = {token: row for row, token in enumerate(vocabulary_file.read_text().split())}
    absent = [token for token in RNA_FM_TOKENS[:8] if token not in vocabulary]
    if absent:
        raise UserError(f"{vocabulary_file} lacks {', '.join(absent)}: expected the tokens of multimolecule's RNA-FM")
    if (folder / "model.safetensors").is_file():
        state = load_file(folder / "model.safetensors")
    elif (folder / "pytorch_model.bin").is_file():
        state = load_tensors(folder / "pytorch_model.bin")
    else:
        raise UserError(f"{folder} holds a configuration but no weights (model.safetensors): it is incomplete")
    state = {re.sub(r"^(model|rnafm)\.", "", name): tensor for name, tensor in state.items()}
    words = "embeddings.word_embeddings.weight"
    if words not in state or len(state[words]) != len(vocabulary):
        found = f"{len(state[words])} rows of embeddings" if words in state else f"no {words}"
        raise UserError(f"{folder} has {found} for the {len(vocabulary)} tokens of its vocab.txt: it is damaged")
    # RNA-FM's codes that this vocabulary lacks are unknown to it; <null_...> never stands in a sequence.
    rows = [vocabulary.get(token, vocabulary["<unk>"]) for token in RNA_FM_TOKENS]
    state[words] = state[words][rows]
    esm = EsmConfig(**{**RNA_FM, **{key: config[key] for key in MULTIMOLECULE_SETTINGS if key in config}})
    return filled(esm, state, MULTIMOLECULE_WORDS, folder)


def renamed(name: str, words: Mapping[str, str]) -> str:
    """EsmModel's name of a tensor -> the file's.

    >>> renamed("encoder.layer.3.attention.output.dense.bias", OFFICIAL_WORDS)
    'layers.3.self_attn.out_proj.bias'
    >>> renamed("encoder.layer.3.LayerNorm.weight", OFFICIAL_WORDS)
    'layers.3.final_layer_norm.weight'
    """
    for ours, theirs in words.items():
        name = name.replace(ours, theirs)
    return name


def filled(config: EsmConfig, state: Mapping, words: Mapping[str, str], where: Path) -> EsmModel:
    """An `EsmModel` with every tensor taken from `state`; nothing missing, nothing left over but heads.

    EsmModel has a contact head of its own, which nothing here runs: its weights are 0.

    Args:
        words: EsmModel's -> those in the names of `state`.
        where: the file or folder, for messages.
    """
    model = EsmModel(config, add_pooling_layer=False)
    heads = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items() if name.startswith(HEADS)}
    sources = {name: renamed(name, words) for name in model.state_dict() if name not in heads}
    missing = sorted(set(sources.values()) - set(state))
    left_over = sorted(name for name in set(state) - set(sources.values()) if not name.startswith(HEADS))
    if missing or left_over:
        first = f"it has no {missing[0]}" if missing else f"RNA-FM has no {left_over[0]}"
        raise UserError(f"{where} is no RNA-FM checkpoint: {first} ({len(missing)} missing, {len(left_over)} unknown)")
    try:
        model.load_state_dict(heads | {name: state[source].float() for name, source in sources.items()})
    except RuntimeError as error:
        raise UserError(f"{where} has a tensor of the wrong shape: {one_line(error)[:200]}") from None
    return model.eval()


def load_tensors(path: Path) -> dict:
    """Content of a .pth or .bin file that holds tensors and plain values only.

    Raises:
        UserError: it holds something else, is damaged, or is missing.
    """
    if not path.is_file():
        raise UserError(f"no file {path}: expected {OFFICIAL_FILE}")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        what = re.search(r"(?:GLOBAL|global:?) ([\w.]+)", str(error))
        holds = f"it holds {what.group(1)}" if what else "it is no file of torch's"
        raise UserError(f"{path} is no file of weights alone ({holds}), and nothing else in it is run") from None
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        reason = f" ({one_line(error)[:120]})" if len(str(error)) > 5 else ""  # some say no more than a number
        raise UserError(f"{path} is damaged, cut off or no file of torch's{reason}: download it again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is no RNA-FM checkpoint: expected a state dict, got {type(content).__name__}")
    return content
