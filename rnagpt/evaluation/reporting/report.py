"""The one self-contained report.html of a run: what the model can do, what it cannot, and how that was measured.

    summary = summarise("run/evaluation/items.jsonl")
    print_table(summary)
    write_report("run", summary, read_learning_curves("run"), run_facts)

The page needs no script and no network: its style and its figures stand in it. The layout is report.html.jinja.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from itertools import groupby
from pathlib import Path

from dataset_builder.facts_table.fact_questions import SHORT_NAMES
from rnagpt.evaluation.asking.systems import CONTROL_NAMES, GROUPS, system
from rnagpt.evaluation.reporting import charts, score_charts
from rnagpt.evaluation.reporting.headline import headline, topic_label
from rnagpt.evaluation.reporting.summary import print_table, share_of_row, summarise
from rnagpt.evaluation.reporting.tables import all_tables
from rnagpt_core.files import replace_text

__all__ = ["print_table", "render_report", "summarise", "write_report"]

LONGEST_ANSWER = 420  # characters shown of an example's answer
_EXAMPLES = {"right": "Right", "wrong": "Wrong", "swapped": "The same question, another RNA swapped in"}


def write_report(
    run_dir: str | Path, summary: dict, learning_curves: Sequence[dict] = (), run_facts: dict | None = None
) -> Path:
    """Write run_dir/report.html, whole or not at all, and return its path.

    summary: of `summarise`. learning_curves: rows as in `curves`. run_facts: versions, hardware, seeds, wall time,
    memory, settings, as {name: value} or {heading: {name: value}}, shown in their order.
    """
    return replace_text(Path(run_dir) / "report.html", render_report(summary, learning_curves, run_facts))


def render_report(summary: dict, learning_curves: Sequence[dict] = (), run_facts: dict | None = None) -> str:
    """The report as HTML text; whatever came from data or from a model is escaped."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, loader=jinja2.FunctionLoader(_own_file)
    )
    main = summary["main"]
    return environment.get_template("report.html.jinja").render(
        summary=summary,
        headline=headline(summary),
        level=f"{100 * summary['confidence']:g}%",
        main_label=system(main).label if main else "",
        bars=_bars(summary),
        groups=_groups(summary),
        topics=_topics(summary),
        comparisons=_comparisons(summary),
        heat=_heat(summary),
        curves=_curves(learning_curves, summary),
        examples=_examples(summary),
        methods=_methods(summary),
        facts=_facts(run_facts or {}),
        grounding=_grounding(summary),
        similarity=_drawn(
            "similarity",
            "Bar chart of similarities, also given in the tables below.",
            score_charts.similarity_bars,
            summary,
        ),
        headline_metric=score_charts.metric_label(summary.get("headline_metric", "")),
        encoders=_encoders(summary),
        text_tables=_text_tables(summary),
        by_type=_by_type(summary),
        identity=_drawn(
            "identity",
            "Scores by identity with the nearest training RNA, also in tables/.",
            score_charts.against_identity,
            summary,
        ),
        reliability=_drawn("reliability", _reliability_lead(summary), score_charts.reliability, summary),
        reliability_lead=_reliability_lead(summary),
    )


def _drawn(name: str, alt: str, draw: Callable[..., str], summary: dict) -> dict | None:
    wide = draw(summary)
    return _figure(name, alt, [wide], [draw(summary, narrow=True)]) if wide else None


def _grounding(summary: dict) -> list[dict]:
    """Rows as text: shares in percent, everything else as it is."""

    def text(value: float, measure: str, sign: str = "") -> str:
        number = f"{100 * value:{sign}.1f}" + ("" if sign else "%") if measure == "label" else f"{value:{sign}.3f}"
        return number.replace("-", "−")

    groups: dict[str, list[dict]] = {}
    for row in summary.get("grounding", []):
        measure = row["measure"]
        labels = {"label": "right labels", "likelihood": "log-likelihood"}
        groups.setdefault(system(row["system"]).label, []).append(
            row
            | {
                "control_label": CONTROL_NAMES[row["control"]][0].removeprefix(", "),
                "measure_label": labels.get(measure) or score_charts.metric_label(measure),
                "true_text": text(row["true"], measure),
                "other_text": text(row["other"], measure),
                "gap_text": text(row["value"], measure, "+"),
                "interval_text": f"{text(row['low'], measure, '+')} to {text(row['high'], measure, '+')}",
            }
        )
    return [{"label": label, "rows": rows} for label, rows in groups.items()]


def _text_tables(summary: dict) -> list[dict]:
    """The paper's tables beside its own values where the annotation set is one of its two, then every other mode."""
    return (
        [
            {"title": title.replace("`", ""), "rows": [list(map(_heading, table[0])), *table[1:]]}
            for name, (title, table) in all_tables(summary).items()
            if name.startswith(("paper", "aligned", "sentence", "judge"))
        ]
        if summary.get("text")
        else []
    )


def _heading(name: str) -> str:
    """
    >>> _heading("rougeL"), _heading("system"), _heading("S_BERT")
    ('ROUGE-L', 'System', 'S_BERT')
    """
    return "System" if name == "system" else re.sub("^rouge", "ROUGE-", name)


def _encoders(summary: dict) -> str:
    described = []
    for spec in summary.get("encoders", []):
        parts = [f"{spec['label']}: {spec['model'].rstrip('/').split('/')[-1]}"]
        parts += [f"layer {spec['layer']}"] if "layer" in spec else []
        parts += [f"revision {spec['revision'][:7]}"] if spec.get("revision") else []
        described.append(", ".join([*parts, f"{spec['max_length']:,} tokens"] if spec.get("max_length") else parts))
    return "; ".join(described) or "ROUGE, without an encoder"


def _by_type(summary: dict) -> dict | None:
    heat = score_charts.type_by_system(summary)
    return heat and heat | {"columns": [type_label(name) for name in heat["columns"]]}


def _reliability_lead(summary: dict) -> str:
    row = summary.get("calibration", {}).get(summary["main"])
    if row is None:
        return ""
    kept = row["abstention"]
    said = (
        f"It can answer {100 * kept['coverage']:.0f}% of the questions with at most "
        f"{100 * row['highest_risk']:.0f}% of those wrong"
        if kept
        else f"There is no threshold at which at most {100 * row['highest_risk']:.0f}% of its answers are wrong"
    )
    return (
        f"Its most likely option is right in {100 * row['accuracy']:.0f}% of {row['n']} questions; calibration "
        f"error {row['ece']:.2f}, Brier score {row['brier']:.2f}. {said}."
    )


def _own_file(name: str) -> str:
    return (resources.files("rnagpt.evaluation.reporting") / name).read_text(encoding="utf-8")


def type_label(rna_type: str) -> str:
    """An RNA type for people.

    >>> type_label("5S_rRNA"), type_label("autocatalytically_spliced_intron")
    ('5S rRNA', 'group I intron')
    """
    return SHORT_NAMES.get(rna_type, rna_type.replace("_", " "))


def _figure(name: str, alt: str, wide: Sequence[str], narrow: Sequence[str]) -> dict:
    from markupsafe import Markup

    return {"alt": alt} | {
        width: [Markup(charts.with_own_ids(svg, f"{name}-{width}-{index}")) for index, svg in enumerate(figures)]
        for width, figures in (("wide", wide), ("narrow", narrow))
    }


def _bars(summary: dict) -> dict | None:
    measures = [measure for measure in ("rna_type", "closed") if any(row[measure] for row in summary["systems"])]
    if not measures:  # every question is answered in free text
        return None
    alt = "Bar chart of accuracies, also given in the next table. " + "; ".join(
        f"{row['label']}: {100 * row['rna_type']['value']:.0f}% of RNA types"
        for row in summary["systems"]
        if row["rna_type"]
    )
    return _figure(
        "bars",
        alt,
        [charts.accuracy_bars(summary, measures)],
        [charts.accuracy_bars(summary, [measure], narrow=True) for measure in measures],
    )


def _groups(summary: dict) -> list[dict]:
    return [
        {"key": key, "label": GROUPS[key], "rows": list(rows)}
        for key, rows in groupby(summary["systems"], key=lambda row: row["group"])
    ]


def _topics(summary: dict) -> list[dict]:
    def asked(topic: str) -> int:
        return max((row["topics"][topic]["n_items"] for row in summary["systems"] if row["topics"][topic]), default=0)

    return [
        {"key": topic, "label": topic_label(topic), "chance": summary["chance"]["topics"][topic], "n": asked(topic)}
        for topic in summary["topics"]
    ]


def _comparisons(summary: dict) -> list[dict]:
    rows: dict[str, dict] = {}
    for comparison in summary.get("comparisons", []):
        row = rows.setdefault(
            comparison["other"], {"label": system(comparison["other"]).label, "rna_type": None, "closed": None}
        )
        row[comparison["measure"]] = comparison
    return list(rows.values())


def _heat(summary: dict) -> dict | None:
    """The confusion matrix as rows of cells: the percentage, its shade, and whether it is the right answer."""
    confusion = summary.get("confusion")
    if not confusion:
        return None
    labels, rows = confusion["labels"], []
    for index, (label, counts) in enumerate(zip(labels, confusion["counts"], strict=True)):
        cells = []
        for column, percent in enumerate(share_of_row(counts)):
            css = ["hit"] if column == index else []
            css += ["deep"] if percent >= 78 else ["nothing"] if percent == 0 else []
            text = f"{percent:.0f}" if percent else "·"
            cells.append({"percent": round(percent), "css": " ".join(css), "text": text})
        rows.append({"label": type_label(label), "cells": cells})
    hits = [row["cells"][index]["percent"] for index, row in enumerate(rows)]
    best, worst = max(range(len(hits)), key=hits.__getitem__), min(range(len(hits)), key=hits.__getitem__)
    caption = (
        f"Best at {rows[best]['label']} ({hits[best]}% right), worst at {rows[worst]['label']} "
        f"({hits[worst]}%). Each row holds {_from_to(map(sum, confusion['counts']))} RNAs; "
        "“none” means that none of these types was found in the answer."
    )
    return {"columns": [*map(type_label, labels), "none"], "rows": rows, "caption": caption}


def _from_to(numbers: Iterable[int]) -> str:
    """
    >>> _from_to([26, 26]), _from_to([26, 31])
    ('26', '26 to 31')
    """
    numbers = sorted(numbers)
    return str(numbers[0]) if numbers[0] == numbers[-1] else f"{numbers[0]} to {numbers[-1]}"


def _curves(rows: Sequence[dict], summary: dict) -> dict | None:
    chance = summary["chance"]["rna_type"]
    wide = charts.learning_curves(rows, chance)
    if not wide:
        return None
    sentences = []
    for stage in dict.fromkeys(row["stage"] for row in rows):
        logged = [row for row in rows if row["stage"] == stage and "loss" in row]
        if not logged:
            continue
        last = max(logged, key=lambda row: row["step"])
        time = f" and {last['seconds']:,.0f} seconds" if "seconds" in last else ""
        sentences.append(
            f"{topic_label(stage)}: loss from {logged[0]['loss']:.2f} to {last['loss']:.2f} in "
            f"{last['step']:,.0f} steps{time}."
        )
    lead = " ".join(sentences)
    return {"lead": lead} | _figure(
        "curves", f"Learning curves. {lead}", [wide], [charts.learning_curves(rows, chance, narrow=True)]
    )


def _examples(summary: dict) -> list[dict]:
    def clip(text: str | None) -> str:
        text = (text or "").strip()
        return "(nothing)" if not text else text if len(text) <= LONGEST_ANSWER else text[:LONGEST_ANSWER] + " …"

    rows = [
        example
        | {
            "answer": clip(example["answer"]),
            "swapped_answer": clip(example.get("swapped_answer")),
            "type_label": type_label(example["rna_type"]),
            "swapped_type_label": type_label(example.get("swapped_rna_type", "")),
        }
        for example in summary.get("examples", [])
    ]
    return [
        {"label": _EXAMPLES[outcome], "rows": list(group)}
        for outcome, group in groupby(rows, key=lambda example: example["outcome"])
    ]


def _methods(summary: dict) -> str:
    """The interval methods in use, the commonest first."""
    used = [row[measure]["method"] for row in summary["systems"] for measure in ("rna_type", "closed") if row[measure]]
    methods = sorted(set(used), key=lambda method: -used.count(method))
    return f"{'; '.join(methods)}; {100 * summary['confidence']:g}% each"


def _facts(run_facts: dict) -> list[dict]:
    """Loose values under "Run" first, then one part for each nested dict."""
    loose = [(name, _plain(value)) for name, value in run_facts.items() if not isinstance(value, dict)]
    parts = [{"label": "Run", "rows": loose}] if loose else []
    return parts + [
        {"label": str(heading), "rows": [(name, _plain(value)) for name, value in values.items()]}
        for heading, values in run_facts.items()
        if isinstance(values, dict) and values
    ]


def _plain(value: object) -> str:
    """A setting as people read it.

    >>> _plain(1200.0), _plain(0.00123), _plain([1, 2]), _plain(True)
    ('1,200', '0.00123', '1, 2', 'yes')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,.4g}" if isinstance(value, float) and abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(inner)}" for name, inner in value.items())
    return str(value)
