"""Trains one stage of RNA-GPT by TRL's SFTTrainer; the recipe says which.

    rnagpt train --recipe recipes/quickstart_stage1.yaml     # alignment: only the projector trains
    rnagpt train --recipe recipes/quickstart_stage2.yaml     # instruction tuning: projector and LoRA
    rnagpt train --recipe recipes/fast_stage2.yaml --plan --gpu a100-80gb --devices 8     # what it would take
    accelerate launch --config_file recipes/cluster_fsdp.yaml -m rnagpt train --recipe recipes/cluster_stage2.yaml

Reads the recipe, the LLM, the encoder and the data it names (the packaged table of facts when none). Writes a folder
of parts (see rnagpt/checkpoints/forms.py): projector or adapter, parts.json, training.json, and the learning curve as
curve.jsonl, curve.csv and curve.svg (loss, and validation loss with the true and with another RNA); with
`report_to: tensorboard` in the recipe's sft also `<output>.tensorboard/`. Interrupted at any moment, the same command
goes on from the last complete checkpoint in `<output>.work/`. A third, optional stage (`stage: preference`) goes on
from the second by DPO.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnagpt.checkpoints.forms import ADAPTER, PARTS
from rnagpt.training.recipe import Recipe, check_sft, load_recipe
from rnagpt_core.arguments import keep_old_name
from rnagpt_core.errors import UserError
from rnagpt_core.json_lines import read_json_lines

if TYPE_CHECKING:  # importing it brings the libraries of training
    from rnagpt.training.training_rows import Rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", type=Path, required=True, help="YAML recipe, e.g. recipes/quickstart_stage1.yaml")
    keep_old_name(parser, "--config", "--recipe")
    parser.add_argument("--output", type=Path, help="folder of parts to write (default: the recipe's `output`)")
    parser.add_argument("--start-from", type=Path, help="folder of parts to start from (default: the recipe's)")
    parser.add_argument(
        "--plan", action="store_true", help="print parameters, tokens, steps, memory and hours; nothing is trained"
    )
    parser.add_argument("--gpu", default="a100-80gb", help="of --plan, a GPU's name and memory (default: a100-80gb)")
    parser.add_argument("--devices", type=int, default=1, metavar="N", help="GPUs of --plan (default: 1)")


def run(args: argparse.Namespace) -> int:
    recipe = load_recipe(args.recipe)
    changes = {"output": args.output, "start_from": args.start_from}
    recipe = dataclasses.replace(recipe, **{key: str(value) for key, value in changes.items() if value is not None})
    if args.plan:
        check_sft(recipe.sft, recipe.stage)
        from rnagpt.training import plan

        plan.hours(0, args.gpu.lower(), 1)  # a GPU that is not in the table is refused at once
        print("\n".join(plan.lines(plan.make_plan(recipe, args.devices), args.gpu.lower(), args.devices)))
    else:
        train(recipe)
    return 0


def train(recipe: Recipe) -> Path:
    """Run one stage: load, build, train, save. -> the folder of parts."""
    output, started = Path(recipe.output), time.monotonic()
    if recipe.start_from and not (Path(recipe.start_from) / PARTS).is_file():
        raise UserError(f"no parts of an earlier stage at {recipe.start_from}: run that stage's recipe first")
    check_sft(recipe.sft, recipe.stage)
    from transformers import set_seed

    from rnagpt.training import trainer as training
    from rnagpt.training.training_rows import load_rows

    work = output.with_name(output.name + ".work")
    arguments, lora = training.settings(recipe, work)
    if not training.begin(recipe, output, work):
        print(f"{output} is finished already: remove it to train it again")
        return output
    set_seed(recipe.seed)
    rows = load_rows(recipe)
    model, processor, features, llm_fingerprint = build(recipe, rows)
    if lora is not None:
        training.reach_all_layers(lora, recipe, model)
    trainer = make_trainer(recipe, rows, model, processor, features, arguments, lora)
    trainer.train(resume_from_checkpoint=training.last_complete_checkpoint(work))
    save(recipe, trainer, llm_fingerprint, started)
    return output


def build(recipe: Recipe, rows: "Rows") -> tuple[Any, Any, Mapping | None, str | None]:
    """The model, as this stage starts from it; its processor; rna_id -> encoder output, where it is kept; and the
    fingerprint of the LLM, which is taken while its weights are whole."""
    from rnagpt.checkpoints import checkpoint
    from rnagpt.checkpoints.features import FeatureCache, StoredFeatures, encode_features
    from rnagpt.checkpoints.llm import fingerprint
    from rnagpt.training.trainer import freeze_all_but_projector, ridge_start

    model, processor = checkpoint.build(**dataclasses.asdict(recipe.model))
    llm_fingerprint = fingerprint(model.model.language_model)
    start = None if recipe.start_from is None else Path(recipe.start_from)
    if start:
        check_start(recipe, start, llm_fingerprint)
    features: Mapping | None = None
    if recipe.cache_features and rows.sequences:
        encoder, reader = model.model.rna_encoder, processor.rna_reader
        if recipe.features_folder is None:
            features = encode_features(encoder, reader, rows.sequences)
        else:
            features = StoredFeatures(encoder, reader, rows.sequences, FeatureCache(recipe.features_folder))
    model.requires_grad_(False)
    if start and (start / ADAPTER).is_file():
        model = checkpoint.load_adapter(model, start)
    elif start:
        checkpoint.load_projector(model, start)
    elif recipe.projector_start == "ridge":
        ids = processor.tokenizer(list(rows.annotations.values()))["input_ids"]
        explained = ridge_start(model, features, dict(zip(rows.annotations, ids, strict=True)), recipe.seed)
        print(f"projector started by ridge regression: {explained:.0%} of the annotations' mean embedding explained")
    if recipe.stage == "alignment":
        freeze_all_but_projector(model)
    return model, processor, features, llm_fingerprint


def check_start(recipe: Recipe, start: Path, llm_fingerprint: str | None) -> None:
    """UserError where the parts that a stage starts from were trained with another pooling, projector or LLM."""
    parts = json.loads((start / PARTS).read_text())
    for key in ("rna_pool_size", "projector_hidden_size"):
        before, wanted = parts["build"].get(key), getattr(recipe.model, key)
        if before != wanted:
            raise UserError(
                f"{start} was trained with {key} {before}, and this recipe has {wanted}: make them the same"
            )
    if None not in (llm_fingerprint, parts["llm_fingerprint"]) and llm_fingerprint != parts["llm_fingerprint"]:
        raise UserError(
            f"{start} was trained with another LLM ({parts['build']['llm']}) than {recipe.model.llm}: its projector "
            "speaks to that one alone"
        )
    template = parts["build"]["template"]
    if template != recipe.model.template:
        print(
            f"note: {start} was trained with the chat template {template}, not {recipe.model.template}",
            file=sys.stderr,
        )


def make_trainer(recipe: Recipe, rows: "Rows", model, processor, features: Mapping | None, arguments, lora):
    """TRL's trainer over the recipe's batches."""
    from processing_rnagpt.collator import PreferenceCollator, SharedPrefixCollator
    from rnagpt.checking.layouts import allowed_layout
    from rnagpt.training import trainer as training
    from rnagpt.training.training_rows import BatchedRows, fill_batches

    if "tensorboard" in arguments.report_to:
        if importlib.util.find_spec("tensorboard") is None:
            raise UserError("recipe key sft.report_to: tensorboard is not installed: pip install tensorboard")
        # beside the output, because the folder of the work goes when it is done
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", f"{Path(recipe.output)}.tensorboard")
    callbacks: list = [training.CurveWriter(Path(arguments.output_dir) / "curve.jsonl", recipe.stage)]
    if recipe.early_stopping:
        callbacks.append(training.EarlyStopping(recipe.early_stopping))
    parts: dict = {
        "args": arguments,
        "train_dataset": rows.train,
        "eval_dataset": {k: part for k, part in (("true", rows.held_out), ("swapped", rows.swapped)) if len(part)},
        "processing_class": processor,
        "callbacks": callbacks,
    }
    if recipe.stage == "preference":
        collator = PreferenceCollator(processor, features)
        trainer: Any = training.RnaGptPreferenceTrainer(model, data_collator=collator, **parts)
    else:
        share_prefix, pack = allowed_layout(model.config.text_config, recipe.share_prefix, recipe.pack)
        layout = {"share_prefix": share_prefix, "pack": pack}
        collate: Any = SharedPrefixCollator(processor, features, **layout, with_ids=True)
        if recipe.token_budget is not None:
            parts["train_dataset"] = fill_batches(collate, rows.train, recipe.token_budget, recipe.seed)
            collate = BatchedRows(collate, rows.train)
        parts |= {"data_collator": collate, "peft_config": lora, "projector_lr_scale": recipe.projector_lr_scale}
        trainer = training.RnaGptTrainer(model, **parts)
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    print(f"{recipe.stage} stage: {len(rows.train):,} rows, {trainable:,} trainable parameters")
    return trainer


def save(recipe: Recipe, trainer, llm_fingerprint: str | None, started: float) -> None:
    """The folder of parts: the weights from all processes, the files by one."""
    from rnagpt.checkpoints.checkpoint import save_parts

    output, work = Path(recipe.output), Path(trainer.args.output_dir)
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.is_world_process_zero():
        trained = trainer.accelerator.unwrap_model(trainer.model)
        save_parts(trained, output, dataclasses.asdict(recipe.model), recipe.save_dtype, state, llm_fingerprint)
        write_curve(work / "curve.jsonl", output)
        record = {"recipe": dataclasses.asdict(recipe), "seconds": round(time.monotonic() - started, 1)}
        (output / "training.json").write_text(json.dumps(record, indent=1) + "\n")
        shutil.rmtree(work)
        print(f"wrote {output}")
    trainer.accelerator.wait_for_everyone()


def write_curve(curve: Path, output: Path) -> None:
    """The learning curve beside what was trained: as it was kept, as CSV, and drawn."""
    from rnagpt.training import curves

    rows = list(read_json_lines(curve, "a point of a learning curve"))
    shutil.copy(curve, output / "curve.jsonl")
    curves.write_csv(output / "curve.csv", rows)
    if importlib.util.find_spec("matplotlib") is None:
        print("no curve.svg: drawing needs matplotlib (pip install 'rnagpt[eval]')", file=sys.stderr)
        return
    from rnagpt.evaluation.reporting.figures import learning_curves

    (output / "curve.svg").write_text(learning_curves(rows))


if __name__ == "__main__":
    from rnagpt.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
