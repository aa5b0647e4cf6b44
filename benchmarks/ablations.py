"""Does the paper's recipe help? Its choices one by one at quick-start scale, each against the quick start's own.

    python -m benchmarks.ablations train --output runs/ablations --samples 400 [--cells base no_stage1 ...]
    python -m benchmarks.ablations summaries --papers papers.jsonl --links links.jsonl [--words 250]

train: each cell is one resumable training (stage 1, then stage 2 of `--samples` RNAs) and answers on validation RNAs;
stopped at any moment, the same command goes on. The test split is not looked at. Cells:

    base             the quick start: stage 1, packaged encoder, one soft token per 64 nt
    no_stage1        stage 2 from a random projector
    random_encoder   the packaged encoder's architecture with random weights
    per_nucleotide   one soft token per nucleotide, as in the paper
    mlp_projector    a hidden layer in the projector, as wide as the LLM

summaries: an RNA's abstracts in LDA topics against the same number of plain chunks, and against random groups. Without
an LLM: the share of key terms (names of genes, proteins, RNAs and cells in at least two abstracts of the RNA, its own
names left out) that is in what a summary is made of, when each group has the same number of words. `read`: its papers
one after the other, until the words are used up; `chosen`: its most central sentences (TF-IDF).
papers: JSON lines with pmid, title, abstract; links: JSON lines with query_id and articles, each with its pmid.
"""

import argparse
import dataclasses
import gzip
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from rnagpt_core.arguments import keep_old_name  # noqa: E402

CELLS = ("base", "no_stage1", "random_encoder", "per_nucleotide", "mlp_projector")
STAGE1_SHARE = 0.12  # of the samples of stage 2, as in the quick start
RNAS_PER_TYPE = 13
SEED = 0
LEAST_PAPERS = 24  # below, LDA finds one or two topics


# --- training


def recipes_of(cell: str, output: Path, samples: int) -> list:
    """The cell's recipes in order: the quick start's with one thing changed."""
    from rnagpt.quickstart import find_recipes
    from rnagpt.training.recipe import load_recipe

    stages = [load_recipe(path) for path in find_recipes("quickstart")]
    changed = {
        "random_encoder": {"encoder": str(output / "random_weights")},
        "per_nucleotide": {"rna_pool_size": 1},
        "mlp_projector": {"projector_hidden_size": 576},
    }.get(cell, {})
    recipes, before = [], None
    for number, recipe in enumerate(stages, start=1):
        if number == 1 and cell == "no_stage1":
            continue
        count = samples if number == 2 else max(8, round(samples * STAGE1_SHARE))
        steps = -(-count // recipe.sft["per_device_train_batch_size"])
        folder = output / cell / f"stage{number}"
        recipes.append(
            dataclasses.replace(
                recipe,
                output=str(folder),
                start_from=before,
                model=dataclasses.replace(recipe.model, **changed),
                data=dataclasses.replace(recipe.data, samples=count),
                sft=recipe.sft | {"eval_steps": steps},
            )
        )
        before = str(folder)
    return recipes


def write_random_encoder(folder: Path) -> None:
    """The packaged encoder's configuration with random weights, kept so that training and answers share them."""
    import torch

    from rnagpt.checkpoints.forms import assets
    from rnagpt.checkpoints.rna_encoder import random_encoder

    if not (folder / "config.json").is_file():
        torch.manual_seed(SEED)
        encoder, tokenizer = random_encoder(str(assets() / "encoder"))
        tokenizer.save_pretrained(folder)
        encoder.save_pretrained(folder)


def train_cell(cell: str, output: Path, samples: int) -> None:
    """Train what is not trained yet, then answer what is not answered yet."""
    import train_sft
    from rnagpt.evaluation.asking.answers import CheckpointAnswers, collect
    from rnagpt.evaluation.asking.controls import input_rnas
    from rnagpt.evaluation.asking.items import ItemWriter

    recipes = recipes_of(cell, output, samples)
    for recipe in recipes:
        if not (Path(recipe.output) / "training.json").is_file():
            print(f"{cell}: {recipe.stage}", file=sys.stderr, flush=True)
            train_sft.train(recipe)
    rnas, items = questions()
    with ItemWriter(output / cell / "items.jsonl") as writer:  # of its own: cells may run side by side
        wanted = {"true": cell, "swapped": f"{cell}_swapped"}
        if all(writer.done(key, item) for key in wanted.values() for item in items):
            return
        from rnagpt.checkpoints import checkpoint

        model, processor = checkpoint.load(recipes[-1].output)
        for control, key in wanted.items():
            collect(CheckpointAnswers(model, processor), items, key, input_rnas(control, rnas, SEED), writer)


def questions() -> tuple[list, list]:
    """Validation RNAs of the scored types, and the question what type each is."""
    from dataset_builder.facts_table.facts import scored_subset
    from rnagpt.evaluation.asking.items import evaluation_items

    rnas = scored_subset("validation", RNAS_PER_TYPE, SEED)
    return rnas, [item for item in evaluation_items(rnas, SEED, closed_per_rna=1) if item.topic == "rna_type"]


def train_table(output: Path) -> list[dict]:
    """One row per finished cell; differences are to `base`, paired by RNA."""
    from rnagpt.evaluation.asking.items import read_items
    from rnagpt.evaluation.scoring.statistics import accuracy, paired_difference

    by_system: dict[str, dict] = {}
    for path in sorted(output.glob("*/items.jsonl")):
        for item in read_items(path):
            by_system.setdefault(item.system, {})[item.key] = item
    rows = []
    for cell in CELLS:
        answers, swapped = by_system.get(cell), by_system.get(f"{cell}_swapped")
        if not answers or not swapped or len(answers) != len(swapped):
            continue
        curve = [json.loads(line) for line in (output / cell / "stage2" / "curve.jsonl").read_text().splitlines()]
        losses = {
            name: next((row[name] for row in reversed(curve) if name in row), None)
            for name in ("eval_true_loss", "eval_swapped_loss")
        }
        clusters = [item.cluster for item in answers.values()]
        row = {"cell": cell, **losses, "seconds": curve[-1]["seconds"]}
        for name, some in (("right", answers), ("swapped", swapped)):
            row[name] = accuracy([some[key].correct for key in answers], clusters).to_dict()
        if cell != "base" and "base" in by_system:
            base = by_system["base"]
            gain, p = paired_difference(
                [answers[key].correct for key in answers], [base[key].correct for key in answers], clusters
            )
            row["difference"], row["p"] = gain.to_dict(), p
        rows.append(row)
    return rows


def print_training(rows: list[dict]) -> None:
    print("| cell | loss, true RNA | loss, swapped | RNA type right | with another RNA | minus base | stage 2, s |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:

        def share(estimate, sign=""):
            return " [".join(
                [
                    f"{100 * estimate['value']:{sign}.1f}",
                    f"{100 * estimate['low']:{sign}.1f}, {100 * estimate['high']:{sign}.1f}]",
                ]
            )

        gain = f"{share(row['difference'], '+')}, p = {row['p']:.3f}" if "difference" in row else "-"
        print(
            f"| {row['cell']} | {row['eval_true_loss']:.3f} | {row['eval_swapped_loss']:.3f} | "
            f"{share(row['right'])} | {share(row['swapped'])} | {gain} | {row['seconds']:.0f} |"
        )


# --- summaries


def read_lines(path: str) -> list[dict]:
    opened = gzip.open(path, "rt", encoding="utf-8") if path.endswith(".gz") else open(path, encoding="utf-8")
    with opened:
        return list(map(json.loads, opened))


def terms(text: str) -> set[str]:
    """Names in a text: words with a digit and a letter, or with two capitals; in lower case.

    >>> sorted(terms("MiR-21 targets PDCD4 in HeLa cells of 42 patients."))
    ['hela', 'mir-21', 'pdcd4']
    """
    from dataset_builder.literature.topics import TOKEN

    words = (match[0] for match in TOKEN.finditer(text))
    return {
        word.lower()
        for word in words
        if sum(c.isupper() for c in word) > 1 or any(map(str.isdigit, word)) and any(map(str.isalpha, word))
    }


def groupings(papers: Sequence, names: Sequence[str]) -> dict[str, list[list]]:
    """The papers in LDA topics, in as many chunks by PMID, and in as many random groups."""
    from dataset_builder.literature.topics import topic_groups

    of_pmid = {paper.pmid: paper for paper in papers}
    lda = [[of_pmid[pmid] for pmid in topic.pmids] for topic in topic_groups(papers, names, SEED)]
    in_order = sorted(papers, key=lambda paper: int(paper.pmid))
    mixed = random.Random(SEED).sample(in_order, len(in_order))
    count = len(lda)
    bounds = [round(i * len(papers) / count) for i in range(count + 1)]
    return {"lda": lda} | {
        name: [some[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
        for name, some in (("chunks", in_order), ("random", mixed))
    }


def read(group: Sequence, words: int) -> str:
    """The first `words` words of the papers, one after the other."""
    return " ".join(" ".join(f"{paper.title} {paper.abstract}" for paper in group).split()[:words])


def chosen(group: Sequence, words: int) -> str:
    """The sentences nearest to the group's mean TF-IDF vector, as many as fit into `words` words."""
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    from rnagpt.evaluation.scoring.text_scores import sentences

    found = [sentence for paper in group for sentence in sentences(f"{paper.title} {paper.abstract}")]
    vectors = TfidfVectorizer(stop_words="english").fit_transform(found)
    scores = vectors @ np.asarray(vectors.mean(0)).ravel()
    taken, left = [], words
    for place in np.argsort(-scores, kind="stable"):
        length = len(found[place].split())
        if length <= left:
            taken.append(found[place])
            left -= length
    return " ".join(taken)


def coverage(papers: Sequence, names: Sequence[str], words: int) -> dict[str, float]:
    """{"read, lda": share of the RNA's key terms, ...}"""
    own = set().union(*map(terms, names), {name.lower() for name in names})
    counts = Counter(term for paper in papers for term in terms(f"{paper.title} {paper.abstract}"))
    key = {term for term, count in counts.items() if count > 1 and term not in own}
    found = {}
    for name, groups in groupings(papers, names).items():
        for way, summarise in (("read", read), ("chosen", chosen)):
            seen = set().union(*(terms(summarise(group, words)) for group in groups))
            found[f"{way}, {name}"] = len(key & seen) / len(key)
    return found | {"groups": len(groups), "terms": len(key), "papers": len(papers)}


def summaries(papers_file: str, links_file: str, words: int) -> None:
    from dataset_builder.storage.records import Paper
    from rnagpt.evaluation.scoring.statistics import mean_score, paired_difference

    papers = {
        row["pmid"]: Paper(row["pmid"], row["title"] or "", row["abstract"] or "") for row in read_lines(papers_file)
    }
    rows = []
    for link in read_lines(links_file):
        own = [papers[article["pmid"]] for article in link["articles"] if article["pmid"] in papers]
        if len(own) >= LEAST_PAPERS:
            query = link["query_id"]
            rows.append(coverage(own, [query, query.removeprefix("hsa-"), query.removeprefix("hsa-mir-")], words))
    counts = [row["papers"] for row in rows]
    groups, key = (sum(row[name] for row in rows) / len(rows) for name in ("groups", "terms"))
    print(
        f"{len(rows)} RNAs with {min(counts)} to {max(counts)} abstracts, {groups:.1f} groups and {key:.0f} key "
        f"terms on average; {words} words a group"
    )
    units = list(range(len(rows)))
    print("| what is seen | grouping | key terms covered | LDA minus this | p |")
    print("|---|---|---|---|---|")
    for way in ("read", "chosen"):
        lda = [row[f"{way}, lda"] for row in rows]
        for name in ("lda", "chunks", "random"):
            values = [row[f"{way}, {name}"] for row in rows]
            mean = mean_score(values, units)
            cells = [way, name, f"{100 * mean.value:.1f}% [{100 * mean.low:.1f}, {100 * mean.high:.1f}]", "-", "-"]
            if name != "lda":
                gain, p = paired_difference(lda, values, units)
                cells[3:] = [f"{100 * gain.value:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]", f"{p:.3f}"]
            print("| " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("--output", type=Path, default=Path("runs/ablations"))
    training.add_argument("--samples", type=int, default=400, help="RNAs seen in stage 2 of every cell")
    keep_old_name(training, "--visits", "--samples")
    training.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    texts = commands.add_parser("summaries")
    texts.add_argument("--papers", required=True)
    texts.add_argument("--links", required=True)
    texts.add_argument("--words", type=int, default=250, help="of a group that its summary is made of")
    args = parser.parse_args()
    if args.command == "summaries":
        summaries(args.papers, args.links, args.words)
        return
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    output = args.output / f"{args.samples}_visits"
    write_random_encoder(output / "random_weights")
    for cell in args.cells:
        train_cell(cell, output, args.samples)
    print_training(train_table(output))


if __name__ == "__main__":
    main()
