"""What a training run will cost, told before any weight is loaded: `rnagpt train --config RECIPE --plan`.

Parameters are counted on a model built on the meta device from configurations alone; tokens by the run's own collator
on a sample of its batches, padding included. The FLOP model, per token of the LLM's blocks: 2 N forward, 2 N for the
gradient of the activations, which must reach the projector through every layer, and 2 n for the n trainable
parameters; with activation checkpointing 2 N once more. Attention is 4 d L per layer and token forward, for a row of
L tokens, and twice that backward. Only answer positions pass through the LM head. test_plan.py compares it
with what torch counts in a step.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from random import Random

import torch

from modeling_rnagpt import RnaGptForCausalLM
from processing_rnagpt import RnaGptProcessor
from processing_rnagpt.collator import IGNORED, SharedPrefixCollator
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
        encoder, projector, llm, trainable: parameters.
        rows: of an epoch. as_run, separate: the recipe's layout, and one pair per sequence without packing.
        steps: of the whole run; epochs: as far as it goes.
        flops: of the whole run; separate_flops: of the same pairs, one per sequence, encoder at every step.
        memory: name -> GB on each device.
    """

    encoder: int
    projector: int
    llm: int
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
        """All parameters."""
        return self.encoder + self.projector + self.llm


def skeleton(recipe: Recipe) -> tuple[RnaGptForCausalLM, RnaGptProcessor]:
    """The recipe's model on the meta device and its processor: configurations and tokenizers are read, no weights."""
    from rnagpt.checkpoints import checkpoint
    from rnagpt.checkpoints.llm import EMBEDDED_LLM, RANDOM, embedded_llm
    from rnagpt.checkpoints.rna_encoder import OFFICIAL_ENCODER

    llm = str(embedded_llm()) if recipe.model.llm == EMBEDDED_LLM else recipe.model.llm
    encoder = str(assets() / "encoder") if recipe.model.encoder == PACKAGED_ENCODER else recipe.model.encoder
    encoder = OFFICIAL_ENCODER if encoder.endswith(".pth") else encoder
    with torch.device("meta"):
        llm, encoder = (RANDOM + name.removeprefix(RANDOM) for name in (llm, encoder))
        return checkpoint.build(**asdict(replace(recipe.model, llm=llm, encoder=encoder, quantize=None)))


def trainable_parameters(model: RnaGptForCausalLM, recipe: Recipe) -> int:
    """Parameters that train: the projector, and in the instruction stage LoRA's matrices, r (out + in) for each."""
    from rnagpt.training.trainer import LORA_TARGETS

    count = sum(p.numel() for p in model.model.projector.parameters())
    if recipe.stage == "instruction":
        rank = recipe.lora.get("r", 8)
        targets = re.compile(recipe.lora.get("target_modules", LORA_TARGETS))
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and targets.fullmatch(name):
                count += rank * (module.in_features + module.out_features)
    return count


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
    blocks = sum(p.numel() for p in model.model.language_model.parameters()) - embedding
    attention = 4 * text.num_attention_heads * model_head_size(text) * text.num_hidden_layers
    again = 1 if checkpointing else 0
    of_tokens = layout.tokens * ((4 + 2 * again) * blocks + 2 * trainable)
    return of_tokens + layout.squares * (3 + again) * attention + layout.answers * 4 * embedding


def model_head_size(text_config) -> int:
    """Width of one attention head."""
    return getattr(text_config, "head_dim", None) or text_config.hidden_size // text_config.num_attention_heads


def make_plan(recipe: Recipe, devices: int = 1) -> Plan:
    """Count everything that the recipe's run will do, from a sample of its rows.

    Raises:
        UserError: no such device count, or what the recipe names cannot be found.
    """
    from rnagpt.training.token_budget import fill_batches
    from rnagpt.training.training_rows import load_rows

    if devices < 1:
        raise UserError(f"--devices must be at least 1, got {devices}")
    model, processor = skeleton(recipe)
    loaded = load_rows(recipe).train
    batch_size = recipe.sft.get("per_device_train_batch_size", 1 if recipe.token_budget else 8)
    batches_per_step = recipe.sft.get("gradient_accumulation_steps", 1) * devices
    per_step = batch_size * batches_per_step
    max_steps = recipe.sft.get("max_steps", -1)
    wanted = max(SAMPLED_ROWS, SAMPLED_BATCHES * batch_size)
    if hasattr(loaded, "__len__"):
        n_rows = len(loaded)
        sample = [loaded[i] for i in Random(0).sample(range(n_rows), min(n_rows, wanted))]
    else:  # a stream has no end of its own: the recipe says how many steps
        n_rows = max_steps * per_step
        sample = list(islice(loaded, wanted))
    if not sample:
        raise UserError("the recipe's data has no training row: nothing to plan")
    scale = n_rows / len(sample)
    singles = [[{**row, "pairs": [pair]}] for row in sample for pair in row["pairs"]]
    collator = SharedPrefixCollator(processor, share_prefix=recipe.share_prefix, pack=recipe.pack)
    if recipe.token_budget is None:
        batches = [sample[first : first + batch_size] for first in range(0, len(sample), batch_size)]
    else:
        filled = fill_batches(collator, sample, recipe.token_budget, recipe.seed)
        batches = [[sample[i] for i in batch["members"]] for batch in filled]
        per_step = len(sample) / len(batches) * batches_per_step
    as_run = lay_out_epoch(collator, batches, scale)
    separate = lay_out_epoch(replace(collator, share_prefix=False, pack=False), singles, scale)

    epochs = recipe.sft.get("num_train_epochs", 3)
    steps = math.ceil(n_rows / per_step) * epochs
    if max_steps > 0:
        epochs, steps = max_steps * per_step / n_rows, max_steps
    parts = {name: count(getattr(model.model, name)) for name in ("rna_encoder", "projector", "language_model")}
    head = 0 if model.config.tie_word_embeddings else model.lm_head.weight.numel()
    trainable = trainable_parameters(model, recipe)
    checkpointing = recipe.sft.get("activation_checkpointing", True)  # as settings() has it on a GPU
    flops = epochs * epoch_flops(model, trainable, as_run, checkpointing)
    # encoded once for each row of one epoch (an upper bound: RNAs come up again), or at every visit
    flops += 2 * parts["rna_encoder"] * as_run.rna_tokens * (1 if recipe.cache_features else epochs)
    naive = epochs * (
        epoch_flops(model, trainable, separate, checkpointing) + 2 * parts["rna_encoder"] * separate.rna_tokens
    )
    text = model.config.text_config
    width = 2 * KEPT_PER_LAYER * text.hidden_size  # bytes of a layer and token, in bf16
    of_layers = (
        2 * text.hidden_size * text.num_hidden_layers + width if checkpointing else (width * text.num_hidden_layers)
    )
    memory = {
        "LLM weights": weight_bytes(recipe) * (parts["language_model"] + head) / 1e9,
        "encoder and projector": 4 * (parts["rna_encoder"] + parts["projector"]) / 1e9,
        "gradients and optimiser": TRAINED_BYTES * trainable / 1e9,
        "activations": as_run.longest * of_layers / 1e9,
        "logits": as_run.most_answers * text.vocab_size * 12 / 1e9,  # in fp32: themselves, softmax, gradient
    }
    return Plan(
        parts["rna_encoder"],
        parts["projector"],
        parts["language_model"] + head,
        trainable,
        n_rows,
        as_run,
        separate,
        epochs,
        steps,
        flops,
        naive,
        memory,
    )


def weight_bytes(recipe: Recipe) -> float:
    """Bytes of one LLM weight while training: bf16, or what `quantize` stores."""
    return {None: 2.0, "8bit": 1.0, "4bit": 0.56}[recipe.model.quantize]


def count(module: torch.nn.Module) -> int:
    """Parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def hours(flops: float, gpu: str, devices: int, utilisation: float = UTILISATION) -> float:
    """Hours at this share of a GPU's peak.

    Raises:
        UserError: the GPU is not in the table.

    >>> round(hours(312e12 * 0.4 * 3600, "a100-40gb", 1), 3)
    1.0
    """
    if gpu not in GPUS:
        raise UserError(f"--gpu {gpu} is not known: choose one of {', '.join(GPUS)}")
    return flops / (GPUS[gpu][0] * 1e12 * utilisation * devices) / 3600


def spoken(hours: float) -> str:
    """
    >>> spoken(30.26), spoken(0.5)
    ('30.3 hours', '30 minutes')
    """
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes" if hours >= 1 / 60 else "seconds"


def lines(plan: Plan, gpu: str, devices: int) -> list[str]:
    """The plan as a person reads it."""
    memory, room = sum(plan.memory.values()), GPUS[gpu][1]
    now, naive = plan.as_run, plan.separate
    taken = hours(plan.flops, gpu, devices)
    out = [
        f"parameters   {plan.total:,}: encoder {plan.encoder:,}, projector {plan.projector:,}, LLM {plan.llm:,}",
        f"trainable    {plan.trainable:,} ({plan.trainable / plan.total:.3%})",
        f"an epoch     {plan.rows:,} rows, {now.pairs:,.0f} pairs of question and answer; {now.tokens:,.0f} tokens as "
        f"the recipe lays them out, {naive.tokens:,.0f} with one pair per sequence "
        f"({naive.tokens / now.tokens:.1f} times)",
        f"steps        {plan.steps:,} in {plan.epochs:g} epochs on {devices} device{'s' if devices > 1 else ''}",
        f"compute      {plan.flops:.2e} FLOP; one pair per sequence, encoder at every step: {plan.separate_flops:.2e} "
        f"({plan.separate_flops / plan.flops:.1f} times)",
        f"time         {spoken(taken)} on {devices} x {gpu}, at {UTILISATION:.0%} of its peak",
        f"memory       {memory:.1f} of {room} GB on each device: "
        + ", ".join(f"{name} {value:.1f}" for name, value in plan.memory.items()),
    ]
    if memory > room:
        out.append(f"warning      {memory:.0f} GB do not fit {room} GB: a smaller batch, quantize: 4bit, or FSDP")
    return out
