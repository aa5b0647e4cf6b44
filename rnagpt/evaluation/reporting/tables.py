"""The figures of a run as tables, for the terminal, as CSV and Markdown; the paper's Tables 1-4 beside its own values.

    print_table(summary)                # one row per system
    write_tables(run_dir, summary)      # run_dir/tables/*.csv, *.md

The paper's tables are in `paper` mode only; numbers of another mode never stand in them.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from rnagpt.evaluation.asking.systems import GROUPS, system
from rnagpt.evaluation.scoring.strata import DIMENSIONS
from rnagpt_core.files import replace_text

# Xiao et al. 2024, Tables 1-4: set and system -> precision, recall, F1 of S_BERT, of S_Pub, of S_GPT; ROUGE-1, -2, -L
PAPER = """
ais                llm_text 0.7372 0.7496 0.7424 0.5528 0.5270 0.5387 0.5219 0.5474 0.5339 0.2364 0.0935 0.2037
ais                stage1   0.6929 0.8028 0.7403 0.6507 0.6082 0.6283 0.6655 0.6603 0.6627 0.2239 0.1364 0.2091
ais                stage2   0.8602 0.8404 0.8494 0.7384 0.7208 0.7293 0.7848 0.7561 0.7700 0.5031 0.3667 0.4747
divide_and_conquer llm_text 0.7612 0.7654 0.7625 0.5498 0.5512 0.5501 0.5479 0.5649 0.5561 0.2472 0.0964 0.2182
divide_and_conquer stage1   0.6884 0.8187 0.7466 0.6201 0.5830 0.6005 0.6676 0.6602 0.6637 0.0922 0.0393 0.0799
divide_and_conquer stage2   0.8620 0.8623 0.8609 0.7173 0.7161 0.7165 0.7568 0.7554 0.7560 0.4791 0.2690 0.4405
"""
PARTS = {"precision": "Precision", "recall": "Recall", "f1": "F1 Score"}
PAPER_LABELS = ["S_BERT", "S_Pub", "S_GPT"]
ROUGE_NAMES = {"rouge1": "Rouge-1", "rouge2": "Rouge-2", "rougeL": "Rouge-L"}
_PLACES = [(label, part) for label in PAPER_LABELS for part in PARTS] + [(name, "f1") for name in ROUGE_NAMES]
PAPER_VALUES = {
    (method, key): dict(zip(_PLACES, map(float, values), strict=True))
    for method, key, *values in map(str.split, PAPER.strip().split("\n"))
}
SETS = {"ais": ("AIS", "Table 1: ", "Table 2: "), "divide_and_conquer": ("D&C", "Table 3: ", "Table 4: ")}
COLUMNS = {"llm_text": "LLM, RNA as text", "stage1": "Modality fusion (stage 1)", "stage2": "RNA-GPT (stage 2)"}
MEASURES = ("rna_type", "closed")
Table = list[list[str]]  # a header row, then rows


def print_table(summary: dict, file: TextIO | None = None) -> None:
    """Print one aligned row per system: both accuracies with intervals, n, and unparseable answers."""
    if "unfinished" in summary:
        print(f"{summary['unfinished']}\n", file=file)
    head = ("", f"RNA type [{100 * summary['confidence']:g}% interval]", "n", "Closed questions", "n", "Unparsed")
    rows, last = [], None
    for row in summary["systems"]:  # in the order of their groups
        if (group := system(row["system"]).group) != last:
            last = group
            rows.append((GROUPS[last], *[""] * 5))
        one, two = ((share(row[name], 5), str(row[name]["n_items"] if row[name] else "-")) for name in MEASURES)
        rows.append(("  " + row["label"], *one, *two, str(row["unparseable"])))
    rows.append(("Chance", *(cell for name in MEASURES for cell in (chance(summary, name, 5), "")), ""))
    # group names may run on into the empty columns, so they do not widen the first one
    widths = [max(len(row[column]) for row in [head, *rows] if column or row[1]) for column in range(len(head))]
    rnas = f"{summary['n_rna']} held-out RNAs in {summary['n_clusters']} clusters"
    print(f"{rnas}, {summary['n_questions']} questions", file=file)
    for row in [head, *rows]:
        cells = zip(row, widths, (str.ljust, str.ljust, str.rjust, str.ljust, str.rjust, str.rjust), strict=True)
        print("  ".join(justify(cell, width) for cell, width, justify in cells).rstrip(), file=file)


def share(estimate: dict | None, width: int = 0) -> str:
    """An estimate in percent with its interval; a column of those with a width of 5 is aligned.

    >>> share({"value": 0.75, "low": 0.690, "high": 0.805}), share(None)
    ('75.0% [69.0, 80.5]', '-')
    >>> share({"value": 0.0704, "low": 0.05, "high": 0.177}, 5), share(None, 5)
    ('  7.0% [ 5.0,  17.7]', '     -')
    """
    if estimate is None:
        return f"{'-':>{width + bool(width)}}"
    value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
    return f"{value:{width}.1f}% [{low:{max(width - 1, 0)}.1f}, {high:{width}.1f}]"


def chance(summary: dict, measure: str, width: int = 0) -> str:
    """The level of chance in percent."""
    level = summary["chance"][measure]
    return "-" if level is None else f"{100 * level:{width}.1f}%"


def write_tables(run_dir: str | Path, summary: dict) -> None:
    """Write every table that the summary has figures for, as CSV and as Markdown."""
    folder = Path(run_dir) / "tables"
    for name, (title, table) in all_tables(summary).items():
        title = " ".join(filter(None, [summary.get("unfinished"), title]))
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows(table)
        replace_text(folder / f"{name}.csv", buffer.getvalue())
        replace_text(folder / f"{name}.md", f"{title}\n\n{as_markdown(table)}")


def all_tables(summary: dict) -> dict[str, tuple[str, Table]]:
    """File name -> (title, table)."""
    tables = {"accuracy": ("Right answers, with intervals over sequence clusters", accuracy_table(summary))}
    for entry in summary.get("text", []):
        tables |= _text_tables(entry)
    for entry in summary.get("strata", []):
        measure, name = ("right labels", "labels") if entry["measure"] == "label" else (entry["measure"], "text")
        keys = dict.fromkeys(key for row in entry["bins"] for key in row["systems"])
        head = ["system", *(f"{row['bin']} (n = {row['n']})" for row in entry["bins"])]
        rows = [[system(key).label, *(_interval(row["systems"].get(key)) for row in entry["bins"])] for key in keys]
        table = [head, *rows]
        tables[f"by_{entry['dimension']}_{name}"] = (f"{DIMENSIONS[entry['dimension']]}: {measure}.", table)
    if rows := summary.get("grounding"):
        head = ["model", "control", "measure", "true RNA", "control's RNA", "gap [interval]", "p (Holm)", "n"]
        table = [
            [system(row["system"]).label, row["control"], row["measure"], *map(_number, (row["true"], row["other"]))]
            + [_interval(row), f"{row['p_holm']:.4f}", str(row["n_items"])]
            for row in rows
        ]
        tables["grounding"] = ("What a model loses without the true RNA (true minus control)", [head, *table])
    if found := summary.get("calibration"):
        table = [["system", "accuracy", "ECE", "Brier", "AURC", "best possible AURC", "kept at 10% risk", "n"]]
        for key, row in found.items():
            risk, kept = row["risk_coverage"], row["abstention"]["coverage"] if row["abstention"] else 0.0
            numbers = (row["accuracy"], row["ece"], row["brier"], risk["aurc"], risk["best"], kept)
            table.append([system(key).label, *map(_number, numbers), str(row["n"])])
        tables["calibration"] = ("Calibration of the most likely option", table)
    if judge := summary.get("judge"):
        against, found = judge["agreement"], judge["systems"]
        checked = (
            f"; it agrees with the exact label in {100 * against['agreement']:.0f}% of {against['n']:,} answers "
            f"that have one (kappa {against['kappa']:.2f})"
            if against
            else "; no exact labels to check it by"
        )
        rows = [[system(key).label, _interval(row), str(row["n_items"])] for key, row in found.items()]
        table = [["system", "mean verdict [interval]", "n"], *rows]
        tables["judge"] = (f"LLM as judge: 1 correct, 0.5 partly, 0 wrong{checked}.", table)
    return tables


def accuracy_table(summary: dict) -> Table:
    """One row per system: accuracy with interval, balanced accuracy, MCC, macro-F1, unparseable."""
    names = ("accuracy", "low", "high", "balanced", "MCC", "macro-F1", "n", "unparseable")
    numbers = ("value", "low", "high", "balanced", "mcc", "macro_f1")
    table = [["system", *(f"{measure}: {name}" for measure in ("RNA type", "closed") for name in names)]]
    for row in summary["systems"]:
        cells = [row["label"]]
        for found in (row["rna_type"], row["closed"]):
            cells += [_number(found and found[name]) for name in numbers]
            cells += [str(found[name]) if found else "" for name in ("n_items", "unparseable")]
        table.append(cells)
    return table


def _text_tables(entry: dict) -> dict[str, tuple[str, Table]]:
    """The paper's two tables, where they have something to show, and one of every mode."""
    method, systems, tables = entry["method"], {row["system"]: row["modes"] for row in entry["systems"]}, {}
    name, one, two = SETS.get(method, (method, "", ""))
    where = f"{entry['n_rna']:,} RNAs, {entry['n_questions']:,} questions"
    where = f"RNA-QA ({name}), {where}" if method else where
    suffix, beside = f"_{method}" if method else "", "; the paper's own values in brackets" if method in SETS else ""
    if method in SETS or systems.keys() & COLUMNS.keys():
        measured = {label for modes in systems.values() for label in modes.get("paper", {})} - ROUGE_NAMES.keys()
        labels = [label for label in PAPER_LABELS if method in SETS or label in measured]
        labels += sorted(measured - set(PAPER_LABELS))
        table = _paper_table(method, systems, {label: label for label in labels}, PARTS)
        if len(table[0]) > 1:  # without an encoder, and on other data than the paper's, there is no column
            tables[f"paper_similarity{suffix}"] = (f"{one}{where}. Similarity in `paper` mode{beside}.", table)
        title = f"{two}{where}. ROUGE F1, averaged within an RNA first{beside}."
        tables[f"paper_rouge{suffix}"] = (title, _paper_table(method, systems, ROUGE_NAMES, {"f1": "ROUGE"}))
    for mode in ("paper", "aligned", "sentence"):
        labels = dict.fromkeys(label for modes in systems.values() for label in modes.get(mode, {}))
        rows = [[system(key).label] for key in systems]
        for row, modes in zip(rows, systems.values(), strict=True):
            row += [_interval(modes.get(mode, {}).get(label, {}).get("f1")) for label in labels]
        if labels:
            title = f"Every system in `{mode}` mode: F1 [interval]. {where}."
            tables[f"{mode}{suffix}"] = (title, [["system", *labels], *rows])
    return tables


def _paper_table(method: str, systems: dict[str, dict], labels: dict[str, str], parts: dict[str, str]) -> Table:
    """The layout of the paper's tables: a row per part, a column per system and metric; its value in brackets."""
    table = [["Metric", *(f"{COLUMNS[key]}: {label}" for key in COLUMNS for label in labels.values())]]
    for part, heading in parts.items():
        table.append([heading])
        for key in COLUMNS:
            for label in labels:
                ours = systems.get(key, {}).get("paper", {}).get(label, {}).get(part)
                ours = ours["value"] if isinstance(ours, dict) else ours
                table[-1].append(_beside(ours, PAPER_VALUES.get((method, key), {}).get((label, part))))
    return table


def _beside(ours: float | None, paper: float | None) -> str:
    """
    >>> _beside(0.70912, 0.7293), _beside(None, 0.7293), _beside(0.5, None)
    ('0.7091 (0.7293)', '- (0.7293)', '0.5000')
    """
    return (_number(ours) or "-") + ("" if paper is None else f" ({paper:.4f})")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _interval(estimate: dict | None) -> str:
    """
    >>> _interval({"value": 0.5, "low": 0.4, "high": 0.6}), _interval({"value": 0.5}), _interval(None)
    ('0.500 [0.400, 0.600]', '0.500', '')
    """
    if estimate is None:
        return ""
    text = f"{estimate['value']:.3f}"
    return f"{text} [{estimate['low']:.3f}, {estimate['high']:.3f}]" if "low" in estimate else text


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
