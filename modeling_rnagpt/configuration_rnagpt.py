"""Configuration of RNA-GPT (ships with every checkpoint).

RNA -> encoder (RNA-FM = EsmModel) -> average over `rna_pool_size` positions -> linear projector -> LLM
"""

import importlib.util

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec
from transformers.dynamic_module_utils import get_class_from_dynamic_module

HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision")
# RNA-FM's published size, as transformers' EsmModel expresses it (99.1 M parameters, at most 1,022 nt).
RNA_FM = {
    "vocab_size": 25,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "mask_token_id": 24,
    "hidden_size": 640,
    "num_hidden_layers": 12,
    "num_attention_heads": 20,
    "intermediate_size": 5120,
    "max_position_embeddings": 1026,
    "position_embedding_type": "absolute",
    "emb_layer_norm_before": True,
    "token_dropout": False,
    "layer_norm_eps": 1e-5,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


@strict
class RnaGptConfig(PreTrainedConfig):
    """Sizes and special ids of an RNA-GPT model.

    Args:
        rna_config: the RNA encoder's configuration; by default RNA-FM's (an `EsmConfig`).
        text_config: the LLM's configuration; by default Llama's.
        rna_token_id: id of the placeholder `<RNAHere>` in the LLM's tokenizer; every occurrence is overwritten by one
            soft token. By default 128256, the first id after Llama-3's vocabulary.
        rna_drop_token_ids: encoder tokens that become no soft token (BOS and EOS); an empty list keeps them.
        rna_pool_size: encoder positions averaged into one soft token; 1, as in the paper, keeps one per nucleotide.
        projector_hidden_size: width of a hidden layer in the projector, with GELU behind it; by default there is none,
            and the projector is linear, as in the paper.
        freeze_rna_encoder: whether the encoder's parameters are built, and loaded, without gradients, as in the paper.
        weights_from: where LLM and encoder come from when the checkpoint leaves them out: {"llm": a Hub id or folder,
            "encoder": another, "llm_revision", "encoder_revision": commits}. See base_weights_rnagpt.py.
    """

    model_type = "rnagpt"
    sub_configs_defaults = {
        "rna_config": SubConfigSpec(config_class=AutoConfig, model_type="esm", init_kwargs=RNA_FM),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
    }

    rna_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    rna_token_id: int = 128256
    rna_drop_token_ids: list[int] | tuple[int, ...] = (0, 2)
    rna_pool_size: int = 1
    projector_hidden_size: int | None = None
    freeze_rna_encoder: bool = True
    weights_from: dict | None = None
    tie_word_embeddings: bool = False

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, trust_remote_code=None, **kwargs):
        """As in transformers; where the encoder's class is no part of it, its code is run, if that is trusted."""
        content, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        # this file was run as the repository's own code: by somebody who trusted it
        trusted = trust_remote_code or cls.__module__.startswith("transformers_modules.")
        if isinstance(content.get("rna_config"), dict):
            hub = {name: value for name, value in kwargs.items() if name in HUB_ARGUMENTS}
            encoder = encoder_config(content["rna_config"], pretrained_model_name_or_path, trusted, hub)
            content = {**content, "rna_config": encoder}
        return content, kwargs

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        for name in ("rna_pool_size", "projector_hidden_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.rna_drop_token_ids = list(self.rna_drop_token_ids)
        # The LLM says whether its head is tied to its embeddings; the outer model has to agree to save it once.
        self.tie_word_embeddings = bool(getattr(self.text_config, "tie_word_embeddings", False))
        self.auto_map = {
            "AutoConfig": "configuration_rnagpt.RnaGptConfig",
            "AutoModel": "modeling_rnagpt.RnaGptModel",
            "AutoModelForCausalLM": "modeling_rnagpt.RnaGptForCausalLM",
        }
        self.custom_pipelines = {
            "rna-text-generation": {
                "impl": "pipeline_rnagpt.RnaTextGenerationPipeline",
                "pt": ["AutoModelForCausalLM"],
                "type": "multimodal",
            }
        }


class EncoderCodeError(ValueError):
    """The encoder's class is no part of transformers, and its code may not be run or is missing."""


def encoder_config(settings: dict, path, trusted: bool, hub: dict) -> dict | PreTrainedConfig:
    """The encoder's settings; as an instance of its own class where transformers has none and its code is trusted.

    Args:
        settings: of `rna_config`; its `auto_map` names the code, in the checkpoint or in another repository.
        path: the checkpoint's folder or Hub id.

    Raises:
        EncoderCodeError: its code is not trusted, or it is multimolecule's, which is not installed.
    """
    kind, code = settings.get("model_type", "esm"), settings.get("auto_map") or {}
    if not code and kind in CONFIG_MAPPING:
        return settings
    if not trusted:
        raise EncoderCodeError(
            f"its RNA encoder ({kind}) needs Python code of its own: read it, then trust remote code"
        )
    if code:
        classes = [get_class_from_dynamic_module(code[name], path, **hub) for name in ("AutoConfig", "AutoModel")]
        AutoModel.register(*classes, exist_ok=True)
        for made_by, made in zip(("AutoConfig", "AutoModel"), classes, strict=True):
            made.register_for_auto_class(made_by)
        return classes[0](**settings)
    if importlib.util.find_spec("multimolecule") is None:
        raise EncoderCodeError(f"its RNA encoder ({kind}) is multimolecule's: pip install multimolecule (AGPL-3.0)")
    importlib.import_module("multimolecule")
    return settings


__all__ = ["RNA_FM", "RnaGptConfig"]
