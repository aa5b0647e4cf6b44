"""The dataset card (README.md with YAML configs), and its figures."""

from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from dataset_builder.llm.prompts import prompts_sha256
from dataset_builder.storage.records import published_schemas
from dataset_builder.storage.settings import BuildSettings
from dataset_builder.storage.store import Store

FIGURES = (
    ("papers per RNA", "papers_per_rna.png"),
    ("topics per RNA", "topics_per_rna.png"),
    ("kinds", "question_kinds.png"),
    ("questions per RNA", "questions_per_rna.png"),
    ("RNA types", "rna_types.png"),
    ("lengths (nt, in steps of 100)", "lengths.png"),
)


def write_card(folder: Path, statistics: dict, digests: dict, settings: BuildSettings, library: Store) -> None:
    """README.md whose YAML makes `load_dataset(folder, "alignment")` and `"qa"` work, streaming too."""
    import jinja2
    from datasets import Features
    from huggingface_hub import DatasetCardData

    infos, configs = [], []
    for name, schema in published_schemas().items():
        splits = digests[name]
        if not splits:
            continue
        size = sum(found["bytes"] for found in splits.values())
        infos.append(
            {
                "config_name": name,
                "features": Features.from_arrow_schema(schema)._to_yaml_list(),
                "splits": [
                    {"name": split, "num_bytes": found["bytes"], "num_examples": found["rows"]}
                    for split, found in splits.items()
                ],
                "download_size": size,
                "dataset_size": size,
            }
        )
        files = [{"split": split, "path": found["pattern"]} for split, found in splits.items()]
        configs.append({"config_name": name, "data_files": files} | ({"default": True} if name == "alignment" else {}))
    head = DatasetCardData(
        pretty_name="RNA-QA",
        language=["en"],
        task_categories=["question-answering", "summarization"],
        tags=["biology", "rna"],
        dataset_info=infos,
        configs=configs,
    )
    template = (resources.files("dataset_builder.publishing") / "card.jinja").read_text(encoding="utf-8")
    text = jinja2.Template(template, keep_trailing_newline=True).render(
        statistics=statistics,
        digests=digests,
        settings=settings,
        extractive=statistics["annotation text"] == "extractive",
        prompts=prompts_sha256(),
        biases=biases(statistics, settings),
        left_out={f"{stage}: {why}": n for stage, reasons in library.counts().items() for why, n in reasons.items()},
        figures=plot(folder / "figures", statistics),
    )
    (folder / "README.md").write_text(f"---\n{head.to_yaml()}\n---\n\n{text}", encoding="utf-8")


def biases(statistics: dict, settings: BuildSettings) -> str:
    """What a user of the dataset would fall for, as lines of a list."""
    counted = statistics["yes and no"]
    yes, no = counted.get("Yes", 0), counted.get("No", 0)
    lines = []
    if yes + no:
        more, share = ("yes", yes) if yes >= no else ("no", no)
        share /= yes + no
        lines.append(f"- Yes-or-no questions: {yes} yes, {no} no: always saying {more} gets {share:.0%} right.")
    if statistics["annotation text"] == "extractive":
        lines.append("- Annotations are sentences of the abstracts, word for word, under the licences of the papers.")
    least = settings.fewest_questions
    lines.append(f"- An annotation has at least {least} question{'s' * (least > 1)}, else its RNA has none.")
    return "\n".join(lines)


def plot(folder: Path, statistics: dict) -> list[tuple[str, str]]:
    """Bar charts of the statistics -> (name, file) of those that were written; none without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return []
    folder.mkdir()
    written = [(name, file) for name, file in FIGURES if statistics[name]]
    for name, file in written:
        counts = statistics[name]
        labels = list(counts)[:30]
        figure = Figure(figsize=(6, 3), layout="constrained")
        axes = figure.add_subplot()
        axes.bar(labels, [counts[label] for label in labels], color="#3b6ea5")
        axes.set_xlabel(name)
        axes.set_ylabel("questions" if name == "kinds" else "RNAs")
        if max(map(len, labels)) > 4 or len(labels) > 12:
            axes.tick_params(axis="x", rotation=60)
        figure.savefig(folder / file, dpi=110)
    return written


def report_text(report: dict) -> str:
    """The run report as a page of text."""

    def lines(content: dict, indent: str) -> Iterator[str]:
        for key, value in content.items():
            if isinstance(value, dict) and value:
                yield f"{indent}{key}:"
                yield from lines(value, indent + "  ")
            elif value is not None and value != {}:
                yield f"{indent}{key}: {round(value, 4) if isinstance(value, float) else value}"

    return "\n".join(["RNA-QA run report", "", *lines(report, "")]) + "\n"
