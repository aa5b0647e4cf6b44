"""The figures of a run as CSV and Markdown: the paper's Tables 1-4 beside the paper's own values, and all the rest.

    write_tables(run_dir, summary)      # run_dir/tables/*.csv, *.md

The paper's tables are in `paper` mode only; numbers of another mode never stand in them.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from rnagpt.evaluation.asking.systems import system as system_of
from rnagpt.evaluation.scoring.rouge import ROUGE
from rnagpt.evaluation.scoring.strata import DIMENSIONS
from rnagpt_core.files import replace_text

# Xiao et al. 2024, Tables 1-4. system -> encoder -> (precision, recall, F1), and system -> ROUGE-1, -2, -L
SIMILARITY = {
    "ais": {
        "llm_text": {
            "S_BERT": (0.7372, 0.7496, 0.7424),
            "S_Pub": (0.5528, 0.5270, 0.5387),
            "S_GPT": (0.5219, 0.5474, 0.5339),
        },
        "stage1": {
            "S_BERT": (0.6929, 0.8028, 0.7403),
            "S_Pub": (0.6507, 0.6082, 0.6283),
            "S_GPT": (0.6655, 0.6603, 0.6627),
        },
        "stage2": {
            "S_BERT": (0.8602, 0.8404, 0.8494),
            "S_Pub": (0.7384, 0.7208, 0.7293),
            "S_GPT": (0.7848, 0.7561, 0.7700),
        },
    },
    "divide_and_conquer": {
        "llm_text": {
            "S_BERT": (0.7612, 0.7654, 0.7625),
            "S_Pub": (0.5498, 0.5512, 0.5501),
            "S_GPT": (0.5479, 0.5649, 0.5561),
        },
        "stage1": {
            "S_BERT": (0.6884, 0.8187, 0.7466),
            "S_Pub": (0.6201, 0.5830, 0.6005),
            "S_GPT": (0.6676, 0.6602, 0.6637),
        },
        "stage2": {
            "S_BERT": (0.8620, 0.8623, 0.8609),
            "S_Pub": (0.7173, 0.7161, 0.7165),
            "S_GPT": (0.7568, 0.7554, 0.7560),
        },
    },
}
ROUGE_VALUES = {
    "ais": {
        "llm_text": (0.2364, 0.0935, 0.2037),
        "stage1": (0.2239, 0.1364, 0.2091),
        "stage2": (0.5031, 0.3667, 0.4747),
    },
    "divide_and_conquer": {
        "llm_text": (0.2472, 0.0964, 0.2182),
        "stage1": (0.0922, 0.0393, 0.0799),
        "stage2": (0.4791, 0.2690, 0.4405),
    },
}
TABLE_NUMBERS = {"ais": (1, 2), "divide_and_conquer": (3, 4)}
SET_NAMES = {"ais": "AIS", "divide_and_conquer": "D&C"}
COLUMNS = {"llm_text": "LLM, RNA as text", "stage1": "Modality fusion (stage 1)", "stage2": "RNA-GPT (stage 2)"}
HEADINGS = ("precision", "recall", "f1")

Table = list[list[str]]  # a header row, then rows


def write_tables(run_dir: str | Path, summary: dict) -> list[Path]:
    """Write every table that the summary has figures for, as CSV and as Markdown; returns the paths."""
    folder = Path(run_dir) / "tables"
    written = []
    for name, (title, table) in all_tables(summary).items():
        title = " ".join(filter(None, [summary.get("unfinished"), title]))
        written.append(replace_text(folder / f"{name}.csv", as_csv(table)))
        written.append(replace_text(folder / f"{name}.md", f"{title}\n\n{as_markdown(table)}"))
    return written


def all_tables(summary: dict) -> dict[str, tuple[str, Table]]:
    """File name -> (title, table)."""
    tables = {"accuracy": ("Right answers, with intervals over sequence clusters", accuracy_table(summary))}
    for entry in summary.get("text", []):
        method = entry["method"]
        suffix = f"_{method}" if method else ""
        where = f"{entry['n_rna']:,} RNAs, {entry['n_questions']:,} questions"
        where = f"RNA-QA ({SET_NAMES.get(method, method)}), {where}" if method else where
        one, two = [f"Table {number}: " for number in TABLE_NUMBERS[method]] if method in TABLE_NUMBERS else ("", "")
        beside = "; the paper's own values in brackets" if method in SIMILARITY else ""
        if method in SIMILARITY or any(_row_of(entry, key) for key in COLUMNS):
            table = paper_similarity(entry)
            if len(table[0]) > 1:  # without an encoder, and on other data than the paper's, there is no column
                tables[f"paper_similarity{suffix}"] = (f"{one}{where}. Similarity in `paper` mode{beside}.", table)
            tables[f"paper_rouge{suffix}"] = (
                f"{two}{where}. ROUGE F1, averaged within an RNA first{beside}.",
                paper_rouge(entry),
            )
        for mode in ("paper", "aligned", "sentence"):
            table = text_table(entry, mode)
            if len(table[0]) > 1:
                tables[f"{mode}{suffix}"] = (f"Every system in `{mode}` mode: F1 [interval]. {where}.", table)
    for entry in summary.get("strata", []):
        measure = "right labels" if entry["measure"] == "label" else entry["measure"]
        name = "labels" if entry["measure"] == "label" else "text"
        tables[f"by_{entry['dimension']}_{name}"] = (
            f"{DIMENSIONS[entry['dimension']]}: {measure}.",
            strata_table(entry),
        )
    if summary.get("grounding"):
        tables["grounding"] = (
            "What a model loses without the true RNA (true minus control)",
            grounding_table(summary),
        )
    if summary.get("calibration"):
        tables["calibration"] = ("Calibration of the most likely option", calibration_table(summary))
    if summary.get("judge"):
        against = summary["judge"]["agreement"]
        said = (
            f"; it agrees with the exact label in {100 * against['agreement']:.0f}% of {against['n']:,} answers "
            f"that have one (kappa {against['kappa']:.2f})"
            if against
            else "; no exact labels to check it by"
        )
        tables["judge"] = (f"LLM as judge: 1 correct, 0.5 partly, 0 wrong{said}.", judge_table(summary))
    return tables


def judge_table(summary: dict) -> Table:
    """One row per system: the judge's mean verdict."""
    rows = summary["judge"]["systems"].items()
    return [
        ["system", "mean verdict [interval]", "n"],
        *([system_of(key).label, _interval(row), str(row["n_items"])] for key, row in rows),
    ]


def accuracy_table(summary: dict) -> Table:
    """One row per system: accuracy with interval, balanced accuracy, MCC, macro-F1, unparseable."""
    head = ["system"]
    for measure in ("RNA type", "closed"):
        head += [
            f"{measure}: {name}"
            for name in ("accuracy", "low", "high", "balanced", "MCC", "macro-F1", "n", "unparseable")
        ]
    rows = [head]
    for row in summary["systems"]:
        cells = [row["label"]]
        for measure in ("rna_type", "closed"):
            estimate = row[measure]
            cells += (
                [_number(estimate[name]) for name in ("value", "low", "high", "balanced", "mcc", "macro_f1")]
                + [str(estimate["n_items"]), str(estimate["unparseable"])]
                if estimate
                else [""] * 8
            )
        rows.append(cells)
    return rows


def _row_of(entry: dict, key: str) -> dict | None:
    return next((row["modes"] for row in entry["systems"] if row["system"] == key), None)


def paper_similarity(entry: dict) -> Table:
    """The layout of Tables 1 and 3: precision, recall and F1 by system and encoder; the paper's value in brackets."""
    method = entry["method"]
    labels = ["S_BERT", "S_Pub", "S_GPT"]
    measured = {label for row in entry["systems"] for label in row["modes"].get("paper", {}) if label not in ROUGE}
    labels += sorted(measured - set(labels))
    if method not in SIMILARITY:
        labels = [label for label in labels if label in measured]
    table = [["Metric", *(f"{COLUMNS[key]}: {label}" for key in COLUMNS for label in labels)]]
    for place, heading in enumerate(HEADINGS):
        cells = [{"precision": "Precision", "recall": "Recall", "f1": "F1 Score"}[heading]]
        for key in COLUMNS:
            ours = (_row_of(entry, key) or {}).get("paper") or {}
            for label in labels:
                value = ours.get(label, {}).get(heading)
                theirs = SIMILARITY.get(method, {}).get(key, {}).get(label)
                cells.append(
                    _beside(value["value"] if isinstance(value, dict) else value, theirs[place] if theirs else None)
                )
        table.append(cells)
    return table


def paper_rouge(entry: dict) -> Table:
    """The layout of Tables 2 and 4."""
    names = {"rouge1": "Rouge-1", "rouge2": "Rouge-2", "rougeL": "Rouge-L"}
    table = [["Metric", *(f"{COLUMNS[key]}: {name}" for key in COLUMNS for name in names.values())], ["ROUGE"]]
    for key in COLUMNS:
        ours = (_row_of(entry, key) or {}).get("paper") or {}
        theirs = ROUGE_VALUES.get(entry["method"], {}).get(key)
        for place, name in enumerate(names):
            value = ours.get(name, {}).get("f1")
            table[1].append(_beside(value["value"] if value else None, theirs[place] if theirs else None))
    return table


def _beside(value: float | None, paper: float | None) -> str:
    """
    >>> _beside(0.70912, 0.7293), _beside(None, 0.7293), _beside(0.5, None)
    ('0.7091 (0.7293)', '- (0.7293)', '0.5000')
    """
    ours = "-" if value is None else f"{value:.4f}"
    return ours if paper is None else f"{ours} ({paper:.4f})"


def text_table(entry: dict, mode: str) -> Table:
    """One row per system, one column per metric of a mode: F1 with its interval."""
    labels = list(dict.fromkeys(label for row in entry["systems"] for label in row["modes"].get(mode, {})))
    table = [["system", *labels]]
    for row in entry["systems"]:
        found = row["modes"].get(mode, {})
        table.append(
            [
                system_of(row["system"]).label,
                *(_interval(found[label]["f1"]) if label in found else "" for label in labels),
            ]
        )
    return table


def strata_table(entry: dict) -> Table:
    """One row per system, one column per bin."""
    systems = list(dict.fromkeys(key for row in entry["bins"] for key in row["systems"]))
    table = [["system", *(f"{row['bin']} (n = {row['n']})" for row in entry["bins"])]]
    for key in systems:
        table.append(
            [
                system_of(key).label,
                *(_interval(row["systems"][key]) if key in row["systems"] else "" for row in entry["bins"]),
            ]
        )
    return table


def grounding_table(summary: dict) -> Table:
    """One row per model, control and measure."""
    table = [["model", "control", "measure", "true RNA", "control's RNA", "gap [interval]", "p (Holm)", "n"]]
    for row in summary["grounding"]:
        table.append(
            [
                system_of(row["system"]).label,
                row["control"],
                row["measure"],
                _number(row["true"]),
                _number(row["other"]),
                _interval(row),
                f"{row['p_holm']:.4f}",
                str(row["n_items"]),
            ]
        )
    return table


def calibration_table(summary: dict) -> Table:
    """One row per system with option likelihoods."""
    table = [["system", "accuracy", "ECE", "Brier", "AURC", "best possible AURC", "kept at 10% risk", "n"]]
    for key, row in summary["calibration"].items():
        kept = row["abstention"]["coverage"] if row["abstention"] else 0.0
        table.append(
            [
                system_of(key).label,
                *(
                    _number(value)
                    for value in (
                        row["accuracy"],
                        row["ece"],
                        row["brier"],
                        row["risk_coverage"]["aurc"],
                        row["risk_coverage"]["best"],
                        kept,
                    )
                ),
                str(row["n"]),
            ]
        )
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _interval(estimate: dict) -> str:
    """
    >>> _interval({"value": 0.5, "low": 0.4, "high": 0.6}), _interval({"value": 0.5})
    ('0.500 [0.400, 0.600]', '0.500')
    """
    text = f"{estimate['value']:.3f}"
    return f"{text} [{estimate['low']:.3f}, {estimate['high']:.3f}]" if "low" in estimate else text


def as_csv(table: Table) -> str:
    """The table as CSV."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(table)
    return buffer.getvalue()


def as_markdown(table: Sequence[Sequence[str]]) -> str:
    """The table as Markdown; a bar in a cell is escaped.

    >>> print(as_markdown([["a", "b"], ["1", "x|y"]]))
    | a | b |
    |---|---|
    | 1 | x\\|y |
    <BLANKLINE>
    """
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table]
    lines.insert(1, "|" + "---|" * len(table[0]))
    return "\n".join(lines) + "\n"
