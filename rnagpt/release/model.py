"""A checkpoint of any form -> a folder that may be published: weights, processor, code, card; reloaded and compared.

The form that goes up: `whole` holds all weights (an adapter is merged), `projector` the projector alone, `adapter` the
adapter with its projector; the last two name the repositories that the rest is fetched from.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers.dynamic_module_utils import custom_object_save

from modeling_rnagpt import RnaGptConfig, RnaGptForCausalLM
from processing_rnagpt import RnaGptProcessor
from rnagpt.checkpoints import checkpoint, model_card
from rnagpt.checkpoints.forms import ADAPTER, PARTS, WEIGHTS, describe
from rnagpt.release.card_facts import RunFacts
from rnagpt_core.errors import UserError

RNA = "GCGGAUUUAGCUCAGUUGGGAGAGCGCCAGACUGAAGAUCUGGAGGUCCUGUGUUCGAUCCACAGAAUUCGCACCA"  # yeast tRNA-Phe
MESSAGES = [
    {"role": "user", "content": [{"type": "rna", "rna": RNA}, {"type": "text", "text": "What type of RNA is this?"}]}
]
ANSWER_TOKENS = 24
# share of the largest logit that a reload may differ by: other kernels, and in 16 bits other rounding
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}


@dataclass(frozen=True)
class Source:
    """A checkpoint and where its parts come from."""

    path: Path
    form: str  # parts, whole, projector or adapter
    llm: str
    encoder: str
    base: str = ""  # of an adapter


def source_of(path: Path, facts: RunFacts, llm: str | None, encoder: str | None) -> Source:
    """Which form a checkpoint is of, and the names of its LLM and encoder: as given, else as its files tell.

    Raises:
        UserError: it is no checkpoint, or nothing tells where its weights come from.
    """
    described = describe(path)
    if described.own_code:
        raise UserError(
            f"{path} was built with trust_remote_code, and a release does not carry an encoder's own Python code: "
            "release a model whose encoder is a class of transformers"
        )
    form, named, base = described.form, described.built_from, described.base
    if facts.stages:
        recipe = facts.stages[-1]["recipe"]["model"]
        named = {part: named.get(part) or recipe[part] for part in ("llm", "encoder")}
    elif form == "adapter":
        named = {"llm": base, "encoder": base}
    found = {"llm": llm or named.get("llm"), "encoder": encoder or named.get("encoder")}
    missing = [f"--{part} NAME" for part, name in found.items() if not name]
    if missing:
        wanted = f"give {' and '.join(missing)} (a Hub id or the name of the weights), or --run RUN_DIR"
        raise UserError(f"{path} does not tell which {' and '.join(found)} it was built from: {wanted}")
    return Source(path, form, str(found["llm"]), str(found["encoder"]), base)


def check_licence(source: Source, repo: str, licence: Path | None, form: str) -> None:
    """UserError where Llama 3's licence would be broken: the name, and the copy of the licence that goes along."""
    if model_card.licence_of(source.llm) != model_card.LICENCES["llama-3"]:
        return
    owner, name = repo.split("/")
    if not name.lower().startswith(("llama-3", "llama3")):
        wanted = f"asks for a name that begins with 'Llama 3': give --repo {owner}/Llama-3-{name}"
        raise UserError(f"Meta's licence of {source.llm} {wanted}")
    if form == "whole" and licence is None:
        raise UserError(f"Meta's licence of {source.llm} goes along with its weights: give its text, --licence FILE")


def write_form(source: Source, folder: Path, form: str, base: str | None):
    """Write the checkpoint into `folder` in the form asked for. -> (model, processor) as loaded from the source.

    UserError where the form does not suit the checkpoint, or what it leaves out is not on the Hub.
    """
    if source.form in ("projector", "adapter") and form != source.form:
        raise UserError(f"{source.path} is of the form {source.form}, and goes up as that: leave --form out")
    if form == "adapter":
        return write_adapter(source, folder, base or source.base)
    if source.form == "parts" and form == "projector" and (source.path / ADAPTER).is_file():
        wanted = "give --form adapter --base OWNER/NAME to keep it, or --form whole to merge it"
        raise UserError(f"{source.path} holds an adapter beside its projector: {wanted}")
    model, processor = checkpoint.load(source.path, dtype="auto")
    forget_folders(model.config)
    if form == "projector":
        origins = dict(model.config.weights_from or {"llm": source.llm, "encoder": source.encoder})
        for part in ("llm", "encoder"):
            name, _, revision = origins[part].partition("@")
            if not model_card.is_hub_id(name):
                wanted = f"give --{part} OWNER/NAME (OWNER/NAME@REVISION pins it), or --form whole"
                raise UserError(
                    f"a projector-only release names its parts on the Hub, and {name!r} is no Hub id: {wanted}"
                )
            check_on_hub(f"--{part}", name, revision or origins.get(f"{part}_revision"))
            origins |= {part: name} | ({f"{part}_revision": revision} if revision else {})
        checkpoint.save(model, processor, folder, weights_from=origins, dtype="float32")
    elif source.form == "parts":
        checkpoint.save(model, processor, folder)
    else:
        copy_whole(source.path, folder, model, processor)
    return model, processor


def check_on_hub(option: str, name: str, revision: str | None = None) -> None:
    """UserError where the Hub has no such repository or revision; a note where only its owner can load it."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = HfApi().model_info(name, revision=revision, timeout=15)
    except OfflineModeIsEnabled:
        return  # the reload finds it in the cache, or not
    except RevisionNotFoundError:
        raise UserError(f"{option} {name} has no revision {revision}: give one of its tags or commits") from None
    except RepositoryNotFoundError:
        raise UserError(f"{option} {name} is not on the Hub, or not for this token: release that first") from None
    if info.private:
        print(f"note: {name} is private: nobody else can load this release before it is public", file=sys.stderr)


def write_adapter(source: Source, folder: Path, base: str):
    """The adapter as it is; the RNA-GPT that it was trained on is a repository."""
    if not base or not model_card.is_hub_id(base):
        raise UserError("an adapter needs the RNA-GPT that it was trained on: give --base OWNER/NAME, released before")
    if source.form == "adapter":
        check_on_hub("--base", base)
        model, processor = checkpoint.load(source.path, dtype="auto")
        folder.mkdir(exist_ok=True)
        link(source.path / ADAPTER, folder / ADAPTER)
        shutil.copyfile(source.path / "adapter_config.json", folder / "adapter_config.json")
        processor.save_pretrained(folder)
        return model, processor
    if source.form != "parts" or not (source.path / ADAPTER).is_file():
        raise UserError(f"{source.path} holds no adapter of its own: leave --form out, or name the stage's folder")
    check_on_hub("--base", base)
    parts = json.loads((source.path / PARTS).read_text())
    model, processor = checkpoint.build(**{**parts["build"], "quantize": None})
    adapted = checkpoint.load_adapter(model, source.path, trainable=False).eval()
    checkpoint.save(adapted, processor, folder, base=base)
    return adapted, processor


def copy_whole(source: Path, folder: Path, model: RnaGptForCausalLM, processor: RnaGptProcessor) -> None:
    """The weights as they are, by link where the disk allows; code and processor as this version writes them."""
    folder.mkdir(exist_ok=True)
    for path in [source / name for name in (*WEIGHTS, "generation_config.json")] + [*source.glob("model-*-of-*")]:
        if path.is_file() and not (folder / path.name).exists():
            # what a person may edit in --out is a file of its own
            put = link if path.suffix == ".safetensors" else shutil.copyfile
            put(path, folder / path.name)
    config = RnaGptConfig.from_pretrained(source)
    forget_folders(config)
    custom_object_save(model, folder, config=config)
    config.save_pretrained(folder)
    processor.save_pretrained(folder)


def forget_folders(config: RnaGptConfig) -> None:
    """Blank where encoder and LLM were loaded from, unless that is the Hub."""
    part: Any  # a dict only while one is read
    for part in (config.text_config, config.rna_config):
        if not model_card.is_hub_id(part.name_or_path):
            part.name_or_path = ""


def link(path: Path, to: Path) -> None:
    """A hard link to the file itself; a copy where the disk does not allow one."""
    try:
        os.link(path.resolve(), to)
    except OSError:
        shutil.copyfile(path, to)


def write_card(folder: Path, model, processor, source: Source, facts: RunFacts, repo: str, form: str) -> None:
    """README.md, with all that the run's files tell."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    before = source.path / "README.md"
    untrained = not facts.stages and before.is_file() and model_card.UNTRAINED in before.read_text(errors="replace")
    known = {"repo": repo, "metadata": facts.metadata(repo.split("/")[-1]), **facts.sections()}
    text = checkpoint.card(inner, processor, source.llm, source.encoder, trained=not untrained, **known)
    if form != "whole":
        what = {
            "projector": "holds the projector alone; `from_pretrained` fetches language model and encoder from the "
            "repositories that `config.json` names (`weights_from`), whose licences must be accepted there.",
            "adapter": "holds a LoRA adapter and its projector; `from_pretrained` fetches the RNA-GPT that "
            "`adapter_config.json` names (`base_model_name_or_path`), and needs `peft` for it (`pip install peft`).",
        }[form]
        heading = "\n## What it can and cannot do"
        text = text.replace(heading, f"\nThis repository {what}\n{heading}")
    (folder / "README.md").write_text(text, encoding="utf-8")


def answer_of(model, processor) -> tuple[torch.Tensor, str]:
    """Logits (1, length, vocabulary) in fp32 and the greedy answer to the question that the reload is asked too."""
    batch = processor(MESSAGES)
    with torch.no_grad():
        logits = model(**batch).logits.float()
        ids = model.generate(**batch, max_new_tokens=ANSWER_TOKENS, do_sample=False)
    return logits, processor.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)[0]


def reload_and_compare(folder: Path, logits: torch.Tensor, answer: str, dtype: torch.dtype) -> str:
    """Load the folder in a clean interpreter that knows nothing of this package. -> one line on what came out.

    Raises:
        UserError: it does not load there, or answers otherwise than the checkpoint.
    """
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.reload-", dir=folder.parent) as name:
        beside = Path(name).absolute()
        ask, out = beside / "question.json", beside / "out.safetensors"
        ask.write_text(json.dumps({"messages": MESSAGES, "tokens": ANSWER_TOKENS}))
        script = Path(__file__).with_name("reload.py")
        # -I: neither the folder it is started in, nor PYTHONPATH, nor the user's own packages
        command = [sys.executable, "-I", *(str(path.absolute()) for path in (script, folder, ask, out))]
        environment = {**os.environ, "HF_MODULES_CACHE": str(beside / "modules")}
        done = subprocess.run(command, cwd=beside, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            reason = done.stderr.strip().rpartition("\n")[2] or "no message"
            raise UserError(f"the release does not load where only transformers is installed: {reason}")
        with safe_open(out, "pt") as file:
            got, text = file.get_tensor("logits"), file.metadata()["answer"]
    if got.shape != logits.shape:
        raise UserError(f"the reloaded release reads the question as {got.shape[1]} tokens, not {logits.shape[1]}")
    difference = float((got - logits).abs().max() / logits.abs().max())
    if not difference <= TOLERANCE[dtype]:
        raise UserError(
            f"the reloaded release computes other logits than the checkpoint ({difference:.1e} of the largest away, "
            f"{TOLERANCE[dtype]:.0e} allowed): its LLM, encoder or --base is not the one it was trained with"
        )
    if text != answer:
        raise UserError(f"the reloaded release answers {text!r}, the checkpoint {answer!r}")
    return f"reloaded without RNA-GPT installed: logits differ by {difference:.1e} of the largest, same answer: {text}"
