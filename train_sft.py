"""Trains one stage of RNA-GPT by TRL's SFTTrainer; the recipe says which.

    rnagpt train --config recipes/quickstart_stage1.yaml     # alignment: only the projector trains
    rnagpt train --config recipes/quickstart_stage2.yaml     # instruction tuning: projector and LoRA

Reads the recipe, the LLM and the encoder it names, and the training and validation splits of the facts table. Writes
a folder of parts (see rnagpt/checkpoint.py): projector or adapter, parts.json, curve.jsonl, training.json. Interrupted
at any moment, the same command goes on from the last complete checkpoint in `<output>.work/`.
"""

import argparse
import dataclasses
import json
import shutil
import sys
import time
from pathlib import Path

from rnagpt.errors import UserError
from rnagpt.recipe import Recipe, load_recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, help="YAML recipe, e.g. recipes/quickstart_stage1.yaml")
    parser.add_argument("--output", type=Path, help="folder of parts to write (default: the recipe's `output`)")
    parser.add_argument("--start-from", type=Path, help="folder of parts to start from (default: the recipe's)")


def run(args: argparse.Namespace) -> int:
    recipe = load_recipe(args.config)
    changes = {"output": args.output, "start_from": args.start_from}
    recipe = dataclasses.replace(recipe, **{key: str(value) for key, value in changes.items() if value is not None})
    train(recipe)
    return 0


def train(recipe: Recipe) -> Path:
    """Run one stage; returns the folder of parts."""
    output = Path(recipe.output)
    if recipe.start_from and not (Path(recipe.start_from) / "parts.json").is_file():
        raise UserError(f"no parts of an earlier stage at {recipe.start_from}: run that stage's recipe first")

    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import set_seed
    from trl import SFTConfig

    from dataset_builder.facts import EVALUATION_TYPES, load_facts, scored_subset
    from processing_rnagpt.collator import SharedPrefixCollator
    from rnagpt import checkpoint, fact_rows, training
    from rnagpt.evaluation.controls import swap_partners
    from rnagpt.features import encode_features

    # load and build
    started = time.monotonic()
    set_seed(recipe.seed)
    model, processor = checkpoint.build(**dataclasses.asdict(recipe.model))
    train_facts = load_facts(split="train")
    visits = fact_rows.visits(
        train_facts, recipe.data.visits, recipe.data.type_balance, recipe.seed, recipe.data.scored_share
    )
    validation = scored_subset("validation", recipe.data.validation_rnas // len(EVALUATION_TYPES), recipe.seed)
    seen = train_facts if recipe.projector_start == "ridge" else [fact for fact, _ in visits]
    features = encode_features(
        model.model.rna_encoder,
        processor.rna_tokenizer,
        {fact.rna_id: fact.sequence for fact in [*seen, *validation]},
        model.config.rna_drop_token_ids,
        model.config.rna_pool_size,
    )
    model.requires_grad_(False)
    if recipe.start_from:
        checkpoint.load_projector(model, Path(recipe.start_from))
    elif recipe.projector_start == "ridge":
        texts = [fact_rows.annotation(fact) for fact in train_facts]
        ids = dict(zip((fact.rna_id for fact in train_facts), processor.tokenizer(texts)["input_ids"], strict=True))
        explained = training.ridge_start(model, {name: features[name] for name in ids}, ids, recipe.ridge_gain)
        print(f"projector started by ridge regression: {explained:.0%} of the annotations' mean embedding explained")

    # data
    if recipe.stage == "alignment":
        rows = [fact_rows.alignment_row(fact, visit) for fact, visit in visits]
        held_out = [fact_rows.alignment_row(fact, 0) for fact in validation]
    else:
        pairs = recipe.data.pairs_per_visit
        rows = [fact_rows.instruction_row(fact, visit, pairs, recipe.seed) for fact, visit in visits]
        held_out = [fact_rows.instruction_row(fact, 0, 1) for fact in validation]
    # The same questions with another type's RNA: where the two losses part, the model reads the RNA.
    shown = {fact.rna_id: fact for fact in validation}
    partners = swap_partners(validation, recipe.seed)
    swapped = [
        {**row, "rna_id": partners[row["rna_id"]], "sequence": shown[partners[row["rna_id"]]].sequence}
        for row in held_out
    ]

    # train
    work = output.with_name(output.name + ".work")
    work.mkdir(parents=True, exist_ok=True)
    lora = None
    if recipe.stage == "alignment":
        training.freeze_all_but_projector(model)
    else:
        lora = LoraConfig(target_modules=training.LORA_TARGETS, modules_to_save=["projector"], **recipe.lora)
    on_gpu = torch.cuda.is_available()
    trainer = training.RnaGptTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(work),
            seed=recipe.seed,
            **{
                "bf16": on_gpu,
                "activation_checkpointing": on_gpu,
                "dataloader_pin_memory": on_gpu,
                "report_to": "none",
                "save_total_limit": 2,
                "train_sampling_strategy": "random",
                **recipe.sft,
            },
            max_length=None,
            remove_unused_columns=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            prediction_loss_only=True,
        ),
        data_collator=SharedPrefixCollator(
            processor, features, recipe.share_prefix, recipe.pack, loss_per=recipe.loss_per
        ),
        train_dataset=Dataset.from_list(rows),
        eval_dataset={"true": Dataset.from_list(held_out), "swapped": Dataset.from_list(swapped)},
        processing_class=processor,
        peft_config=lora,
        callbacks=[training.CurveWriter(work / "curve.jsonl", recipe.stage)],
        projector_lr_scale=recipe.projector_lr_scale,
    )
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    print(f"{recipe.stage} stage: {len(rows):,} visits of RNAs, {trainable:,} trainable parameters")
    trainer.train(resume_from_checkpoint=training.last_complete_checkpoint(work))

    # save
    checkpoint.save_parts(trainer.model, output, dataclasses.asdict(recipe.model), recipe.save_dtype)
    shutil.copy(work / "curve.jsonl", output / "curve.jsonl")
    facts_of_run = {"recipe": dataclasses.asdict(recipe), "seconds": round(time.monotonic() - started, 1)}
    (output / "training.json").write_text(json.dumps(facts_of_run, indent=1) + "\n")
    shutil.rmtree(work)
    print(f"wrote {output}")
    return output


if __name__ == "__main__":
    from rnagpt.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
