"""The report's figures as SVG text that follows the page: its font, its colours, light or dark.

matplotlib draws with stand-in colours; in the SVG each becomes a CSS variable of the page. Every figure comes in
two widths, for a desk and for a phone, so its letters keep their size on both.
"""

import io
import re
from collections.abc import Sequence

from rnagpt.evaluation.asking.systems import GROUPS
from rnagpt.evaluation.reporting.headline import topic_label

WIDE, NARROW = 960, 350  # CSS pixels, which are the SVG's units
_COLOURS = {
    "ink": "#010101",
    "muted": "#020202",
    "line": "#030303",
    "model": "#040404",
    "control": "#050505",
    "reference": "#060606",
    "floor": "#070707",
    "other": "#080808",
    "surface": "#090909",
}
_RC = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 12,
    "text.color": _COLOURS["ink"],
    "axes.edgecolor": _COLOURS["line"],
    "axes.labelcolor": _COLOURS["muted"],
    "xtick.color": _COLOURS["line"],
    "ytick.color": _COLOURS["line"],
    "xtick.labelcolor": _COLOURS["muted"],
    "ytick.labelcolor": _COLOURS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "lines.solid_capstyle": "round",
    "legend.facecolor": _COLOURS["surface"],
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "legend.fontsize": 11,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
}
_MEASURES = {"rna_type": "RNA type", "closed": "Closed questions"}


def accuracy_bars(summary: dict, measures: Sequence[str], narrow: bool = False) -> str:
    """Bars of every system's accuracy with its interval, grouped, with a line at chance; one panel a measure."""
    row_height, group_gap = (37, 12) if narrow else (25, 27)
    rows = [row for row in summary["systems"] if any(row[measure] for measure in measures)]
    places, headings, top = [], [], 0.0
    for index, row in enumerate(rows):
        if index == 0 or row["group"] != rows[index - 1]["group"]:
            top += (group_gap if index else 0) + (18 if narrow else 0)
            headings.append((top - (16 if narrow else 8), row["group"]))
        top += row_height
        places.append(top - row_height / 2)
    width = NARROW if narrow else WIDE
    margins = {"left": 2 if narrow else 218, "right": 52, "top": 34 if narrow else 48, "bottom": 26}

    def draw(figure) -> None:
        panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
        for column, (axes, measure) in enumerate(zip(panels, measures, strict=True)):
            _bar_panel(axes, rows, places, measure, summary["chance"][measure], narrow)
            axes.set_ylim(top + 4, -14)
            if not narrow and column == 0:
                for place, row in zip(places, rows, strict=True):
                    axes.text(
                        -0.03,
                        place,
                        row["label"],
                        ha="right",
                        va="center",
                        fontsize=12.5,
                        transform=axes.get_yaxis_transform(),
                        weight="bold" if row["group"] == "model" else None,
                    )
            for place, group in headings if column == 0 else []:
                short = GROUPS[group].split(":")[0]
                axes.text(
                    0 if narrow else -0.03,
                    place,
                    short,
                    ha="left" if narrow else "right",
                    va="center",
                    fontsize=11,
                    color=_COLOURS["muted"],
                    style="italic",
                    transform=axes.get_yaxis_transform(),
                )

    return _svg(draw, width, top + 18 + margins["top"] + margins["bottom"], margins, spacing=0.2)


def _bar_panel(
    axes, rows: Sequence[dict], places: Sequence[float], measure: str, chance: float | None, narrow: bool
) -> None:
    """One panel of horizontal bars; x is the accuracy in percent, y a place in pixels."""
    offset, thickness = (7, 13) if narrow else (0, 15)
    for row, place in zip(rows, places, strict=True):
        estimate = row[measure]
        if narrow:
            axes.text(
                0,
                place - 9.5,
                row["label"],
                ha="left",
                va="center",
                fontsize=12,
                weight="bold" if row["group"] == "model" else None,
            )
        if estimate is None:
            axes.text(1.5, place + offset, "not asked", va="center", fontsize=11, color=_COLOURS["muted"])
            continue
        value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
        axes.barh(place + offset, value, height=thickness, color=_COLOURS[row["group"]], linewidth=0)
        axes.plot([low, high], [place + offset] * 2, color=_COLOURS["ink"], linewidth=1.4)
        for end in (low, high):
            axes.plot([end, end], [place + offset - 3.5, place + offset + 3.5], color=_COLOURS["ink"], linewidth=1.4)
        axes.text(
            max(value, high) + 2,
            place + offset,
            f"{value:.1f}",
            va="center",
            fontsize=12,
            weight="bold" if row["group"] == "model" else None,
        )
    if chance is not None:
        axes.axvline(100 * chance, color=_COLOURS["ink"], linewidth=1, linestyle=(0, (2, 3)), zorder=0.5)
        axes.text(
            100 * chance,
            1.0,
            f"chance {100 * chance:.3g}",
            ha="left" if chance < 0.3 else "center",
            va="bottom",
            fontsize=10.5,
            color=_COLOURS["muted"],
            transform=axes.get_xaxis_transform(),
        )
    axes.set_title(f"{_MEASURES[measure]}: % right", pad=20)
    axes.set_xlim(0, 100)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.xaxis.grid(True, color=_COLOURS["line"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_yticks([])
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0)


# column, colour, label; where the last two part, the model reads the RNA
_VALIDATION_LOSSES = [
    ("eval_loss", "control", "validation"),
    ("eval_true_loss", "reference", "validation, true RNA"),
    ("eval_swapped_loss", "control", "validation, another RNA"),
]


def learning_curves(rows: Sequence[dict], chance: float | None = None, narrow: bool = False) -> str:
    """One panel of loss per stage and one of validation accuracy; x is seconds where every row has them, else steps.

    rows: see `curves`. chance: the share drawn as a line in the accuracy panel, where RNA types are what it shows.
    """
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    accuracies = sorted({name for row in rows for name in row if name.startswith("eval_") and "accuracy" in name})
    panels = [
        ("loss", stage)
        for stage in stages
        if any(
            "loss" in row or any(name in row for name, _, _ in _VALIDATION_LOSSES)
            for row in rows
            if row["stage"] == stage
        )
    ]
    panels += [("accuracy", "")] if accuracies else []
    if not panels:
        return ""
    timed = all("seconds" in row for row in rows)
    longest = max((row["seconds"] for row in rows), default=0) if timed else 0
    unit, divisor = ("minutes", 60) if longest > 600 else ("seconds", 1)

    def draw(figure) -> None:
        from matplotlib.ticker import MaxNLocator

        grid = (
            figure.subplots(len(panels), 1, squeeze=False)[:, 0]
            if narrow
            else figure.subplots(1, len(panels), squeeze=False)[0]
        )
        for axes, (kind, stage) in zip(grid, panels, strict=True):
            if kind == "loss":
                _loss_panel(axes, [row for row in rows if row["stage"] == stage], stage, timed, divisor)
            else:
                _accuracy_panel(axes, rows, accuracies, timed, divisor, chance)
            axes.set_xlabel(unit if timed else "steps")
            axes.grid(True, color=_COLOURS["line"], linewidth=0.8)
            axes.set_axisbelow(True)
            axes.spines["left"].set_visible(False)
            axes.tick_params(length=0)
            axes.margins(x=0.02)
            axes.xaxis.set_major_locator(MaxNLocator(5))

    margins = {"left": 44, "right": 8, "top": 34, "bottom": 44}
    if narrow:
        return _svg(draw, NARROW, 230 * len(panels), margins, spacing=0.55)
    return _svg(draw, WIDE, 290, margins, spacing=0.22)


def _series(rows: Sequence[dict], name: str, timed: bool, divisor: float) -> tuple[list[float], list[float]]:
    points = sorted((row["seconds"] / divisor if timed else row["step"], row[name]) for row in rows if name in row)
    return [x for x, _ in points], [y for _, y in points]


def _loss_panel(axes, rows: Sequence[dict], stage: str, timed: bool, divisor: float) -> None:
    x, y = _series(rows, "loss", timed, divisor)
    if x:
        many = len(x) > 25
        axes.plot(
            x,
            y,
            color=_COLOURS["model"],
            linewidth=1 if many else 2,
            alpha=0.35 if many else 1,
            label=None if many else "training",
        )
        if many:  # the trend over a twelfth of the run; each point is a mean of what is within reach
            reach = max(1, len(y) // 24)
            smooth = [sum(part) / len(part) for part in (y[max(0, i - reach) : i + reach + 1] for i in range(len(y)))]
            axes.plot(x, smooth, color=_COLOURS["model"], linewidth=2.2, label="training")
    for name, colour, label in _VALIDATION_LOSSES:
        x, y = _series(rows, name, timed, divisor)
        if x:
            axes.plot(x, y, color=_COLOURS[colour], linewidth=1.6, marker="o", markersize=4, label=label)
    axes.set_title(f"{topic_label(stage)}: loss", pad=10)
    axes.legend(loc="upper right")


def _accuracy_panel(
    axes, rows: Sequence[dict], names: Sequence[str], timed: bool, divisor: float, chance: float | None
) -> None:
    """Validation accuracy of every stage that measured it; one line a measure and stage."""
    colours = ["model", "reference", "control", "floor"]
    stages = list(dict.fromkeys(row["stage"] for row in rows if any(name in row for name in names)))
    lines = [
        (stage, name)
        for stage in stages
        for name in names
        if any(name in row for row in rows if row["stage"] == stage)
    ]
    for index, (stage, name) in enumerate(lines):
        x, y = _series([row for row in rows if row["stage"] == stage], name, timed, divisor)
        words = name.removeprefix("eval_").removesuffix("accuracy").strip("_") or "accuracy"
        label = topic_label(words) + (f", {topic_label(stage).lower()}" if len(stages) > 1 else "")
        axes.plot(
            x,
            [100 * share for share in y],
            color=_COLOURS[colours[index % len(colours)]],
            linewidth=2,
            marker="o",
            markersize=4,
            label=label,
        )
    if chance is not None:
        axes.axhline(100 * chance, color=_COLOURS["ink"], linewidth=1, linestyle=(0, (2, 3)), label="chance, RNA type")
    axes.set_ylim(0, 100)
    axes.set_title("Validation: % right", pad=10)
    axes.legend(loc="best")


def _svg(draw, width: float, height: float, margins: dict[str, float], spacing: float) -> str:
    """Draw on a new figure of this many pixels and return an <svg> element with the page's colours and font."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_RC | {"svg.hashsalt": "rnagpt"}):
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        draw(figure)
        figure.subplots_adjust(
            left=margins["left"] / width,
            right=1 - margins["right"] / width,
            top=1 - margins["top"] / height,
            bottom=margins["bottom"] / height,
            wspace=spacing,
            hspace=spacing,
        )
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # matplotlib's own style sheet would reach the whole page
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r"<svg [^>]*>", f'<svg viewBox="0 0 {width:g} {height:g}" aria-hidden="true" focusable="false">', svg, count=1
    )
    for name, colour in _COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--font)", svg)
    return svg.replace("xlink:href", "href").strip()


def with_own_ids(svg: str, prefix: str) -> str:
    """The SVG with every id, and every reference to one, starting with the prefix: many figures share one page."""
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    return svg.replace('href="#', f'href="#{prefix}-').replace("url(#", f"url(#{prefix}-")
