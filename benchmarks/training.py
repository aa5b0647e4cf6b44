"""Instruction tuning: the paper's layout against the fast one, on the same RNAs, in one run.

    python benchmarks/training.py [--rnas 6] [--repeats 3]

SmolLM2-135M-Instruct with LoRA, an encoder of RNA-FM's size (random weights: speed does not depend on them), one soft
token per nucleotide as in the paper, real RNAs of the training split with twelve questions each. Each line adds one
lever to the line above; all take forward and backward passes over the same pairs, by turns. Printed: pairs per second,
the ratio to the first line with its spread over repeats, the ratio that the FLOP model of `rnagpt train --plan`
foretells, the loss per pair on the fixed model, the tokens that the LLM computes (padding included), and peak memory,
measured in a process of its own.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

QUESTIONS = 12
# name -> (cached encoder output, shared prefix, RNAs per step, packed)
LAYOUTS = {
    "paper": (False, False, 1, False),
    "+ cached encoder": (True, False, 1, False),
    "+ shared prefix": (True, True, 1, False),
    "+ packed rows": (True, True, 4, True),
}


def build():
    """Model with LoRA, and its processor."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import EsmConfig, EsmModel

    from modeling_rnagpt.configuration_rnagpt import RNA_FM
    from processing_rnagpt import RnaGptProcessor
    from processing_rnagpt.rna_tokenizer import build_rna_tokenizer
    from rnagpt.checkpoints.checkpoint import chat_template
    from rnagpt.checkpoints.llm import EMBEDDED_LLM, load_llm
    from rnagpt.registration import RnaGptForCausalLM
    from rnagpt.training.trainer import LORA_TARGETS

    torch.manual_seed(0)
    llm, tokenizer = load_llm(EMBEDDED_LLM)
    config = EsmConfig(**RNA_FM)
    encoder = EsmModel(config, add_pooling_layer=False).eval()
    rna_tokenizer = build_rna_tokenizer(config.max_position_embeddings - config.pad_token_id - 3)
    processor = RnaGptProcessor(tokenizer, rna_tokenizer, chat_template={"default": chat_template("chatml")})
    model = RnaGptForCausalLM.from_encoder_and_llm(
        encoder, llm, rna_token_id=processor.rna_token_id, rna_drop_token_ids=processor.rna_drop_token_ids
    )
    model.requires_grad_(False)
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=LORA_TARGETS, modules_to_save=["projector"])
    return get_peft_model(model, lora).train(), processor


def real_rows(n: int) -> list[dict]:
    """RNAs of all scored types, `QUESTIONS` pairs each."""
    from dataset_builder.facts_table.fact_questions import questions
    from dataset_builder.facts_table.facts import EVALUATION_TYPES, scored_subset

    rows = []
    for fact in scored_subset("train", -(-n // len(EVALUATION_TYPES)), seed=0)[:: max(1, 8 // n)][:n]:
        asked: dict[str, str] = {}
        for seed in range(100):
            asked |= {question.question: question.answer for question in questions(fact, seed)}
        pairs = [{"question": question, "answer": answer} for question, answer in list(asked.items())[:QUESTIONS]]
        assert len(pairs) == QUESTIONS
        rows.append({"rna_id": fact.rna_id, "sequence": fact.sequence, "pairs": pairs})
    return rows


def steps_of(layout: str, rows: list[dict]) -> list[list[dict]]:
    """The rows of each step: the paper's step is one pair, ours all pairs of some RNAs."""
    _, shared, rnas, _ = LAYOUTS[layout]
    if not shared:
        return [[{**row, "pairs": [pair]}] for row in rows for pair in row["pairs"]]
    return [rows[first : first + rnas] for first in range(0, len(rows), rnas)]


def collators(processor, model, rows: list[dict], names: list[str]) -> dict:
    """Layouts' collators; the cache is filled here, as it is before training, outside the clock."""
    from processing_rnagpt.collator import SharedPrefixCollator
    from rnagpt.checkpoints.features import encode_features

    sequences = {row["rna_id"]: row["sequence"] for row in rows}
    features = None
    if any(LAYOUTS[name][0] for name in names):
        features = encode_features(model.get_base_model().model.rna_encoder, processor.rna_reader, sequences)
    made = {}
    for name in names:
        cached, shared, _, packed = LAYOUTS[name]
        made[name] = SharedPrefixCollator(processor, features if cached else None, shared, packed)
    return made


def run(model, collator, steps: list[list[dict]]) -> tuple[float, float, int]:
    """Seconds, mean loss per pair, and LLM tokens computed (padding included) of one pass over the steps."""
    import torch.nn.functional as F

    total, pairs, tokens = 0.0, 0, 0
    started = time.perf_counter()
    for rows in steps:
        batch = collator(rows)
        labels, weights = batch.pop("labels")[:, 1:], batch.pop("loss_weights")[:, 1:]
        answers = labels != -100
        tokens += batch["input_ids"].numel()
        logits = model(**batch, logits_to_keep=F.pad(answers, (0, 1)), use_cache=False).logits
        loss = (F.cross_entropy(logits.float(), labels[answers], reduction="none") * weights[answers]).sum()
        loss.backward()
        total += loss.item()
        pairs += sum(len(row["pairs"]) for row in rows)
    model.zero_grad(set_to_none=True)
    return time.perf_counter() - started, total / pairs, tokens


def foretold(model, collator, steps: list[list[dict]]) -> float:
    """FLOPs of one pass over the steps, by the model that `rnagpt train --plan` uses; the cache is made beforehand."""
    from rnagpt.training.plan import count, epoch_flops, lay_out_epoch

    base = model.get_base_model()
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    layout = lay_out_epoch(collator, steps, 1)
    return epoch_flops(base, trainable, layout) + 2 * count(base.model.rna_encoder) * layout.rna_tokens


def peak_gib() -> float:
    """Peak memory of this process. getrusage would give its parent's where that one is larger: fork hands it down."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rnas", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory-of", choices=LAYOUTS, help="run this layout once and print its peak memory in GiB")
    args = parser.parse_args()
    rows = real_rows(args.rnas)
    model, processor = build()
    made = collators(processor, model, rows, [args.memory_of] if args.memory_of else list(LAYOUTS))
    if args.memory_of:
        run(model, made[args.memory_of], steps_of(args.memory_of, rows))
        print(peak_gib())
        return
    n_pairs = args.rnas * QUESTIONS
    lengths = [len(row["sequence"]) for row in rows]
    print(f"{args.rnas} RNAs of {min(lengths)}-{max(lengths)} nt, {n_pairs} pairs, {args.repeats} repeats by turns")
    results: dict[str, list] = {name: [] for name in LAYOUTS}
    for name in LAYOUTS:  # the first pass of each is not timed
        run(model, made[name], steps_of(name, rows)[:2])
    for _ in range(args.repeats):
        for name in LAYOUTS:
            results[name].append(run(model, made[name], steps_of(name, rows)))
    first = results["paper"]
    flops = {name: foretold(model, made[name], steps_of(name, rows)) for name in LAYOUTS}
    heads = f"{'layout':<18} {'pairs/s':>8} {'times paper':>20} {'by FLOPs':>9} {'loss per pair':>14}"
    print(f"{heads} {'tokens':>8} {'peak GiB':>9}")
    for name, got in results.items():
        ratios = sorted(paper[0] / own[0] for paper, own in zip(first, got, strict=True))
        command = [sys.executable, __file__, "--rnas", str(args.rnas), "--memory-of", name]
        peak = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])
        speed = n_pairs / statistics.median(seconds for seconds, _, _ in got)
        spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})"
        by_flops = flops["paper"] / flops[name]
        figures = f"{name:<18} {speed:>8.2f} {spread:>20} {by_flops:>9.2f} {got[0][1]:>14.6f}"
        print(f"{figures} {got[0][2]:>8,} {peak:>9.2f}", flush=True)
    worst = max(abs(got[0][1] - first[0][1]) for got in results.values())
    print(f"largest difference of the loss per pair: {worst:.1e}")


if __name__ == "__main__":
    main()
