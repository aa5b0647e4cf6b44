"""Figures beyond the accuracy bars: similarity, identity with training, reliability, risk against coverage.

Drawn like those of `charts`, as SVG text that follows the page. `write_pictures` leaves each as a file of its own.
"""

import re
from importlib import resources
from pathlib import Path

from rnagpt.evaluation.asking.systems import system
from rnagpt.evaluation.reporting.charts import _COLOURS, NARROW, WIDE, _svg, accuracy_bars
from rnagpt_core.files import replace_text

_MARGINS = {"left": 52, "right": 12, "top": 34, "bottom": 46}


def similarity_bars(summary: dict, narrow: bool = False) -> str:
    """Bars of the headline similarity of every system, with intervals; "" where no text was scored."""
    rows = [
        (system(row["system"]), values["f1"])
        for entry in summary.get("text", [])[:1]
        for row in entry["systems"]
        for values in [_headline(summary, row)]
        if values
    ]
    if not rows:
        return ""
    height = 34 if narrow else 25
    margins = {"left": 4 if narrow else 218, "right": 52, "top": 34, "bottom": 30}

    def draw(figure) -> None:
        axes = figure.subplots()
        for place, (spec, estimate) in enumerate(rows):
            y = place * height
            offset, thickness = (8, 12) if narrow else (0, 15)
            axes.barh(y + offset, estimate["value"], height=thickness, color=_COLOURS[spec.group], linewidth=0)
            axes.plot([estimate["low"], estimate["high"]], [y + offset] * 2, color=_COLOURS["ink"], linewidth=1.4)
            axes.text(
                max(estimate["value"], estimate["high"]) + 0.02,
                y + offset,
                f"{estimate['value']:.3f}",
                va="center",
                fontsize=12,
            )
            weight = "bold" if spec.group == "model" else None
            axes.text(
                0 if narrow else -0.03,
                y - (8 if narrow else 0),
                spec.label,
                ha="left" if narrow else "right",
                va="center",
                fontsize=12,
                weight=weight,
                transform=axes.get_yaxis_transform(),
            )
        axes.set_ylim(len(rows) * height - height / 2, -height / 2 - (6 if narrow else 0))
        axes.set_xlim(0, 1)
        axes.set_yticks([])
        axes.xaxis.grid(True, color=_COLOURS["line"], linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_title(metric_label(summary["headline_metric"]), pad=10)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        axes.tick_params(length=0)

    return _svg(draw, NARROW if narrow else WIDE, len(rows) * height + 80, margins, 0.2)


def metric_label(name: str) -> str:
    """A metric for people.

    >>> metric_label("aligned:S_Pub"), metric_label("rougeL")
    ('S_Pub F1, aligned mode', 'ROUGE-L F1')
    """
    mode, _, label = name.rpartition(":")
    return f"{label} F1, {mode} mode" if mode else f"{label.replace('rouge', 'ROUGE-')} F1"


def _headline(summary: dict, row: dict) -> dict | None:
    mode, _, label = summary["headline_metric"].rpartition(":")
    return row["modes"].get(mode or "aligned", {}).get(label)


def against_identity(summary: dict, narrow: bool = False) -> str:
    """Score by identity with the nearest training RNA, for models, their swapped controls and the copies; "" where it
    is not known, or where all RNAs fall into one bin."""
    tables = [
        entry
        for entry in summary.get("strata", [])
        if entry["dimension"] == "train_identity" and len(entry["bins"]) > 1
    ]
    if not tables:
        return ""

    def draw(figure) -> None:
        grid = (
            figure.subplots(len(tables), 1, squeeze=False)[:, 0]
            if narrow
            else figure.subplots(1, len(tables), squeeze=False)[0]
        )
        for axes, entry in zip(grid, tables, strict=True):
            keys = dict.fromkeys(key for row in entry["bins"] for key in row["systems"])
            shown = [
                key
                for key in keys
                if key
                in (
                    summary["main"],
                    f"{summary['main']}_swapped",
                    "nearest_identity",
                    "nearest_train",
                    "kmer_length",
                    "question_only",
                )
            ]
            for key in shown:
                points = [
                    (place, row["systems"][key]) for place, row in enumerate(entry["bins"]) if key in row["systems"]
                ]
                colour = _COLOURS[system(key).group]
                line = "--" if key in ("nearest_train", "question_only") else ":" if key == "kmer_length" else "-"
                axes.plot(
                    [x for x, _ in points],
                    [e["value"] for _, e in points],
                    line,
                    color=colour,
                    marker="o",
                    markersize=4,
                    linewidth=2,
                    label=system(key).label,
                )
                for x, e in points:
                    if "low" in e:
                        axes.plot([x, x], [e["low"], e["high"]], color=colour, linewidth=1.2)
            axes.set_xticks(range(len(entry["bins"])), [f"{row['bin']}\nn = {row['n']}" for row in entry["bins"]])
            axes.set_ylim(0, 1.02)
            axes.set_title(
                "Share of right labels" if entry["measure"] == "label" else metric_label(entry["measure"]), pad=10
            )
            axes.set_xlabel("identity with the nearest training RNA")
            _plain(axes)
        # beside the panels (below them on a phone), where no line runs
        lines = {line.get_label(): line for axes in grid for line in axes.get_lines() if line.get_label()[0] != "_"}
        figure.legend(
            lines.values(), lines.keys(), loc="lower left" if narrow else "center right", fontsize=10, handlelength=3
        )

    margins = _MARGINS | ({"bottom": 170} if narrow else {"bottom": 62, "right": 186})
    return _svg(
        draw, NARROW if narrow else WIDE, 310 * len(tables) + 110 if narrow else 310, margins, 0.5 if narrow else 0.2
    )


def reliability(summary: dict, narrow: bool = False) -> str:
    """Two panels: how often an answer is right by how sure the model is; error among the answers kept."""
    found = {
        key: row
        for key, row in summary.get("calibration", {}).items()
        if key in (summary["main"], f"{summary['main']}_swapped")
    }
    if not found:
        return ""

    def draw(figure) -> None:
        left, right = figure.subplots(2, 1) if narrow else figure.subplots(1, 2)
        left.plot([0, 1], [0, 1], color=_COLOURS["ink"], linewidth=1, linestyle=(0, (2, 3)), label="sure as right")
        for key, row in found.items():
            colour = _COLOURS[system(key).group]
            left.plot(
                [p["confidence"] for p in row["points"]],
                [p["accuracy"] for p in row["points"]],
                color=colour,
                linewidth=2,
                label=f"{system(key).label}: ECE {row['ece']:.2f}",
            )
            most = max(p["n"] for p in row["points"])
            left.scatter(
                [p["confidence"] for p in row["points"]],
                [p["accuracy"] for p in row["points"]],
                s=[12 + 60 * p["n"] / most for p in row["points"]],
                color=colour,
                zorder=3,
            )
            curve = row["risk_coverage"]["points"]
            right.plot(
                [p["coverage"] for p in curve],
                [p["risk"] for p in curve],
                color=colour,
                linewidth=2,
                label=f"{system(key).label}: area {row['risk_coverage']['aurc']:.2f}",
            )
        left.set_xlabel("how sure it is of its answer")
        left.set_ylabel("share right")
        left.set_title("Reliability", pad=10)
        right.set_xlabel("share of questions answered, the surest first")
        right.set_ylabel("share wrong among them")
        right.set_title("Risk and coverage", pad=10)
        for axes in (left, right):
            axes.set_xlim(-0.02, 1.02)
            axes.set_ylim(-0.02, 1.02)
            axes.legend(loc="best", fontsize=10)
            _plain(axes)

    return _svg(draw, NARROW if narrow else WIDE, 620 if narrow else 330, _MARGINS, 0.45 if narrow else 0.2)


def _plain(axes) -> None:
    axes.grid(True, color=_COLOURS["line"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0)


def type_by_system(summary: dict) -> dict | None:
    """The heat map of scores, RNA types as columns: {"columns", "rows", "measure"}; None without several types."""
    entry = next((entry for entry in summary.get("strata", []) if entry["dimension"] == "rna_type"), None)
    if entry is None:
        return None
    keys = dict.fromkeys(key for row in entry["bins"] for key in row["systems"])
    rows = []
    for key in keys:
        cells = []
        for row in entry["bins"]:
            value = row["systems"].get(key, {}).get("value")
            percent = None if value is None else round(100 * max(value, 0))
            cells.append(
                {
                    "percent": percent or 0,
                    "css": "deep" if (percent or 0) >= 78 else "",
                    "text": "–" if percent is None else str(percent),
                }
            )
        rows.append({"label": system(key).label, "group": system(key).group, "cells": cells})
    return {
        "columns": [row["bin"] for row in entry["bins"]],
        "rows": rows,
        "measure": "share of right labels" if entry["measure"] == "label" else metric_label(entry["measure"]),
    }


def type_heat(summary: dict) -> str:
    """The same as a picture, a system's colour the deeper the higher its score; "" without several types."""
    heat = type_by_system(summary)
    if heat is None:
        return ""
    from dataset_builder.facts_table.fact_questions import SHORT_NAMES

    def draw(figure) -> None:
        axes = figure.subplots()
        for y, row in enumerate(heat["rows"]):
            for x, cell in enumerate(row["cells"]):
                axes.barh(
                    y,
                    0.94,
                    left=x - 0.47,
                    height=0.9,
                    color=_COLOURS[row["group"]],
                    linewidth=0,
                    alpha=0.05 + 0.7 * cell["percent"] / 100,
                )
                axes.text(x, y, cell["text"], ha="center", va="center", fontsize=11)
        axes.set_yticks(range(len(heat["rows"])), [row["label"] for row in heat["rows"]])
        names = [SHORT_NAMES.get(name, name.replace("_", " ")) for name in heat["columns"]]
        axes.set_xticks(range(len(names)), names, rotation=40, ha="left")
        axes.xaxis.tick_top()
        axes.set_xlim(-0.55, len(names) - 0.45)
        axes.set_ylim(len(heat["rows"]) - 0.4, -0.6)
        axes.set_xlabel(f"{heat['measure']}, in percent")
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        axes.tick_params(length=0)

    margins = {"left": 218, "right": 60, "top": 84, "bottom": 34}
    return _svg(draw, WIDE, 27 * len(heat["rows"]) + 118, margins, 0.2)


def write_pictures(run_dir: str | Path, summary: dict) -> list[Path]:
    """Write run_dir/pictures/*.svg, each in the page's light colours, for a paper or a slide."""
    measures = [measure for measure in ("rna_type", "closed") if any(row[measure] for row in summary["systems"])]
    drawn = {
        "accuracy": accuracy_bars(summary, measures) if measures else "",
        "similarity": similarity_bars(summary),
        "type_by_system": type_heat(summary),
        "train_identity": against_identity(summary),
        "reliability": reliability(summary),
    }
    folder = Path(run_dir) / "pictures"
    return [replace_text(folder / f"{name}.svg", standalone(svg)) for name, svg in drawn.items() if svg]


def standalone(svg: str) -> str:
    """A picture of the page as a file of its own: the page's light colours in place of their names."""
    style = (resources.files("rnagpt.evaluation.reporting") / "report.css.jinja").read_text(encoding="utf-8")
    colours = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", style[: style.index("@media")]))
    svg = re.sub(r"var\(--([a-z]+)\)", lambda match: colours.get(match[1], "sans-serif"), svg)
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return svg.replace("<svg ", f"<svg {names} ", 1)
