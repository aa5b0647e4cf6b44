"""Trains one stage of RNA-GPT by TRL's SFTTrainer; the recipe says which.

    rnagpt train --config recipes/quickstart_stage1.yaml     # alignment: only the projector trains
    rnagpt train --config recipes/quickstart_stage2.yaml     # instruction tuning: projector and LoRA
    rnagpt train --config recipes/fast_stage2.yaml --plan --gpu a100-80gb --devices 8     # what it would take
    accelerate launch --config_file recipes/cluster_fsdp.yaml -m rnagpt train --config recipes/cluster_stage2.yaml

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
from pathlib import Path

from rnagpt.checkpoints.forms import PARTS
from rnagpt.training.recipe import Recipe, check_sft, load_recipe
from rnagpt_core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, help="YAML recipe, e.g. recipes/quickstart_stage1.yaml")
    parser.add_argument("--output", type=Path, help="folder of parts to write (default: the recipe's `output`)")
    parser.add_argument("--start-from", type=Path, help="folder of parts to start from (default: the recipe's)")
    parser.add_argument(
        "--plan", action="store_true", help="print parameters, tokens, steps, memory and hours; nothing is trained"
    )
    parser.add_argument("--gpu", default="a100-80gb", help="of --plan, a GPU's name and memory (default: a100-80gb)")
    parser.add_argument("--devices", type=int, default=1, metavar="N", help="GPUs of --plan (default: 1)")


def run(args: argparse.Namespace) -> int:
    recipe = load_recipe(args.config)
    changes = {"output": args.output, "start_from": args.start_from}
    recipe = dataclasses.replace(recipe, **{key: str(value) for key, value in changes.items() if value is not None})
    if args.plan:
        return print_plan(recipe, args.gpu, args.devices)
    train(recipe)
    return 0


def print_plan(recipe: Recipe, gpu: str, devices: int) -> int:
    """Say what the run would take."""
    check_sft(recipe.sft, recipe.stage)
    from peft import LoraConfig

    from rnagpt.training import plan

    try:
        LoraConfig(**recipe.lora)
    except (TypeError, ValueError) as error:
        raise UserError(f"recipe key lora: {' '.join(str(error).split())}") from None
    gpu = gpu.lower()

    plan.hours(0, gpu, 1)  # a GPU that is not in the table is refused at once
    print("\n".join(plan.lines(plan.make_plan(recipe, devices), gpu, devices)))
    return 0


def train(recipe: Recipe) -> Path:
    """Run one stage; returns the folder of parts."""
    output = Path(recipe.output)
    if recipe.start_from and not (Path(recipe.start_from) / PARTS).is_file():
        raise UserError(f"no parts of an earlier stage at {recipe.start_from}: run that stage's recipe first")
    check_sft(recipe.sft, recipe.stage)

    import torch
    from transformers import set_seed

    from processing_rnagpt.collator import PreferenceCollator, SharedPrefixCollator
    from rnagpt.checkpoints import checkpoint
    from rnagpt.checkpoints.features import FeatureCache, StoredFeatures, encode_features
    from rnagpt.checkpoints.llm import fingerprint
    from rnagpt.training import trainer as training
    from rnagpt.training.token_budget import BatchedRows, fill_batches
    from rnagpt.training.training_rows import load_rows

    flex = recipe.attention == "flex"
    if flex and not torch.cuda.is_available():
        raise UserError("recipe key attention: flex needs a CUDA device (it has no backward pass on a CPU): use sdpa")
    started = time.monotonic()
    work = output.with_name(output.name + ".work")
    settings, lora = training.settings(recipe, work)
    if not training.begin(recipe, output, work):
        print(f"{output} is finished already: remove it to train it again")
        return output

    # load and build
    set_seed(recipe.seed)
    rows = load_rows(recipe)
    model, processor = checkpoint.build(**dataclasses.asdict(recipe.model))
    if flex:
        model.model.language_model.set_attn_implementation("flex_attention")
    llm_fingerprint = fingerprint(model.model.language_model)
    if recipe.start_from:
        training.check_start(recipe, llm_fingerprint)
    features = None
    if recipe.cache_features and rows.sequences:
        if recipe.features_folder is None:
            features = encode_features(model.model.rna_encoder, processor.rna_reader, rows.sequences)
        else:
            cache = FeatureCache(recipe.features_folder, int(recipe.features_gb * 1e9))
            features = StoredFeatures(model.model.rna_encoder, processor.rna_reader, rows.sequences, cache)
    model.requires_grad_(False)
    if lora is None and recipe.stage != "alignment":
        model = checkpoint.load_adapter(model, Path(recipe.start_from))
    elif recipe.start_from:
        checkpoint.load_projector(model, Path(recipe.start_from))
    elif recipe.projector_start == "ridge":
        ids = processor.tokenizer(list(rows.annotations.values()))["input_ids"]
        annotation_ids = dict(zip(rows.annotations, ids, strict=True))
        seen = training.enough_for_ridge(features, annotation_ids, recipe.seed)
        annotation_ids = {name: annotation_ids[name] for name in seen}
        explained = training.ridge_start(model, seen, annotation_ids, recipe.ridge_gain)
        print(f"projector started by ridge regression: {explained:.0%} of the annotations' mean embedding explained")

    # train
    if "tensorboard" in settings.report_to:
        if importlib.util.find_spec("tensorboard") is None:
            raise UserError("recipe key sft.report_to: tensorboard is not installed: pip install tensorboard")
        # beside the output, because the folder of the work goes when it is done
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(output.with_name(output.name + ".tensorboard")))
    if recipe.stage == "alignment":
        training.freeze_all_but_projector(model)
    collator = SharedPrefixCollator(
        processor, features, recipe.share_prefix, recipe.pack, None, recipe.loss_per, blocks=flex, with_ids=True
    )
    train_rows = rows.train
    if recipe.token_budget is not None:
        train_rows = fill_batches(collator, rows.train, recipe.token_budget, recipe.seed)
        collator = BatchedRows(collator, rows.train)
    callbacks = [training.CurveWriter(work / "curve.jsonl", recipe.stage)]
    if recipe.early_stopping:
        callbacks.append(training.EarlyStopping(recipe.early_stopping))
    parts = {
        "args": settings,
        "train_dataset": train_rows,
        "eval_dataset": {k: part for k, part in (("true", rows.held_out), ("swapped", rows.swapped)) if len(part)},
        "processing_class": processor,
        "callbacks": callbacks,
    }
    if recipe.stage == "preference":
        collator = PreferenceCollator(processor, features)
        trainer = training.RnaGptPreferenceTrainer(model, data_collator=collator, **parts)
    else:
        trainer = training.RnaGptTrainer(
            model, data_collator=collator, peft_config=lora, projector_lr_scale=recipe.projector_lr_scale, **parts
        )
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    print(f"{recipe.stage} stage: {training.size_of(rows.train)}, {trainable:,} trainable parameters")
    trainer.train(resume_from_checkpoint=training.last_complete_checkpoint(work))

    # save: the weights from all processes, the files by one
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.is_world_process_zero():
        trained = trainer.accelerator.unwrap_model(trainer.model)
        built = dataclasses.asdict(recipe.model)
        checkpoint.save_parts(trained, output, built, recipe.save_dtype, state, llm_fingerprint)
        write_curve(work / "curve.jsonl", output)
        facts_of_run = {"recipe": dataclasses.asdict(recipe), "seconds": round(time.monotonic() - started, 1)}
        (output / "training.json").write_text(json.dumps(facts_of_run, indent=1) + "\n")
        shutil.rmtree(work)
        print(f"wrote {output}")
    trainer.accelerator.wait_for_everyone()
    return output


def write_curve(curve: Path, output: Path) -> None:
    """The learning curve beside what was trained: as it was kept, as CSV, and drawn."""
    from rnagpt.training import curves
    from rnagpt.training.trainer import read_curve

    rows = read_curve(curve)
    shutil.copy(curve, output / "curve.jsonl")
    curves.write_csv(output / "curve.csv", rows)
    if importlib.util.find_spec("matplotlib") is None:
        print("no curve.svg: drawing needs matplotlib (pip install 'rnagpt[eval]')", file=sys.stderr)
        return
    from rnagpt.evaluation.reporting.charts import learning_curves
    from rnagpt.evaluation.reporting.score_charts import standalone

    (output / "curve.svg").write_text(standalone(learning_curves(rows)))


if __name__ == "__main__":
    from rnagpt.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
