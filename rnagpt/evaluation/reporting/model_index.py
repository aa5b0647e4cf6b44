"""The figures as model-index metadata, ready for a model card.

Every result names its mode, so that numbers of two modes are never taken for one another; the control with another
RNA stands beside the score it belongs to.
"""

from rnagpt.evaluation.asking.systems import system

METRICS = {"rna_type": "RNA type, share right", "closed": "Closed questions, share right"}


def dataset_of(summary: dict) -> tuple[str, str]:
    """Name and id of what was asked: only the RNA facts ask for the RNA's type as a topic of its own."""
    return ("RNA facts", "rna-facts") if "rna_type" in summary["topics"] else ("RNA-QA", "rna-qa")


def model_index(summary: dict, model_name: str, split: str = "test") -> list:
    """The value of `model-index`: the main system, its control with another RNA; [] where no model was evaluated."""
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    main = summary.get("main")
    keys = (main, f"{main}_swapped") if main else ()
    found = [
        (row["system"], "accuracy", name, row[measure]["value"])
        for row in summary["systems"]
        if row["system"] in keys
        for measure, name in METRICS.items()
        if row[measure]
    ]
    for entry in summary.get("text", []):
        of_set = f", {entry['method']}" if entry["method"] else ""
        for row in [row for row in entry["systems"] if row["system"] in keys]:
            for mode, metrics in row["modes"].items():
                for label, values in metrics.items():
                    kind = "rouge" if label.startswith("rouge") else "bertscore" if label == "S_BERT" else "cosine"
                    found.append((row["system"], kind, f"{label} F1, {mode} mode{of_set}", values["f1"]["value"]))
    name, dataset = dataset_of(summary)
    results = [
        EvalResult(
            task_type="question-answering",
            task_name=f"RNA question answering: {system(key).label}",
            dataset_type=dataset,
            dataset_name=name,
            dataset_split=split,
            metric_type=kind,
            metric_name=f"{metric} ({system(key).label})",
            metric_value=round(value, 4),
        )
        for key, kind, metric, value in found
    ]
    return eval_results_to_model_index(model_name, results) if results else []
