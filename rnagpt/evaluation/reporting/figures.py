"""Every figure of a run, each drawn once by matplotlib: a file of its own in figures/, and the same on the page.

drawn = draw_figures(summary, learning_curve_rows)          # name -> SVG text
page_text = embedded(drawn["accuracy"], "accuracy")         # with the page's font and colours, light or dark
"""

import io
import re
from collections.abc import Callable, Sequence
from functools import wraps
from importlib import resources

from dataset_builder.facts_table.fact_questions import SHORT_NAMES
from rnagpt.evaluation.asking.systems import GROUPS, System, system

WIDTH = 960  # CSS pixels, which are the SVG's units
COLOURS = {  # the page's light ones, under the names of its CSS variables
    "ink": "#1a2328",
    "muted": "#56636b",
    "line": "#e0e3e1",
    "model": "#0a7871",
    "control": "#c4571b",
    "reference": "#5660b2",
    "baseline": "#98a4ac",
    "other": "#8d6a9f",
    "surface": "#ffffff",
}
# beside figures.mplstyle: what has a colour of the page
_RC = {"text.color": COLOURS["ink"], "legend.facecolor": COLOURS["surface"]}
_RC |= dict.fromkeys(["axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"], COLOURS["muted"])
_RC |= dict.fromkeys(["axes.edgecolor", "grid.color"], COLOURS["line"])
MEASURES = {"rna_type": "RNA type", "closed": "Closed questions"}
TOPICS = {"rna_type": "RNA type", "is_type": "Is it type X?"}
_CHANCE = {"color": COLOURS["ink"], "linewidth": 1, "linestyle": (0, (2, 3))}


def draw_figures(summary: dict, curves: Sequence[dict] = ()) -> dict[str, str]:
    """Name -> SVG text of every figure that there is something to show in. curves: rows as in `training.curves`."""
    of_summary = (accuracy, similarity, type_by_system, train_identity, reliability, confusion)
    drawn = {draw.__name__: draw(summary) for draw in of_summary} | {"learning_curves": learning_curves(curves)}
    return {name: svg for name, svg in drawn.items() if svg}


def topic_label(topic: str) -> str:
    """A topic, or a stage, for people.

    >>> topic_label("is_type"), topic_label("cell_compartment"), topic_label("stage2")
    ('Is it type X?', 'Cell compartment', 'Stage 2')
    """
    words = re.sub(r"(?<=[a-z])(?=\d)", " ", topic.replace("_", " "))
    return TOPICS.get(topic, words[:1].upper() + words[1:])


def type_label(rna_type: str) -> str:
    """An RNA type for people.

    >>> type_label("5S_rRNA"), type_label("autocatalytically_spliced_intron")
    ('5S rRNA', 'group I intron')
    """
    return SHORT_NAMES.get(rna_type, rna_type.replace("_", " "))


def metric_label(name: str) -> str:
    """A measure for people.

    >>> metric_label("aligned:S_Pub"), metric_label("rougeL"), metric_label("label")
    ('S_Pub F1, aligned mode', 'ROUGE-L F1', 'Share of right labels')
    """
    mode, _, label = name.rpartition(":")
    if label == "label":
        return "Share of right labels"
    return f"{label} F1, {mode} mode" if mode else f"{label.replace('rouge', 'ROUGE-')} F1"


def _as_svg(draw: Callable) -> Callable[..., str]:
    """A function that draws a figure -> one that returns its SVG text, "" for None."""

    @wraps(draw)
    def drawn(*args) -> str:
        import matplotlib

        buffer = io.StringIO()
        style = resources.files("rnagpt.evaluation.reporting") / "figures.mplstyle"
        with matplotlib.rc_context(_RC, fname=str(style)):
            figure = draw(*args)
            if figure is not None:
                figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        return buffer.getvalue()

    return drawn


def _panels(count: int, height: float, sharey: bool = False):
    """A figure of this many pixels in height, and its panels side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72, layout="constrained")
    figure.get_layout_engine().set(wspace=0.04)
    return figure, figure.subplots(1, count, squeeze=False, sharey=sharey)[0]


def _legend_of_groups(figure, groups: Sequence[str]) -> None:
    """What the bars' colours stand for."""
    from matplotlib.patches import Patch

    handles = [Patch(color=COLOURS[key], label=GROUPS[key].split(":")[0]) for key in dict.fromkeys(groups)]
    figure.legend(handles=handles, loc="outside lower right", ncols=len(handles), handlelength=1, handleheight=1)


@_as_svg
def accuracy(summary: dict):
    """Bars of every system's accuracy with its interval and a line at chance; one panel a measure."""
    measures = [measure for measure in MEASURES if any(row[measure] for row in summary["systems"])]
    rows = [row for row in summary["systems"] if any(row[measure] for measure in measures)]
    if not rows:  # every question is answered in free text
        return None
    figure, panels = _panels(len(measures), 27 * len(rows) + 96, sharey=True)
    for axes, measure in zip(panels, measures, strict=True):
        chance = summary["chance"][measure]
        _bars(axes, [(system(row["system"]), row[measure]) for row in rows], 100, "%.1f")
        title = f"{MEASURES[measure]}: % right"
        if chance is not None:
            axes.axvline(100 * chance, **_CHANCE, zorder=0.5)
            title += f" (chance: {100 * chance:.3g})"
        axes.set(title=title, xlim=(0, 108), xticks=[0, 25, 50, 75, 100])
    _legend_of_groups(figure, [system(row["system"]).group for row in rows])
    return figure


@_as_svg
def similarity(summary: dict):
    """Bars of the headline similarity of every system, with intervals; "" where no text was scored."""
    mode, _, label = summary.get("headline_metric", "").rpartition(":")
    systems = summary["text"][0]["systems"] if summary.get("text") else []
    found = [(system(row["system"]), row["modes"].get(mode or "aligned", {}).get(label)) for row in systems]
    rows = [(spec, metric["f1"]) for spec, metric in found if metric]
    if not rows:
        return None
    figure, (axes,) = _panels(1, 27 * len(rows) + 96)
    _bars(axes, rows, 1, "%.3f")
    axes.set(title=metric_label(summary["headline_metric"]), xlim=(0, 1.08))
    _legend_of_groups(figure, [spec.group for spec, _ in rows])
    return figure


def _bars(axes, rows: Sequence[tuple[System, dict | None]], scale: float, form: str) -> None:
    """A horizontal bar with whiskers per system, from the top; "not asked" where there is no estimate."""
    known = [(place, spec, found) for place, (spec, found) in enumerate(rows) if found]
    bars = axes.barh(
        [place for place, _, _ in known],
        [scale * found["value"] for _, _, found in known],
        0.62,
        color=[COLOURS[spec.group] for _, spec, _ in known],
        xerr=_whiskers([found for _, _, found in known], scale),
        error_kw={"ecolor": COLOURS["ink"], "elinewidth": 1.4, "capsize": 3},
    )
    axes.bar_label(bars, fmt=form, padding=4)
    for place, (_, found) in enumerate(rows):
        if not found:
            axes.text(0.015 * scale, place, "not asked", va="center", fontsize=11, color=COLOURS["muted"])
    axes.set_yticks(range(len(rows)), [spec.label for spec, _ in rows], color=COLOURS["ink"], fontsize=12)
    for label, (spec, _) in zip(axes.get_yticklabels(), rows, strict=False):
        label.set_fontweight("bold" if spec.group == "model" else "normal")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(False, axis="y")
    axes.spines["bottom"].set_visible(False)


def _whiskers(estimates: Sequence[dict], scale: float = 1) -> list[list[float]]:
    """How far the intervals reach below and above their values; 0 without an interval."""
    below = [scale * max(0, found["value"] - found.get("low", found["value"])) for found in estimates]
    return [below, [scale * max(0, found.get("high", found["value"]) - found["value"]) for found in estimates]]


@_as_svg
def type_by_system(summary: dict):
    """Scores in percent, a row per system and a column per RNA type; "" without several types."""
    entry = next((entry for entry in summary.get("strata", []) if entry["dimension"] == "rna_type"), None)
    if entry is None:
        return None
    specs = [system(key) for key in dict.fromkeys(key for row in entry["bins"] for key in row["systems"])]
    found = [[row["systems"].get(spec.key) for row in entry["bins"]] for spec in specs]
    percents = [[100 * max(cell["value"], 0) if cell else None for cell in row] for row in found]
    rows = [(spec.label, COLOURS[spec.group]) for spec in specs]
    columns = [type_label(row["bin"]) for row in entry["bins"]]
    return _heat(percents, rows, columns, f"{metric_label(entry['measure'])}, in percent")


@_as_svg
def confusion(summary: dict):
    """Of each true type (row) the percentage answered as each type (column), right answers outlined; "" without."""
    if not summary.get("confusion"):
        return None
    labels = [type_label(name) for name in summary["confusion"]["labels"]]
    shares = [[100 * count / max(sum(row), 1) for count in row] for row in summary["confusion"]["counts"]]
    rows = [(label, COLOURS["model"]) for label in labels]
    return _heat(shares, rows, [*labels, "none"], "answered as, in percent", diagonal=True)


def _heat(percents: list[list], rows: list[tuple[str, str]], columns: list[str], title: str, diagonal: bool = False):
    """A table of cells, the deeper a row's colour the higher the percentage (or None); with the diagonal outlined.

    rows: label and colour of each.
    """
    figure, (axes,) = _panels(1, 30 * len(rows) + 130)
    for y, (_, colour) in enumerate(rows):
        for x, percent in enumerate(percents[y]):
            right = diagonal and x == y
            depth = 0.05 + 0.7 * (percent or 0) / 100
            edge = {"edgecolor": COLOURS["ink"], "linewidth": 1.5} if right else {}
            axes.barh(y, 0.94, 0.9, left=x - 0.47, color=(colour, depth), **edge)
            text = "–" if percent is None else "·" if diagonal and not percent else f"{percent:.0f}"
            axes.text(x, y, text, ha="center", va="center", weight="bold" if right else "normal")
    axes.set_yticks(range(len(rows)), [label for label, _ in rows], color=COLOURS["ink"])
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="left", rotation_mode="anchor")
    axes.xaxis.tick_top()
    axes.set(xlim=(-0.55, len(columns) - 0.45), ylim=(len(rows) - 0.4, -0.6), xlabel=title)
    axes.spines[:].set_visible(False)
    axes.grid(False)
    return figure


@_as_svg
def train_identity(summary: dict):
    """Score by identity with the nearest training RNA, for the model, its swapped control and the copies; "" where it
    is not known, or where all RNAs fall into one bin."""
    entries = [entry for entry in summary.get("strata", []) if entry["dimension"] == "train_identity"]
    entries = [entry for entry in entries if len(entry["bins"]) > 1]
    if not entries:
        return None
    lines = {summary["main"]: "-", f"{summary['main']}_swapped": "-"}
    lines |= {"nearest_identity": "-", "nearest_train": "--", "kmer_length": ":", "question_only": "--"}
    figure, panels = _panels(len(entries), 330)
    for axes, entry in zip(panels, entries, strict=True):
        for key in dict.fromkeys(key for row in entry["bins"] for key in row["systems"] if key in lines):
            points = [(x, row["systems"][key]) for x, row in enumerate(entry["bins"]) if key in row["systems"]]
            axes.errorbar(
                [x for x, _ in points],
                [found["value"] for _, found in points],
                _whiskers([found for _, found in points]),
                fmt=f"o{lines[key]}",
                color=COLOURS[system(key).group],
                linewidth=2,
                elinewidth=1.2,
                label=system(key).label,
            )
        axes.set_xticks(range(len(entry["bins"])), [f"{row['bin']}\nn = {row['n']}" for row in entry["bins"]])
        axes.set(ylim=(0, 1.02), title=metric_label(entry["measure"]), xlabel="identity with the nearest training RNA")
    # beside the panels, where no line runs
    named = {name: line for axes in panels for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named.keys(), loc="outside right center", fontsize=10, handlelength=3)
    return figure


@_as_svg
def reliability(summary: dict):
    """Two panels: how often an answer is right by how sure the model is; error among the answers kept."""
    keys = (summary["main"], f"{summary['main']}_swapped")
    found = {key: row for key, row in summary.get("calibration", {}).items() if key in keys}
    if not found:
        return None
    figure, (left, right) = _panels(2, 340)
    left.plot([0, 1], [0, 1], **_CHANCE, label="sure as right")
    for key, row in found.items():
        spec, points, curve = system(key), row["points"], row["risk_coverage"]["points"]
        line = {"color": COLOURS[spec.group], "linewidth": 2}
        sure, share = ([point[name] for point in points] for name in ("confidence", "accuracy"))
        left.plot(sure, share, **line, label=f"{spec.label}: ECE {row['ece']:.2f}")
        most = max(point["n"] for point in points)
        left.scatter(sure, share, [12 + 60 * point["n"] / most for point in points], line["color"], zorder=3)
        coverage, risk = ([point[name] for point in curve] for name in ("coverage", "risk"))
        right.plot(coverage, risk, **line, label=f"{spec.label}: area {row['risk_coverage']['aurc']:.2f}")
    left.set(title="Reliability", xlabel="how sure it is of its answer", ylabel="share right")
    right.set(title="Risk and coverage", xlabel="share of questions answered, the surest first")
    right.set_ylabel("share wrong among them")
    for axes in (left, right):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.legend(loc="best", fontsize=10)
    return figure


# column, colour, label; where the last two part, the model reads the RNA
_VALIDATION_LOSSES = [
    ("eval_loss", "control", "validation"),
    ("eval_true_loss", "reference", "validation, true RNA"),
    ("eval_swapped_loss", "control", "validation, another RNA"),
]


@_as_svg
def learning_curves(rows: Sequence[dict]):
    """One panel of loss per stage; x is time where every row has it, else steps.

    rows: as in `training.curves`. "" without rows.
    """
    names = {"loss", *(name for name, _, _ in _VALIDATION_LOSSES)}
    stages: dict[str, list[dict]] = {}
    for row in rows:
        if names & row.keys():
            stages.setdefault(row["stage"], []).append(row)
    if not stages:
        return None
    timed = all("seconds" in row for row in rows)
    slow = timed and max(row["seconds"] for row in rows) > 600
    unit = "steps" if not timed else "minutes" if slow else "seconds"

    def series(own: Sequence[dict], name: str) -> tuple[list[float], list[float]]:
        scale = 60 if slow else 1
        points = sorted((row["seconds"] / scale if timed else row["step"], row[name]) for row in own if name in row)
        return [x for x, _ in points], [y for _, y in points]

    figure, panels = _panels(len(stages), 300)
    from matplotlib.ticker import MaxNLocator

    for axes, (stage, own) in zip(panels, stages.items(), strict=True):
        x, y = series(own, "loss")
        trend = y
        if len(x) > 25:  # of many points the trend over a twelfth of the run stands out
            reach = max(1, len(y) // 24)
            parts = [y[max(0, i - reach) : i + reach + 1] for i in range(len(y))]
            trend = [sum(part) / len(part) for part in parts]
            axes.plot(x, y, color=COLOURS["model"], linewidth=1, alpha=0.35)
        if x:
            axes.plot(x, trend, color=COLOURS["model"], linewidth=2, label="training")
        for name, colour, label in _VALIDATION_LOSSES:
            if any(name in row for row in own):
                axes.plot(*series(own, name), color=COLOURS[colour], linewidth=1.6, marker="o", label=label)
        axes.set(title=f"{topic_label(stage)}: loss", xlabel=unit)
        axes.legend(loc="upper right")
        axes.margins(x=0.02)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    return figure


def embedded(svg: str, name: str) -> str:
    """A figure as part of the page: its colours and font are the page's, its ids begin with its name."""
    svg = svg[svg.index("<svg") :]
    # matplotlib's own style sheet would reach the whole page
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', svg)
    svg = re.sub(r"<svg [^>]*>", f'<svg {box and box[0]} aria-hidden="true" focusable="false">', svg, count=1)
    for variable, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--font)", svg).replace("xlink:href", "href")
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    return svg.replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-").strip()
