"""Builds, loads and saves RNA-GPT: whole checkpoints, and parts that leave the LLM out (see `rnagpt.folders`).

The shipped demo is a folder of parts.
"""

import json
import shutil
import warnings
from importlib import resources
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel

from modeling_rnagpt.modeling_rnagpt import encoder_arguments
from processing_rnagpt.rna_tokenizer import build_rna_tokenizer
from rnagpt.errors import UserError
from rnagpt.folders import ADAPTER, PACKAGED_ENCODER, PARTS, PROJECTOR, assets, checkpoint_form
from rnagpt.language_model import fingerprint, load_llm, reach_hub
from rnagpt.registration import RnaGptForCausalLM, RnaGptProcessor


def chat_template(name: str) -> str:
    """Text of a packaged chat template: "chatml" or "paper"."""
    return (resources.files("processing_rnagpt") / "templates" / f"{name}.jinja").read_text()


def load_encoder(name: str):
    """Encoder (fp32, eval) and its tokenizer.

    Args:
        name: "packaged" (the small one that ships), a folder or a Hub id that AutoModel loads.
    """
    path = assets() / "encoder" if name == PACKAGED_ENCODER else name
    if Path(path).exists() and not (Path(path) / "config.json").is_file():
        raise UserError(f"{path} is no encoder: expected a folder with config.json, or a Hub id")
    if not Path(path).exists():
        reach_hub(str(path))
    config = AutoConfig.from_pretrained(path)
    encoder = AutoModel.from_pretrained(path, dtype=torch.float32, **encoder_arguments(config)).eval()
    if not (Path(path) / "tokenizer_config.json").is_file() and config.model_type == "esm":
        # RNA-FM's alphabet; two of its positions are unused padding offsets, two are BOS and EOS.
        return encoder, build_rna_tokenizer(config.max_position_embeddings - config.pad_token_id - 3)
    return encoder, AutoTokenizer.from_pretrained(path)


def build(llm: str, encoder: str, rna_pool_size: int = 1, template: str = "llm"):
    """Untrained RNA-GPT: a loaded LLM and a loaded encoder joined by a fresh projector.

    Args:
        llm: see `load_llm`.
        encoder: see `load_encoder`.
        rna_pool_size: encoder positions per soft token.
        template: default chat template: "llm" (the LLM's own), "chatml" or "paper". All stay available by name.
    """
    language_model, tokenizer = load_llm(llm)
    rna_encoder, rna_tokenizer = load_encoder(encoder)
    templates = {"paper": chat_template("paper")}
    if tokenizer.chat_template:
        templates["llm"] = tokenizer.chat_template
    if "<|im_start|>" in tokenizer.get_vocab():
        templates["chatml"] = chat_template("chatml")
    if template not in templates:
        choices = ", ".join(sorted(templates))
        raise UserError(f"chat template {template!r} does not suit {llm}: choose one of {choices}")
    templates["default"] = templates[template]
    processor = RnaGptProcessor(tokenizer, rna_tokenizer, chat_template=templates, rna_pool_size=rna_pool_size)
    model = RnaGptForCausalLM.from_encoder_and_llm(
        rna_encoder,
        language_model,
        rna_token_id=processor.rna_token_id,
        rna_drop_token_ids=processor.rna_drop_token_ids,
        rna_pool_size=rna_pool_size,
    )
    return model, processor


def load(path: str | Path):
    """Model (eval) and processor from a whole checkpoint, a folder of parts, or a Hub id.

    Raises:
        UserError: the folder is missing or holds neither form.
    """
    form = checkpoint_form(path)
    if form == "parts":
        return load_parts(Path(path))
    if form == "hub":
        reach_hub(str(path))
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    model = RnaGptForCausalLM.from_pretrained(path, dtype=dtype).eval()
    return model, RnaGptProcessor.from_pretrained(path)


def save(model: RnaGptForCausalLM, processor: RnaGptProcessor, folder: Path) -> None:
    """Write a whole checkpoint under a temporary name, then rename: it is there complete or not at all."""
    with replacing(folder) as part:
        model.save_pretrained(part)
        processor.save_pretrained(part)


def save_parts(model, folder: Path, recipe_model: dict, dtype: str = "float32") -> None:
    """Write what training changed, and what is needed to join it to its LLM and encoder again.

    Args:
        model: an `RnaGptForCausalLM` (its projector is written) or a `PeftModel` of one (its adapter is written).
        recipe_model: the arguments of `build`.
        dtype: of the written tensors; "float16" halves what ships.
    """
    adapted = isinstance(model, PeftModel)
    base = model.get_base_model() if adapted else model
    with replacing(folder) as part:
        part.mkdir(parents=True)
        if adapted:
            model.save_pretrained(part)
            (part / "README.md").unlink(missing_ok=True)
            name, state = ADAPTER, load_file(part / ADAPTER)
        else:
            name, state = PROJECTOR, base.model.projector.state_dict()
        state = {key: tensor.to(getattr(torch, dtype)).contiguous() for key, tensor in state.items()}
        save_file(state, part / name, metadata={"format": "pt"})
        parts = {"build": recipe_model, "llm_fingerprint": fingerprint(base.model.language_model)}
        (part / PARTS).write_text(json.dumps(parts, indent=1) + "\n")


def load_parts(folder: Path):
    """Model (eval, adapter merged) and processor from a folder of parts."""
    try:
        parts = json.loads((folder / PARTS).read_text())
        arguments = parts["build"]
    except (ValueError, KeyError):
        raise UserError(f"{folder / PARTS} is damaged: expected the file that RNA-GPT's training wrote") from None
    model, processor = build(**arguments)
    if parts["llm_fingerprint"] != fingerprint(model.model.language_model):
        raise UserError(
            f"{folder} was trained on other weights of {arguments['llm']} than those found here: its answers would be "
            "wrong. Install the version that constraints.txt names, or train again."
        )
    if (folder / PROJECTOR).is_file():
        load_projector(model, folder)
        return model, processor
    with warnings.catch_warnings():
        # PEFT 0.21 asks transformers for a property by its old name; nothing a user can do about it.
        warnings.simplefilter("ignore", FutureWarning)
        model = PeftModel.from_pretrained(model, str(folder)).merge_and_unload(safe_merge=True)
    return model.eval(), processor


def load_projector(model: PreTrainedModel, folder: Path) -> None:
    """Put the projector of a folder of parts into a model built by the same arguments."""
    model.model.projector.load_state_dict(load_file(folder / PROJECTOR))


class replacing:
    """Context: yields a temporary folder name beside `folder`, and renames it to `folder` when nothing went wrong."""

    def __init__(self, folder: Path):
        self.folder, self.part = folder, folder.with_name(folder.name + ".part")

    def __enter__(self) -> Path:
        shutil.rmtree(self.part, ignore_errors=True)
        self.part.parent.mkdir(parents=True, exist_ok=True)
        return self.part

    def __exit__(self, kind, error, trace) -> None:
        if kind is not None:
            shutil.rmtree(self.part, ignore_errors=True)
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.part.rename(self.folder)
