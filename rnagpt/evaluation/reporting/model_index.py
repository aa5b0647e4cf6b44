"""The figures as model-index metadata, ready for a model card.

    write_model_index(run_dir, summary, "owner/rna-gpt")     # run_dir/model_index.yaml

Every result names its mode, so that numbers of two modes are never taken for one another; the control with another
RNA stands beside the score it belongs to.
"""

from pathlib import Path

from rnagpt.evaluation.asking.systems import system
from rnagpt_core.files import replace_text

METRICS = {"rna_type": "RNA type, share right", "closed": "Closed questions, share right"}


def dataset_of(summary: dict) -> tuple[str, str]:
    """Name and id of what was asked: only the RNA facts ask for the RNA's type as a topic of its own."""
    return ("RNA facts", "rna-facts") if "rna_type" in summary["topics"] else ("RNA-QA", "rna-qa")


def eval_results(summary: dict, dataset_name: str, dataset_id: str = "rna-qa", split: str = "test") -> list:
    """`huggingface_hub.EvalResult`s of the main system and of its control with another RNA."""
    from huggingface_hub import EvalResult

    main = summary["main"]
    results = []

    def add(key: str, metric_type: str, name: str, value: float) -> None:
        results.append(
            EvalResult(
                task_type="question-answering",
                task_name=f"RNA question answering: {system(key).label}",
                dataset_type=dataset_id,
                dataset_name=dataset_name,
                dataset_split=split,
                metric_type=metric_type,
                metric_name=name,
                metric_value=round(value, 4),
            )
        )

    for row in summary["systems"]:
        if row["system"] in (main, f"{main}_swapped"):
            for measure, name in METRICS.items():
                if row[measure]:
                    add(row["system"], "accuracy", f"{name} ({system(row['system']).label})", row[measure]["value"])
    for entry in summary.get("text", []):
        for row in entry["systems"]:
            if row["system"] not in (main, f"{main}_swapped"):
                continue
            for mode, metrics in row["modes"].items():
                for label, values in metrics.items():
                    kind = "rouge" if label.startswith("rouge") else "bertscore" if label == "S_BERT" else "cosine"
                    of_set = f", {entry['method']}" if entry["method"] else ""
                    add(
                        row["system"],
                        kind,
                        f"{label} F1, {mode} mode{of_set} ({system(row['system']).label})",
                        values["f1"]["value"],
                    )
    return results


def write_model_index(run_dir: str | Path, summary: dict, model_name: str, split: str = "test") -> Path | None:
    """Write run_dir/model_index.yaml: the `model-index` block of a model card. None where no model was evaluated."""
    import yaml
    from huggingface_hub.repocard_data import eval_results_to_model_index

    results = eval_results(summary, *dataset_of(summary), split) if summary["main"] else []
    if not results:
        return None
    index = {"model-index": eval_results_to_model_index(model_name, results)}
    return replace_text(Path(run_dir) / "model_index.yaml", yaml.safe_dump(index, sort_keys=False, allow_unicode=True))
