"""Loading a checkpoint that leaves the LLM and the encoder out (ships with every checkpoint).

    config.json          weights_from: {"llm": "meta-llama/...", "llm_revision": "...", "encoder": "owner/rna-fm", ...}
    model.safetensors    the projector alone (5 MB for Llama-3-8B)

`from_pretrained` fetches the LLM and the encoder from where `weights_from` says and joins all three.
"""

import inspect
import json
import os

import torch
from safetensors.torch import load_file
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForTextEncoding,
    PreTrainedConfig,
)
from transformers.utils import cached_file, find_adapter_config_file

# arguments that are about the checkpoint itself, not about the LLM that it names
OWN_ARGUMENTS = (
    *("revision", "subfolder", "code_revision", "trust_remote_code", "_from_auto"),
    *("adapter_kwargs", "adapter_name", "output_loading_info"),
)
HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token")
PROJECTOR_FILE = "model.safetensors"


class BaseWeights:
    """Mix-in before `PreTrainedModel`: `from_pretrained` also takes a checkpoint without LLM and encoder."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, config=None, **kwargs):
        """As in transformers. Where `config.weights_from` is set, LLM and encoder come from there; `dtype`,
        `device_map`, `quantization_config` and the like are then the LLM's.

        Raises:
            OSError: the LLM, the encoder or the projector is not where it should be.
        """
        path = pretrained_model_name_or_path
        hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        trust = {"trust_remote_code": bool(kwargs.get("trust_remote_code"))}  # left out, transformers would ask
        own = {**hub, **{name: kwargs[name] for name in ("revision", "subfolder") if name in kwargs}}
        stored = config
        if path is not None and not isinstance(config, PreTrainedConfig):
            base = base_of_adapter(path, own)
            if base is not None:
                of_base = {name: value for name, value in kwargs.items() if name not in ("revision", "subfolder")}
                adapter = {name: own[name] for name in ("revision", "token") if name in own}
                of_base["adapter_kwargs"] = {**adapter, "_adapter_model_path": path}
                return cls.from_pretrained(base, *model_args, config=config, **of_base)
            stored = cls.config_class.from_pretrained(config or path, **own, **trust)
            config = stored if trust["trust_remote_code"] else config
        sources = getattr(stored, "weights_from", None)
        if not sources:
            loaded = super().from_pretrained(path, *model_args, config=config, **kwargs)
            model = loaded[0] if isinstance(loaded, tuple) else loaded  # with output_loading_info
            if model.config.freeze_rna_encoder:  # loading makes every parameter anew
                model.base_model.rna_encoder.requires_grad_(False)
            return loaded
        state = load_file(cached_file(path, PROJECTOR_FILE, **own))
        state = {name.removeprefix("model."): tensor for name, tensor in state.items()}
        if not all(name.startswith("projector.") for name in state):
            raise OSError(f"{path} names where its LLM comes from, so {PROJECTOR_FILE} should hold a projector alone")
        llm = AutoModelForCausalLM.from_pretrained(
            sources["llm"],
            revision=sources.get("llm_revision"),
            **{name: value for name, value in kwargs.items() if name not in OWN_ARGUMENTS},
        )
        model = cls.from_encoder_and_llm(load_base_encoder(sources, {**hub, **trust}), llm, **own_fields(stored))
        body, device = model.base_model, model.get_input_embeddings().weight.device
        body.projector.load_state_dict({name.removeprefix("projector."): tensor for name, tensor in state.items()})
        body.projector.to(device)
        body.rna_encoder.to(device)
        adapter = dict(kwargs.get("adapter_kwargs") or {})
        adapter_path = adapter.pop("_adapter_model_path", None)
        if adapter_path is not None:
            model.load_adapter(adapter_path, adapter_kwargs=adapter)
        return model.eval()


def base_of_adapter(path, hub: dict) -> str | None:
    """Name of the RNA-GPT that an adapter's folder or repository belongs to; None for a checkpoint."""
    found = find_adapter_config_file(path, **hub)
    if found is None or os.path.isfile(os.path.join(path, "config.json")):
        return None
    with open(found, encoding="utf-8") as file:
        base = json.load(file).get("base_model_name_or_path")
    if not base:
        raise OSError(f"the adapter in {path} does not say which RNA-GPT it belongs to (base_model_name_or_path)")
    return base


def load_base_encoder(sources: dict, hub: dict):
    """The encoder that `weights_from` names, in fp32 and without a pooler."""
    name, revision = sources["encoder"], sources.get("encoder_revision")
    config = AutoConfig.from_pretrained(name, revision=revision, **hub)
    options = {"dtype": torch.float32, **encoder_arguments(config), **hub}
    return encoder_class(config).from_pretrained(name, revision=revision, **options)


def encoder_class(rna_config):
    """The auto class that makes an encoder of a configuration: of a T5 the encoder's half alone, else AutoModel."""
    halves = {"t5", "mt5", "umt5"}
    return AutoModelForTextEncoding if rna_config.model_type in halves else AutoModel


def encoder_arguments(rna_config) -> dict:
    """`{"add_pooling_layer": False}` for encoders that would add a pooler that nobody reads (Esm, Bert), else {}."""
    model_class = MODEL_MAPPING.get(type(rna_config), None)
    if not inspect.isclass(model_class):
        return {}
    return {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(model_class).parameters else {}


def own_fields(config: PreTrainedConfig) -> dict:
    """The fields of an `RnaGptConfig` that neither the encoder's nor the LLM's configuration decides."""
    decided = {"rna_config", "text_config", "tie_word_embeddings", "weights_from"}
    return {name: getattr(config, name) for name in type(config).__annotations__ if name not in decided}


__all__ = ["BaseWeights", "encoder_arguments", "encoder_class"]
