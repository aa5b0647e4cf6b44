"""Makes the packaged RNA encoder: RNA-FM's architecture in a small size, masked-language modelling on training RNAs.

    python -m scripts.pretrain_encoder recipes/demo_encoder.yaml

Reads the training split of the facts table (dataset_builder) and nothing else; writes an `EsmModel` folder
(config.json, model.safetensors) and `training.json` with the loss curve and the facts of the run. Interrupted, the
same command goes on from the last checkpoint in `<output>.work/`.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

import yaml

from rnagpt_core.errors import UserError, explained
from rnagpt_core.files import new_folder


def standardise_output(encoder, mean, std) -> None:
    """Fold (features - mean) / std, per channel, into the encoder's last LayerNorm: an exact reparametrisation.

    Frozen features then arrive at the projector with zero mean and unit variance, which is what lets a linear
    projector learn at one rate in all directions. `mean` and `std` have the shape (hidden,).
    """
    import torch

    norm = encoder.encoder.emb_layer_norm_after
    with torch.no_grad():
        norm.weight.div_(std)
        norm.bias.sub_(mean).div_(std)


def pretrain(recipe: dict, output: Path) -> None:
    """Train `EsmForMaskedLM` by the recipe and write the standardised, headless `EsmModel` to `output`."""
    import torch
    from datasets import Dataset
    from transformers import (
        DataCollatorForLanguageModeling,
        EsmConfig,
        EsmForMaskedLM,
        EsmModel,
        Trainer,
        TrainingArguments,
        set_seed,
    )
    from transformers.trainer_utils import get_last_checkpoint

    from dataset_builder.facts_table.facts import load_facts
    from modeling_rnagpt.configuration_rnagpt import RNA_FM
    from processing_rnagpt.rna_sequences import RnaReader
    from processing_rnagpt.rna_tokenizer import build_rna_tokenizer
    from rnagpt.checkpoints.features import encode_features

    work = output.with_name(output.name + ".work")
    set_seed(recipe["seed"])
    tokenizer = build_rna_tokenizer(recipe["max_nucleotides"])
    facts = load_facts(split="train")
    ids = tokenizer([fact.sequence for fact in facts])["input_ids"]
    rows = Dataset.from_dict({"input_ids": ids, "length": [len(row) for row in ids]})
    config = EsmConfig(
        **{**RNA_FM, "max_position_embeddings": recipe["max_nucleotides"] + 4, **recipe["encoder"]},
        tie_word_embeddings=True,
    )
    model = EsmForMaskedLM(config)
    print(
        f"pre-training {sum(p.numel() for p in model.parameters()):,} parameters on {len(facts):,} training RNAs "
        f"({sum(map(len, ids)):,} tokens) by masked-language modelling"
    )
    started = time.time()
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(work), seed=recipe["seed"], report_to="none", save_total_limit=1, **recipe["training"]
        ),
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm_probability=recipe["mlm_probability"]),
        train_dataset=rows,
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(work)) if work.is_dir() else None)
    encoder = EsmModel(config, add_pooling_layer=False)
    encoder.load_state_dict(model.esm.state_dict(), strict=False)
    encoder.eval()
    features = encode_features(
        encoder,
        RnaReader(tokenizer, [tokenizer.bos_token_id, tokenizer.eos_token_id], recipe["standardise_pool_size"]),
        {fact.rna_id: fact.sequence for fact in facts},
    )
    slots = torch.cat(list(features.values()))
    standardise_output(encoder, slots.mean(0), slots.std(0))
    curve = [{"step": row["step"], "loss": row["loss"]} for row in trainer.state.log_history if "loss" in row]
    run = {"recipe": recipe, "rnas": len(facts), "seconds": round(time.time() - started, 1), "curve": curve}
    with new_folder(output) as part:
        encoder.to(getattr(torch, recipe["save_dtype"])).save_pretrained(part)
        (part / "training.json").write_text(json.dumps(run, indent=1) + "\n")
    shutil.rmtree(work)
    print(f"wrote {output}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recipe", type=Path, help="YAML recipe, e.g. recipes/demo_encoder.yaml")
    parser.add_argument("--output", type=Path, help="folder to write (default: the recipe's)")
    args = parser.parse_args(argv)

    def work() -> int:
        if not args.recipe.is_file():
            raise UserError(f"no recipe at {args.recipe}: expected a YAML file such as recipes/demo_encoder.yaml")
        recipe = yaml.safe_load(args.recipe.read_text())
        pretrain(recipe, args.output or Path(recipe["output"]))
        return 0

    return explained(work)


if __name__ == "__main__":
    sys.exit(main())
