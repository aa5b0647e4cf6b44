"""What a training run will cost, told before any weight is loaded: `rnagpt train --recipe RECIPE --plan`.

Parameters are counted on a model built on the meta device from configurations alone; tokens by the run's own collator
on a sample of its batches, padding included. The FLOP model, per token of the LLM's blocks: 2 N forward, 2 N for the
gradient of the activations, which must reach the projector through every layer, and 2 n for the n trainable
parameters; with activation checkpointing 2 N once more. Attention is 4 d L per layer and token forward, for a row of
L tokens, and twice that backward. Only answer positions pass through the LM head. test_plan.py compares it
with what torch counts in a step.
"""

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from random import Random

import torch

from modeling_rnagpt import RnaGptForCausalLM
from processing_rnagpt import RnaGptProcessor
from processing_rnagpt.collator import IGNORED, SharedPrefixCollator
from rnagpt.checking.layouts import allowed_layout
from rnagpt.checkpoints.forms import PACKAGED_ENCODER, assets
from rnagpt.training.recipe import Recipe
from rnagpt_core.errors import UserError

# Dense bf16 tensor peak in TFLOP/s, and memory in GB, by the makers' data sheets.
GPUS = {
    "a100-40gb": (312.0, 40),
    "a100-80gb": (312.0, 80),
    "h100-80gb": (989.0, 80),
    "l4-24gb": (121.0, 24),
    "rtx4090-24gb": (165.0, 24),
}
UTILISATION = 0.4  # share of the peak that training of an 8B model commonly reaches
SAMPLED_BATCHES = 50
SAMPLED_ROWS = 200  # at least
WEIGHT_BYTES = {None: 2.0, "8bit": 1.0, "4bit": 0.56}  # of an LLM weight while training, by `quantize`; bf16 without
TRAINED_BYTES = 16  # a trainable parameter in fp32, its gradient, AdamW's two moments
KEPT_PER_LAYER = 34  # activations of a transformer layer for its backward pass, in hidden sizes (Korthikanti 2022)


@dataclass(frozen=True)
class Layout:
    """One epoch's batches as the collator lays them out.

    Attributes:
        tokens: of the LLM per epoch, padding included; rna_tokens: of the encoder.
        answers: positions that pass through the LM head, per epoch.
        squares: sum over rows of the squared row length, which attention grows with.
        longest: most tokens of a batch; most_answers: most answer positions of one.
        pairs: questions with their answers, per epoch.
    """

    tokens: float
    rna_tokens: float
    answers: float
    squares: float
    pairs: float
    longest: int
    most_answers: int


@dataclass(frozen=True)
class Plan:
    """The figures of one run; `lines` says them.

    Attributes:
        parameters: of "encoder", "projector" and "LLM"; trainable: how many of them train.
        rows: of an epoch. as_run, separate: the recipe's layout, and one pair per sequence without packing.
        steps: of the whole run; epochs: as far as it goes.
        flops: of the whole run; separate_flops: of the same pairs, one per sequence, encoder at every step.
        memory: name -> GB on each device.
    """

    parameters: dict[str, int]
    trainable: int
    rows: int
    as_run: Layout
    separate: Layout
    epochs: float
    steps: int
    flops: float
    separate_flops: float
    memory: dict[str, float]

    @property
    def total(self) -> int:
        return sum(self.parameters.values())


def skeleton(recipe: Recipe) -> tuple[RnaGptForCausalLM, RnaGptProcessor]:
    """The recipe's model on the meta device and its processor: configurations and tokenizers are read, no weights."""
    from rnagpt.checkpoints import checkpoint
    from rnagpt.checkpoints.llm import EMBEDDED_LLM, RANDOM, embedded_llm
    from rnagpt.checkpoints.rna_encoder import OFFICIAL_ENCODER

    llm = str(embedded_llm()) if recipe.model.llm == EMBEDDED_LLM else recipe.model.llm
    encoder = str(assets() / "encoder") if recipe.model.encoder == PACKAGED_ENCODER else recipe.model.encoder
    encoder = OFFICIAL_ENCODER if encoder.endswith(".pth") else encoder
    llm, encoder = (RANDOM + name.removeprefix(RANDOM) for name in (llm, encoder))
    with torch.device("meta"):
        return checkpoint.build(**asdict(replace(recipe.model, llm=llm, encoder=encoder, quantize=None)))


def lay_out_epoch(collator: SharedPrefixCollator, batches: Sequence[list[dict]], scale: float) -> Layout:
    """Sizes of an epoch that has `scale` times the rows of these batches."""
    sizes = []
    for rows in batches:
        batch = collator(rows)
        in_rows, length = batch["input_ids"].shape
        answers = int((batch["labels"] != IGNORED).sum())
        rna_tokens = int(batch["rna_attention_mask"].sum()) if "rna_attention_mask" in batch else 0
        pairs = sum(len(row["pairs"]) for row in rows)
        sizes.append((in_rows * length, rna_tokens, answers, in_rows * length**2, pairs))
    totals = [scale * sum(column) for column in zip(*sizes, strict=True)]
    return Layout(*totals, longest=max(row[0] for row in sizes), most_answers=max(row[2] for row in sizes))


def epoch_flops(model: RnaGptForCausalLM, trainable: int, layout: Layout, checkpointing: bool = False) -> float:
    """FLOPs of an epoch in the LLM, forward and backward, without the encoder's; see the module's text."""
    text = model.config.text_config
    embedding = model.get_input_embeddings().weight.numel()
    blocks = count(model.model.language_model) - embedding
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    attention = 4 * text.num_attention_heads * head * text.num_hidden_layers
    again = 1 if checkpointing else 0
    of_tokens = layout.tokens * ((4 + 2 * again) * blocks + 2 * trainable)
    return of_tokens + layout.squares * (3 + again) * attention + layout.answers * 4 * embedding


def make_plan(recipe: Recipe, devices: int = 1) -> Plan:
    """Count everything that the recipe's run will do, from a sample of its rows.

    Raises:
        UserError: no such device count, or what the recipe names cannot be found.
    """
    from peft import get_peft_model

    from rnagpt.training.trainer import lora_config, reach_all_layers
    from rnagpt.training.training_rows import fill_batches, load_rows

    if devices < 1:
        raise UserError(f"--devices must be at least 1, got {devices}")
    model, processor = skeleton(recipe)
    rows = load_rows(recipe).train
    batch_size = recipe.sft.get("per_device_train_batch_size", 1 if recipe.token_budget else 8)
    sampled = min(len(rows), max(SAMPLED_ROWS, SAMPLED_BATCHES * batch_size))
    sample = [rows[i] for i in Random(0).sample(range(len(rows)), sampled)]
    if not sample:
        raise UserError("the recipe's data has no training row: nothing to plan")
    share_prefix, pack = allowed_layout(model.config.text_config, recipe.share_prefix, recipe.pack)
    collator = SharedPrefixCollator(processor, share_prefix=share_prefix, pack=pack)
    if recipe.token_budget is None:
        batches = [sample[first : first + batch_size] for first in range(0, sampled, batch_size)]
    else:
        filled = fill_batches(collator, sample, recipe.token_budget, recipe.seed)
        batches = [[sample[i] for i in batch["members"]] for batch in filled]
        batch_size = sampled / len(batches)
    singles = [[{**row, "pairs": [pair]}] for row in sample for pair in row["pairs"]]
    as_run = lay_out_epoch(collator, batches, len(rows) / sampled)
    separate = lay_out_epoch(replace(collator, share_prefix=False, pack=False), singles, len(rows) / sampled)

    per_step = batch_size * recipe.sft.get("gradient_accumulation_steps", 1) * devices
    epochs, steps = recipe.sft.get("num_train_epochs", 3), recipe.sft.get("max_steps", -1)
    if steps > 0:
        epochs = steps * per_step / len(rows)
    else:
        steps = math.ceil(len(rows) / per_step) * epochs
    head = 0 if model.config.tie_word_embeddings else model.lm_head.weight.numel()
    encoder, projector, llm = map(count, (model.model.rna_encoder, model.model.projector, model.model.language_model))
    trainable = projector
    if recipe.stage == "instruction":
        adapted = get_peft_model(deepcopy(model), reach_all_layers(lora_config(recipe), recipe, model))
        trainable = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    checkpointing = recipe.sft.get("activation_checkpointing", True)  # as settings() has it on a GPU
    # encoded once for each row of one epoch (an upper bound: RNAs come up again), or at every step
    encoding = 2 * encoder * as_run.rna_tokens * (1 if recipe.cache_features else epochs)
    naive = epoch_flops(model, trainable, separate, checkpointing) + 2 * encoder * separate.rna_tokens
    text = model.config.text_config
    width = 2 * KEPT_PER_LAYER * text.hidden_size  # bytes of a layer and token, in bf16
    of_layers = width * text.num_hidden_layers
    if checkpointing:
        of_layers = width + 2 * text.hidden_size * text.num_hidden_layers
    return Plan(
        parameters={"encoder": encoder, "projector": projector, "LLM": llm + head},
        trainable=trainable,
        rows=len(rows),
        as_run=as_run,
        separate=separate,
        epochs=epochs,
        steps=steps,
        flops=epochs * epoch_flops(model, trainable, as_run, checkpointing) + encoding,
        separate_flops=epochs * naive,
        memory={
            "LLM weights": WEIGHT_BYTES[recipe.model.quantize] * (llm + head) / 1e9,
            "encoder and projector": 4 * (encoder + projector) / 1e9,
            "gradients and optimiser": TRAINED_BYTES * trainable / 1e9,
            "activations": as_run.longest * of_layers / 1e9,
            "logits": as_run.most_answers * text.vocab_size * 12 / 1e9,  # in fp32: themselves, softmax, gradient
        },
    )


def count(module: torch.nn.Module) -> int:
    """Parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def hours(flops: float, gpu: str, devices: int) -> float:
    """Hours at the usual share of a GPU's peak.

    Raises:
        UserError: the GPU is not in the table.

    >>> round(hours(312e12 * 0.4 * 3600, "a100-40gb", 1), 3)
    1.0
    """
    if gpu not in GPUS:
        raise UserError(f"--gpu {gpu} is not known: choose one of {', '.join(GPUS)}")
    return flops / (GPUS[gpu][0] * 1e12 * UTILISATION * devices) / 3600


def lines(plan: Plan, gpu: str, devices: int) -> list[str]:
    """The plan as a person reads it."""
    memory, room = sum(plan.memory.values()), GPUS[gpu][1]
    now, naive = plan.as_run, plan.separate
    taken = hours(plan.flops, gpu, devices)
    time = f"{taken:.1f} hours" if taken >= 1 else f"{60 * taken:.0f} minutes" if taken >= 1 / 60 else "seconds"
    parameters = ", ".join(f"{name} {value:,}" for name, value in plan.parameters.items())
    out = [
        f"parameters   {plan.total:,}: {parameters}",
        f"trainable    {plan.trainable:,} ({plan.trainable / plan.total:.3%})",
        f"an epoch     {plan.rows:,} rows, {now.pairs:,.0f} pairs of question and answer; {now.tokens:,.0f} tokens as "
        f"the recipe lays them out, {naive.tokens:,.0f} with one pair per sequence "
        f"({naive.tokens / now.tokens:.1f} times)",
        f"steps        {plan.steps:,} in {plan.epochs:g} epochs on {devices} device{'s' if devices > 1 else ''}",
        f"compute      {plan.flops:.2e} FLOP; one pair per sequence, encoder at every step: {plan.separate_flops:.2e} "
        f"({plan.separate_flops / plan.flops:.1f} times)",
        f"time         {time} on {devices} x {gpu}, at {UTILISATION:.0%} of its peak",
        f"memory       {memory:.1f} of {room} GB on each device: "
        + ", ".join(f"{name} {value:.1f}" for name, value in plan.memory.items()),
    ]
    if memory > room:
        out.append(f"warning      {memory:.0f} GB do not fit {room} GB: a smaller batch, quantize: 4bit, or FSDP")
    return out
