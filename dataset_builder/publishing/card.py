"""The dataset card (README.md with YAML configs), and its pictures."""

from pathlib import Path

from dataset_builder.llm.prompts import prompts_sha256
from dataset_builder.storage.records import published_schemas
from dataset_builder.storage.settings import BuildSettings
from dataset_builder.storage.store import Library

PICTURES = (
    ("papers per RNA", "papers_per_rna.png"),
    ("topics per RNA", "topics_per_rna.png"),
    ("kinds", "question_kinds.png"),
    ("questions per RNA", "questions_per_rna.png"),
    ("RNA types", "rna_types.png"),
    ("lengths (nt, in steps of 100)", "lengths.png"),
)
COLLECTED = "Collected from RNAcentral, LitScan and Europe PMC"  # the release looks for this, too
VERBATIM = "Annotations are sentences of the abstracts, word for word"  # `rnagpt release dataset` looks for it


def write_card(folder: Path, statistics: dict, digests: dict, settings: BuildSettings, library: Library) -> None:
    """README.md whose YAML makes `load_dataset(folder, "alignment")` and `"qa"` work, streaming too."""
    from datasets import Features
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard, DatasetCardData

    infos, configs = [], MetadataConfigs()
    for name, schema in published_schemas().items():
        splits = digests[name]
        if not splits:
            continue
        features = Features.from_arrow_schema(schema)
        infos.append(
            {
                "config_name": name,
                "features": features._to_yaml_list(),
                "splits": [
                    {"name": split, "num_bytes": found["bytes"], "num_examples": found["rows"]}
                    for split, found in splits.items()
                ],
                "download_size": sum(found["bytes"] for found in splits.values()),
                "dataset_size": sum(found["bytes"] for found in splits.values()),
            }
        )
        files = [{"split": split, "path": found["pattern"]} for split, found in splits.items()]
        configs[name] = {"data_files": files, **({"default": True} if name == "alignment" else {})}
    data = DatasetCardData(
        pretty_name="RNA-QA",
        language=["en"],
        task_categories=["question-answering", "summarization"],
        tags=["biology", "rna"],
        dataset_info=infos,
        configs=configs.to_dataset_card_data_list()
        if hasattr(configs, "to_dataset_card_data_list")
        else yaml_of(configs),
    )
    pictures = draw(folder / "figures", statistics)
    text = f"---\n{data.to_yaml()}\n---\n\n{words(statistics, digests, settings, library, pictures)}"
    (folder / "README.md").write_text(DatasetCard(text).content, encoding="utf-8")


def yaml_of(configs) -> list[dict]:
    return [{"config_name": name, **config} for name, config in configs.items()]


def biases(statistics: dict, settings: BuildSettings) -> str:
    """What a user of the dataset would fall for, as lines of a list."""
    counted = statistics["yes and no"]
    yes, no = counted.get("Yes", 0), counted.get("No", 0)
    lines = []
    if yes + no:
        more, share = ("yes", yes) if yes >= no else ("no", no)
        share /= yes + no
        lines.append(f"- Yes-or-no questions: {yes} yes, {no} no: always saying {more} gets {share:.0%} right.")
    if settings.extractive:
        lines.append(f"- {VERBATIM}, under the licences of the papers.")
    least = settings.fewest_questions
    lines.append(f"- An annotation has at least {least} question{'s' * (least > 1)}, else its RNA has none.")
    return "\n".join(lines)


def facts(statistics: dict) -> str:
    """A line on the configuration `facts`, where there is one."""
    counted = ", ".join(f"{source} {number}" for source, number in statistics["curated facts"].items())
    return f"- `facts`: what others say of the RNAs, one statement per row: {counted}.\n" if counted else ""


def words(statistics: dict, digests: dict, settings: BuildSettings, library: Library, pictures: list[str]) -> str:
    """The card's text: what is in it, how it was made, what was left out and why, what it cannot be used for."""
    rows = "\n".join(
        f"| {name} | {split} | {found['rows']} |"
        for name, splits in digests.items()
        for split, found in splits.items()
    )
    shown = "\n\n".join(f"![{name}](figures/{file})" for name, file in PICTURES if file in pictures)
    collected = f"- {COLLECTED}.\n" if settings.source == "rnacentral" else ""
    return f"""# RNA-QA

Annotations of RNAs and questions about them, written by a language model from abstracts of the literature. Every
statement lists the papers it rests on (`statements`, `evidence_pmids`); abstracts are not part of the dataset.

| config | split | rows |
|---|---|---|
{rows}

- `alignment`: one annotation of an RNA per row. `qa`: one question about an RNA per row, open or closed.
{facts(statistics)}{collected}- Splits share no sequence, no sequence cluster and no paper.
- Language model: {settings.model.name}. Prompts: sha256 {prompts_sha256()[:16]}. Seed {settings.seed}.
  RNAcentral release: {settings.release or "not stated"}.
- Methods: {", ".join(settings.methods)}. At most {settings.cap_papers} papers per RNA, up to {settings.max_length} nt.
- Mean share of a statement's words that its papers have (`faithfulness`): {statistics["mean faithfulness"]}.
{biases(statistics, settings)}
- Questions or answers that name the RNA: {statistics["named"].get("names the RNA", 0)} (`names_the_rna`).

The checks are of words, numbers, names and citations. They do not prove that a sentence is true, and nothing here is
medical advice.

## What was left out, and why

{table({f"{stage}: {reason}": n for stage, reasons in library.counts().items() for reason, n in reasons.items()})}

### Answers of the language model

{table(statistics["left out or repaired"])}

### Quarantined

{table(statistics["quarantined"])}

## Figures

{shown or "Drawn where matplotlib is installed."}

Sequences and names are RNAcentral's (CC0) where the ids are; the texts are derived from the papers listed.
"""


def table(counts: dict) -> str:
    if not counts:
        return "Nothing."
    lines = [f"| {str(key).replace('|', '/')} | {number} |" for key, number in counts.items()]
    return "\n".join(["| what | number |", "|---|---|", *lines])


def draw(folder: Path, statistics: dict) -> list[str]:
    """Bar charts of the statistics -> the files drawn; none without matplotlib."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        return []
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    folder.mkdir()
    drawn = []
    for name, file in PICTURES:
        counts = statistics[name]
        if not counts:
            continue
        labels = list(counts)[:30]
        figure = Figure(figsize=(6, 3), layout="constrained")
        axes = figure.add_subplot()
        axes.bar(labels, [counts[label] for label in labels], color="#3b6ea5")
        axes.set_xlabel(name)
        axes.set_ylabel("questions" if name == "kinds" else "RNAs")
        if max(map(len, labels)) > 4 or len(labels) > 12:
            axes.tick_params(axis="x", rotation=60)
        figure.savefig(folder / file, dpi=110)
        drawn.append(file)
    return drawn


def report_text(report: dict) -> str:
    """The run report as a page of text."""
    lines = ["RNA-QA run report", ""]

    def add(key: str, value, indent: str = "") -> None:
        if value is None or value == {}:
            return
        if isinstance(value, dict):
            lines.append(f"{indent}{key}:")
            for name, one in value.items():
                add(name, one, indent + "  ")
        else:
            lines.append(f"{indent}{key}: {round(value, 4) if isinstance(value, float) else value}")

    for key, value in report.items():
        add(key, value)
    return "\n".join(lines) + "\n"
