"""Speed of the model and its processor beside what one would use without them, as ratios with their spread.

    python -m benchmarks.model                      # all four, about ten minutes on two idle cores
    python -m benchmarks.model --only tokens encoder --rounds 3 --output model.json

    encoder     64 real RNAs of mixed length: EsmModel run by length, and rna-fm padded in batches of 8
    forward     RNA-GPT given encoder outputs, and the bare LLM given the same embeddings
    tokens      RNAs of 1,022 nt in bulk: the table, and rna-fm's batch converter
    generation  8 prompts in one batch, and one by one

Both sides of a pair get the same input, their outputs are compared, and they take turns: round after round, the one
that goes first changing each time, after a round that is not counted. A ratio is the median over the rounds of
(seconds of the other) / (seconds of ours), each from two neighbouring runs, so a machine that slows down in between
changes both. The spread is the lowest and the highest ratio. Beside it stands the same ratio in seconds of CPU, which
other programs on the machine disturb less.
"""

import argparse
import gc
import json
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

TARGETS = {"encoder": 1.8, "forward": 1 / 1.03, "tokens": 20.0, "generation": 3.0}
# SmolLM2-135M's shape: its weights do not matter for the time
SMOLLM2 = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}


def race(ours: Callable[[], object], other: Callable[[], object], rounds: int) -> tuple[dict, object, object]:
    """Times of two ways to do one thing, in turns, and what each returned last."""
    times: dict[str, list[float]] = {"ours": [], "other": []}
    cpu: dict[str, list[float]] = {"ours": [], "other": []}
    results = {}
    for number in range(rounds + 1):
        pair = [("ours", ours), ("other", other)]
        for name, run in pair if number % 2 else reversed(pair):
            gc.collect()
            begun, begun_cpu = time.perf_counter(), time.process_time()
            results[name] = run()
            if number:  # the first round warms up
                times[name].append(time.perf_counter() - begun)
                cpu[name].append(time.process_time() - begun_cpu)
    ratios, cpu_ratios = (
        [other / ours for ours, other in zip(taken["ours"], taken["other"], strict=True)] for taken in (times, cpu)
    )
    return (
        {
            "ratio": statistics.median(ratios),
            "lowest": min(ratios),
            "highest": max(ratios),
            "cpu_ratio": statistics.median(cpu_ratios),
            "seconds_ours": times["ours"],
            "seconds_other": times["other"],
        },
        results["ours"],
        results["other"],
    )


def real_rnas(n: int, longest: int = 1022) -> list[str]:
    """RNAs of the facts table, the same ones each time, in no order of length."""
    from dataset_builder.facts_table.facts import load_facts

    sequences = sorted({fact.sequence for fact in load_facts() if len(fact.sequence) <= longest})
    return random.Random(0).sample(sequences, n)


def encoder(rounds: int) -> dict:
    import torch

    from benchmarks.rna_fm import reference_features, rna_fm_twice
    from modeling_rnagpt.modeling_rnagpt import encode_and_pool
    from processing_rnagpt.rna_sequences import RnaReader, encoder_inputs
    from processing_rnagpt.rna_tokenizer import build_rna_tokenizer

    reference, converter, ours = rna_fm_twice()
    sequences = real_rnas(64)
    encoded = RnaReader(build_rna_tokenizer(), [0, 2]).read(sequences)
    ids, mask = (tensor[0] for tensor in encoder_inputs([encoded], 1).values())

    def run_reference() -> torch.Tensor:
        features = []
        for start in range(0, len(sequences), 8):
            batch = sequences[start : start + 8]
            tokens = converter([("", sequence) for sequence in batch])[2]
            hidden = reference_features(reference, tokens)
            features += [row[1 : len(sequence) + 1] for row, sequence in zip(hidden, batch, strict=True)]
        return torch.cat(features)

    result, features, expected = race(lambda: encode_and_pool(ours, ids, mask, [0, 2], 1)[0], run_reference, rounds)
    lengths = sorted(map(len, sequences))
    note = f"64 RNAs of {lengths[0]}-{lengths[-1]} nt (median {lengths[32]}), {sum(lengths):,} nt"
    return {**result, "note": note, "largest_difference": float((features - expected).abs().max())}


def untrained():
    """RNA-GPT of SmolLM2-135M's shape with random weights, and its processor, over an encoder of one layer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import EsmConfig, EsmModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from modeling_rnagpt import RnaGptForCausalLM
    from modeling_rnagpt.configuration_rnagpt import RNA_FM
    from processing_rnagpt import RnaGptProcessor
    from processing_rnagpt.rna_tokenizer import build_rna_tokenizer

    torch.manual_seed(0)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(["<end>", *alphabet])}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", pad_token="<end>")
    processor = RnaGptProcessor(tokenizer, build_rna_tokenizer(), chat_template="{{ messages[0]['content'] }}")
    encoder = EsmModel(EsmConfig(**{**RNA_FM, "num_hidden_layers": 1}), add_pooling_layer=False)
    llm = LlamaForCausalLM(LlamaConfig(**SMOLLM2, eos_token_id=0, pad_token_id=0))
    model = RnaGptForCausalLM.from_encoder_and_llm(encoder, llm, rna_token_id=processor.rna_token_id)
    return model, processor


def forward(rounds: int) -> dict:
    import torch

    model, processor = untrained()
    question = "What type of RNA is this, and which organism is it from? "
    batch = processor([f"<RNAHere>{question}"] * 4, rna=[rna[:300] for rna in real_rnas(400) if len(rna) >= 300][:4])
    features, slots = model.model.encode_rna(batch["rna_input_ids"], batch["rna_attention_mask"])
    assert len(set(slots.tolist())) == 1
    features = features.view(4, 1, -1, features.shape[-1])
    rna = {"rna_features": features, "rna_feature_mask": torch.ones(features.shape[:3])}
    text = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    # what reaches the LLM, caught on its way
    caught = {}
    hook = model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: caught.update(kwargs), with_kwargs=True
    )
    model(**text, **rna, use_cache=False)
    hook.remove()
    llm, head = model.model.language_model, model.lm_head

    def bare() -> torch.Tensor:
        hidden = llm(inputs_embeds=caught["inputs_embeds"], attention_mask=text["attention_mask"], use_cache=False)
        return head(hidden.last_hidden_state)

    result, logits, expected = race(lambda: model(**text, **rna, use_cache=False).logits, bare, rounds)
    note = f"batch of 4, {batch['input_ids'].shape[1]} tokens each, 300 of them RNA"
    return {**result, "note": note, "largest_difference": float((logits - expected).abs().max())}


def tokens(rounds: int) -> dict:
    import fm

    from processing_rnagpt.rna_sequences import RnaReader, encoder_inputs
    from processing_rnagpt.rna_tokenizer import build_rna_tokenizer

    draw = random.Random(0)
    sequences = ["".join(draw.choices("ACGU", k=1022)) for _ in range(2_000)]
    reader = RnaReader(build_rna_tokenizer(), [0, 2])
    converter = fm.data.Alphabet.from_architecture("roberta_large", theme="rna").get_batch_converter()
    result, ours, expected = race(
        lambda: encoder_inputs([reader.read(sequences)], 1)["rna_input_ids"][0],
        lambda: converter([("", sequence) for sequence in sequences])[2],
        rounds,
    )
    difference = float((ours != expected).sum())
    return {**result, "note": "2,000 RNAs of 1,022 nt", "largest_difference": difference}


def generation(rounds: int) -> dict:
    import torch

    model, processor = untrained()
    prompts = [f"<RNAHere>What type of RNA is this? ({i})" for i in range(8)]
    rnas = [rna[:76] for rna in real_rnas(200) if len(rna) >= 76][:8]
    kwargs = {"max_new_tokens": 32, "min_new_tokens": 32, "do_sample": False, "pad_token_id": 0}

    def together() -> torch.Tensor:
        batch = processor(prompts, rna=rnas)
        return model.generate(**batch, **kwargs)[:, batch["input_ids"].shape[1] :]

    def one_by_one() -> torch.Tensor:
        rows = []
        for prompt, rna in zip(prompts, rnas, strict=True):
            batch = processor(prompt, rna=rna)
            rows.append(model.generate(**batch, **kwargs)[:, batch["input_ids"].shape[1] :])
        return torch.cat(rows)

    result, ours, expected = race(together, one_by_one, rounds)
    note = "8 prompts of 76 nt, 32 new tokens each, greedy"
    return {**result, "note": note, "largest_difference": float((ours != expected).sum())}


RACES = {"encoder": encoder, "forward": forward, "tokens": tokens, "generation": generation}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=RACES, default=list(RACES), help="run these (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds after one that does not count (default: 5)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write every time as JSON")
    args = parser.parse_args(argv)
    if args.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {args.rounds}")
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    results = {}
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{versions}, {torch.get_num_threads()} threads, {platform.machine()}; {args.rounds} rounds")
    print(f"{'':12}{'ratio':>8}{'spread':>16}{'target':>8}{'CPU':>8}{'ours':>9}{'other':>9}  largest difference; what")
    with torch.no_grad():
        for name in args.only:
            row = results[name] = RACES[name](args.rounds)
            ratios = f"{row['ratio']:>8.3f}{row['lowest']:>9.3f}-{row['highest']:<6.3f}{TARGETS[name]:>8.3f}"
            ours, other = (statistics.median(row[f"seconds_{side}"]) for side in ("ours", "other"))
            seconds = f"{row['cpu_ratio']:>8.3f}{ours:>8.3f}s{other:>8.3f}s"
            print(f"{name:12}{ratios}{seconds}  {row['largest_difference']:.1e}; {row['note']}", flush=True)
            gc.collect()
    if args.output:
        part = args.output.with_name(args.output.name + ".part")
        part.write_text(json.dumps(results, indent=1) + "\n")
        part.replace(args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
