"""What training adds to TRL's SFTTrainer: a loss on answer positions only, the projector's own learning rate, a
closed-form start of the projector, and a resume that passes over half-written checkpoints."""

import dataclasses
import json
import random
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import LoraConfig
from safetensors import safe_open
from transformers import EarlyStoppingCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from modeling_rnagpt import RnaGptForCausalLM
from processing_rnagpt.collator import IGNORED
from rnagpt.checkpoints.checkpoint import refuse_foreign
from rnagpt.checkpoints.forms import ADAPTER
from rnagpt.training.recipe import Recipe, changed_keys
from rnagpt_core.errors import UserError
from rnagpt_core.json_lines import JsonLines
from rnagpt_core.safe_text import one_line

# Every linear layer of the LLM's blocks, and none of the encoder's ("all-linear" would reach those too).
LORA_TARGETS = r".*language_model\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"

# PEFT's initialisations that take the adapter's first state out of the weights that it stands beside
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


def settings(recipe: Recipe, work: Path) -> tuple[SFTConfig | DPOConfig, LoraConfig | None]:
    """The arguments of TRL's trainer and, where an instruction stage makes a new adapter, of LoRA.

    Nothing is loaded for it.

    Raises:
        UserError: two keys of the recipe do not go together.
    """
    goes_on = recipe.start_from and (Path(recipe.start_from) / ADAPTER).is_file()
    if recipe.stage == "preference" and not goes_on:
        raise UserError(f"{recipe.start_from} holds no adapter: a preference stage goes on from one")
    if goes_on and (recipe.stage == "alignment" or recipe.lora):
        raise UserError(
            f"{recipe.start_from} holds an adapter: only an instruction stage goes on from it, without the recipe "
            "key lora, because the adapter brings its own"
        )
    on_gpu = torch.cuda.is_available()
    given = {
        "bf16": on_gpu,
        "activation_checkpointing": on_gpu,
        "dataloader_pin_memory": on_gpu,
        "report_to": "none",
        "save_total_limit": 2,
        "train_sampling_strategy": "random",
    }
    if recipe.token_budget is not None:
        given["per_device_train_batch_size"] = 1
    if recipe.early_stopping:
        given |= {"eval_strategy": "steps", "load_best_model_at_end": True, "metric_for_best_model": "eval_true_loss"}
    given |= recipe.sft | {"max_length": None, "remove_unused_columns": False, "prediction_loss_only": True}
    if recipe.stage != "preference":
        given["dataset_kwargs"] = {"skip_prepare_dataset": True}
    config = DPOConfig if recipe.stage == "preference" else SFTConfig
    try:
        arguments = config(output_dir=str(work), seed=recipe.seed, **given)
    except (TypeError, ValueError) as error:
        raise UserError(f"the recipe's sft or lora arguments do not go together: {one_line(error)}") from None
    sources = recipe.data.sources
    if arguments.eval_strategy != "no" and sources and not any(source.validation_split for source in sources):
        raise UserError("recipe key sft.eval_strategy: no source in data.sources has a validation_split to measure")
    return arguments, lora_config(recipe) if recipe.stage == "instruction" and not goes_on else None


def lora_config(recipe: Recipe) -> LoraConfig:
    """LoRA as the recipe has it; the projector trains beside it.

    Raises:
        UserError: it has an argument that LoRA lacks, or two that do not go together.
    """
    try:
        config = LoraConfig(**{"target_modules": LORA_TARGETS, **recipe.lora})
    except (TypeError, ValueError) as error:
        raise UserError(f"recipe key lora: {one_line(error)}") from None
    kind = config.init_lora_weights
    if isinstance(kind, str) and kind.lower().startswith(CHANGES_BASE):
        raise UserError(
            f"recipe key lora.init_lora_weights: {kind} changes the LLM's own weights, which are not saved with the "
            "adapter, so it would load as another model: leave it out, or take true, gaussian or orthogonal"
        )
    # whatever else is to be saved: without the projector, an adapter's folder would load a random one
    config.modules_to_save = list(dict.fromkeys(["projector", *(config.modules_to_save or [])]))
    return config


def reach_all_layers(config: LoraConfig, recipe: Recipe, model: torch.nn.Module) -> LoraConfig:
    """LoRA on every linear layer of this LLM's blocks, by whatever names its family has, unless the recipe names some.

    Tells what no adapter reaches: the experts of some families are one tensor, no layers.

    Raises:
        UserError: the LLM has no linear layer.
    """
    if recipe.lora.get("target_modules", "all-linear") != "all-linear":
        return config
    body = model.base_model.language_model
    layers = linear_layers(body)
    names = dict.fromkeys(name.rpartition(".")[2] for name in layers)
    if not names:
        raise UserError(f"{model.config.text_config.model_type} has no linear layer that LoRA could train")
    config.target_modules = rf".*language_model\..*\.({'|'.join(names)})"
    table = body.get_input_embeddings().weight
    weights = sum(p.numel() for p in body.parameters() if p.dim() > 1 and p is not table)
    reached = sum(layer.weight.numel() for layer in layers.values())
    if reached < 0.9 * weights:
        print(f"note: LoRA reaches {reached / weights:.0%} of the weights of the LLM's blocks: the rest are no layers")
    return config


def linear_layers(body: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Name -> linear layer of an LLM's blocks (GPT-2's are `Conv1D`).

    Without the last layer of a Mamba block, whose weight its fast kernel reads past the adapter.
    """
    from transformers.pytorch_utils import Conv1D

    mixers = {name for name, module in body.named_modules() if "mamba" in type(module).__name__.lower()}
    return {
        name: module
        for name, module in body.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
        and not (name.endswith(".out_proj") and name.rpartition(".")[0] in mixers)
    }


class RnaGptTrainer(SFTTrainer):
    """SFTTrainer for batches of `SharedPrefixCollator`.

    Args:
        projector_lr_scale: the projector's learning rate as a multiple of `args.learning_rate`.
    """

    def __init__(self, *args, projector_lr_scale: float = 1.0, **kwargs):
        self.projector_lr_scale = projector_lr_scale
        super().__init__(*args, **kwargs)
        # compute_loss divides by the weights of all batches of a step, on all processes: nothing is left to average
        self.model_accepts_loss_kwargs = True
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and "projector" in name:  # over a quantised LLM, TRL makes all of it bf16
                parameter.data = parameter.data.float()

    def _get_num_items_in_batch(self, batch_samples, device):
        """Sum of the loss weights of all batches of an optimiser step, on all processes."""
        if not batch_samples:
            return None
        total = sum(batch["loss_weights"].sum() for batch in batch_samples).to(device)
        return self.accelerator.gather(total).sum() if self.accelerator.num_processes > 1 else total

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Weighted next-token loss; only positions that predict an answer token pass through the LM head.

        Raises:
            UserError: the loss is not a number; the batch's RNAs are in `not_finite.json` in the output folder.
        """
        inputs = dict(inputs)
        rna_ids = inputs.pop("rna_ids", None)
        labels, weights = inputs.pop("labels")[:, 1:], inputs.pop("loss_weights")[:, 1:]  # (batch, seq - 1)
        answers = labels != IGNORED
        outputs = model(**inputs, logits_to_keep=F.pad(answers, (0, 1)), use_cache=False)
        losses = F.cross_entropy(outputs.logits.float(), labels[answers], reduction="none")  # (answer tokens,)
        total = (losses * weights[answers]).sum()
        if not torch.isfinite(total):
            path = Path(self.args.output_dir) / "not_finite.json"
            path.write_text(json.dumps({"step": self.state.global_step, "rna_ids": rna_ids}) + "\n")
            raise UserError(
                f"the loss is {total.item()} at step {self.state.global_step}: the batch's RNAs are listed in {path}; "
                "lower sft.learning_rate, or look at these RNAs, and run the same command to go on from the last "
                "checkpoint"
            )
        # Gradients are averaged over processes, but divided here by the weights of all of them.
        share = weights.sum() if num_items_in_batch is None else num_items_in_batch / self.accelerator.num_processes
        loss = total / share
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, model=None):
        optimizer = super().create_optimizer(model)
        if self.projector_lr_scale != 1.0:
            model = self.model if model is None else model
            projector = {id(p) for name, p in model.named_parameters() if "projector" in name}
            for group in list(optimizer.param_groups):
                own = [p for p in group["params"] if id(p) in projector]
                if own:
                    group["params"] = [p for p in group["params"] if id(p) not in projector]
                    rate = self.args.learning_rate * self.projector_lr_scale
                    optimizer.add_param_group({**group, "params": own, "lr": rate})
        return optimizer


class RnaGptPreferenceTrainer(DPOTrainer):
    """DPOTrainer for batches of `PreferenceCollator`; the adapter that it starts from, frozen, is the reference."""

    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset  # the collator renders and tokenises the rows


def freeze_all_but_projector(model: RnaGptForCausalLM) -> None:
    """Stage 1 trains the projector alone; its trainer checkpoints leave all frozen weights out.

    The trainer refuses quantised models without an adapter, but no quantised weight trains here: it is not told.
    """
    model.is_quantized = model.is_loaded_in_4bit = model.is_loaded_in_8bit = False
    model.requires_grad_(False)
    model.model.projector.requires_grad_(True)
    model._keys_to_ignore_on_save = [name for name in model.state_dict() if "projector" not in name]


@torch.no_grad()
def ridge_start(
    model: RnaGptForCausalLM,
    features: Mapping[str, torch.Tensor],
    annotation_ids: Mapping[str, list[int]],
    seed: int = 0,
    penalty: float = 0.01,
    max_slots: int = 400_000,
) -> float:
    """Set the projector by ridge regression: each slot's feature -> the mean embedding of its RNA's annotation.

    A soft token then points, in the LLM's own embedding space, at the words that the annotation uses more than other
    RNAs' annotations do, as long on average as a token's embedding. Fitted slot by slot (each RNA weighs the same), so
    that what varies along one RNA, which says nothing of the whole, is suppressed. A projector with a hidden layer has
    its last layer fitted, to what the layers before make of the features; those stay as they are.

    Args:
        features: rna_id -> (slots, encoder hidden).
        annotation_ids: rna_id -> LLM tokens of its annotation.
        penalty: ridge penalty, as a share of a feature's variance.
        max_slots: RNAs are sampled until they have so many: the regression holds all rows in memory, in fp64, and on a
            few hundred columns it needs no more.

    Returns:
        The share of the variance of the mean embeddings that single slots explain (R squared, on the same RNAs).
    """
    names, parts = list(annotation_ids), []
    random.Random(seed).shuffle(names)
    for name in names:
        parts.append(features[name])
        if sum(map(len, parts)) >= max_slots:
            break
    names, slots = names[: len(parts)], torch.tensor(list(map(len, parts)))
    x = torch.cat(parts)  # (slots of all RNAs, encoder hidden)
    *before, last = list(model.model.projector.children()) or [model.model.projector]
    for layer in before:
        x = layer(x)
    x = x.double()
    embeddings = model.get_input_embeddings()
    # as the LLM reads them: Gemma's are stored shorter by the square root of their width
    table = embeddings(torch.arange(len(embeddings.weight), device=embeddings.weight.device)).float().cpu()
    y = torch.stack([table[torch.tensor(annotation_ids[name])].mean(0) for name in names]).double()
    y = (y - y.mean(0)).repeat_interleave(slots, dim=0)
    share = (1.0 / slots.double()).repeat_interleave(slots)[:, None] / len(names)  # sums to 1
    x_mean = (share * x).sum(0)
    x_std = (share * (x - x_mean).square()).sum(0).sqrt().clamp(min=1e-6)
    z = (x - x_mean) / x_std
    gram = z.T @ (share * z) + penalty * torch.eye(z.shape[1], dtype=z.dtype)
    weight = torch.linalg.solve(gram, z.T @ (share * y))  # (encoder hidden, LLM hidden)
    predicted = z @ weight
    explained = float(1 - (share * (y - predicted).square()).sum() / (share * y.square()).sum())
    scale = table.norm(dim=-1).mean().double() / (share * predicted.norm(dim=-1, keepdim=True)).sum()
    weight = (weight / x_std[:, None]) * scale
    last.weight.copy_(weight.T.to(last.weight.dtype))
    last.bias.copy_((-(x_mean @ weight)).to(last.bias.dtype))
    return explained


def begin(recipe: Recipe, output: Path, work: Path) -> bool:
    """Whether there is something left to train; the recipe is kept in `work`.

    Raises:
        UserError: the output, or the work for it, is another recipe's, or holds what RNA-GPT did not write.
    """
    for place, name in ((output, "training.json"), (work, "recipe.json")):
        if (place / name).is_file():
            recorded = json.loads((place / name).read_text())
            changed = changed_keys(recipe, recorded.get("recipe", recorded))
            if changed:
                raise UserError(
                    f"{place} belongs to another recipe (different: {', '.join(changed)}): remove it, or give another "
                    "output"
                )
            if place == output:
                return False
    refuse_foreign(output)
    work.mkdir(parents=True, exist_ok=True)
    (work / "recipe.json").write_text(json.dumps(dataclasses.asdict(recipe), indent=1) + "\n")
    return True


class EarlyStopping(EarlyStoppingCallback):
    """Looks at the loss on the true RNA alone; the trainer also calls it after the evaluation on swapped ones."""

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        if "eval_true_loss" in metrics:
            super().on_evaluate(args, state, control, metrics, **kwargs)


def last_complete_checkpoint(work: Path) -> str | None:
    """Newest trainer checkpoint in `work` that was written to the end; half-written ones are removed with a word."""
    folders = sorted(work.glob("checkpoint-*"), key=lambda folder: int(folder.name.split("-")[1]), reverse=True)
    for folder in folders:
        try:
            # The trainer writes its state last, so a readable state means that all before it is there.
            json.loads((folder / "trainer_state.json").read_text())
            for weights in folder.glob("*.safetensors"):
                with safe_open(weights, "pt"):
                    pass
            # One process writes optimizer.pt, FSDP optimizer.bin or, sharded, a folder whose .metadata comes last.
            if (folder / "optimizer_0").is_dir():
                (folder / "optimizer_0" / ".metadata").stat()
            else:
                whole = folder / "optimizer.bin"
                torch.load(whole if whole.exists() else folder / "optimizer.pt", weights_only=True)
            return str(folder)
        except Exception as error:  # noqa: BLE001  whatever a torn file raises, the checkpoint is unusable
            print(f"passing over {folder.name}, which was not written to its end ({type(error).__name__})")
            shutil.rmtree(folder, ignore_errors=True)  # another process of this run may be removing it as well
    return None


class CurveWriter(TrainerCallback):
    """Keeps the learning curve as JSON lines {stage, step, seconds, loss | eval_..._loss}; resumed runs append."""

    def __init__(self, path: Path, stage: str):
        self.path, self.stage = path, stage

    def on_train_begin(self, args, state, control, **kwargs):
        self.started = time.monotonic()
        if state.is_world_process_zero:
            with JsonLines(self.path) as file:
                rows = [row for row in file.rows() if row["step"] <= state.global_step]
                file.clear()
                for row in rows:
                    file.write(row)
            self.started -= rows[-1]["seconds"] if rows else 0.0

    def on_log(self, args, state, control, logs=None, **kwargs):
        losses = {name: value for name, value in (logs or {}).items() if name == "loss" or name.endswith("_loss")}
        losses.pop("train_loss", None)
        if losses and state.is_world_process_zero:
            seconds = round(time.monotonic() - self.started, 1)
            with JsonLines(self.path) as file:
                file.write({"stage": self.stage, "step": state.global_step, "seconds": seconds, **losses})
