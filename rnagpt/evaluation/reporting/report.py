"""The figures of a run folder, computed again from its stored answers, and the one self-contained page about them.

    summary = recompute("run")          # evaluation/summary.json, tables/, model_index.yaml
    write_report("run", summary)        # report.html, figures/

The page needs no script and no network: its style and its figures stand in it. The layout is report.html.jinja.
"""

import json
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import yaml

from rnagpt.evaluation.asking.run_record import read_record, unfinished
from rnagpt.evaluation.asking.systems import CONTROL_NAMES, GROUPS, system
from rnagpt.evaluation.reporting import figures, prose
from rnagpt.evaluation.reporting.model_index import model_index
from rnagpt.evaluation.reporting.summary import summarise
from rnagpt.evaluation.reporting.tables import all_tables, write_tables
from rnagpt.training.curves import read_learning_curves
from rnagpt_core.errors import UserError
from rnagpt_core.files import replace_text

OUTCOMES = {"right": "Right", "wrong": "Wrong", "swapped": "The same question, another RNA swapped in"}
MEASURE_NAMES = {"label": "right labels", "likelihood": "log-likelihood"}


def recompute(run_dir: str | Path) -> dict:
    """Every figure of run_dir/evaluation/*.jsonl, also written as summary.json, tables/ and model_index.yaml."""
    run_dir = Path(run_dir)
    summary = summarise(run_dir / "evaluation" / "items.jsonl")
    if missing := unfinished(run_dir, {row["system"]: row["n_items"] for row in summary["systems"]}):
        summary["unfinished"] = missing
    text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    replace_text(run_dir / "evaluation" / "summary.json", text)
    write_tables(run_dir, summary)
    if not missing:  # a card is no place for figures that will change
        split = read_record(run_dir).get("data", {}).get("split", "test")
        if index := model_index(summary, run_dir.resolve().name, split):
            text = yaml.safe_dump({"model-index": index}, sort_keys=False, allow_unicode=True)
            replace_text(run_dir / "model_index.yaml", text)
    return summary


def write_report(run_dir: str | Path, summary: dict) -> Path:
    """Write run_dir/figures/*.svg and run_dir/report.html, and return the page's path."""
    run_dir = Path(run_dir)
    curves = read_learning_curves(run_dir)
    drawn = figures.draw_figures(summary, curves)
    for name, svg in drawn.items():
        replace_text(run_dir / "figures" / f"{name}.svg", svg)
    return replace_text(run_dir / "report.html", render_report(summary, drawn, curves, read_run_facts(run_dir)))


def read_run_facts(run_dir: Path) -> dict:
    """What run_dir/run.json says of the run (versions, hardware, seeds); an empty dict where there is none."""
    path = run_dir / "run.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(facts, dict):
        raise UserError(f"{path} must hold one JSON object of the run's facts, not a {type(facts).__name__}")
    return facts


def render_report(summary: dict, drawn: dict[str, str], curves: Sequence[dict] = (), run_facts: dict | None = None):
    """The report as HTML text; whatever came from data or from a model is escaped.

    drawn: of `draw_figures`. curves: rows as in `training.curves`. run_facts: {name: value}, {heading: {name: value}}.
    """
    import jinja2
    from markupsafe import Markup

    template = (resources.files("rnagpt.evaluation.reporting") / "report.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True)
    facts = {name: values for name, values in (run_facts or {}).items() if isinstance(values, dict) and values}
    if loose := {name: value for name, value in (run_facts or {}).items() if not isinstance(value, dict)}:
        facts = {"Run": loose} | facts
    found = [row[measure] for row in summary["systems"] for measure in ("rna_type", "closed") if row[measure]]
    methods = [method for method, _ in Counter(sorted(estimate["method"] for estimate in found)).most_common()]
    level = f"{100 * summary['confidence']:g}%"
    return environment.from_string(template).render(
        summary=summary,
        headline=prose.headline(summary),
        level=level,
        colours=figures.COLOURS,
        figures={name: Markup(figures.embedded(svg, name)) for name, svg in drawn.items()},
        alt=prose.descriptions(summary, curves),
        mistakes=prose.mistakes(summary),
        learned=prose.learned(curves),
        methods=f"{'; '.join(methods)}; {level} each",
        text_tables=_text_tables(summary),
        facts=facts,
        groups=GROUPS,
        controls=CONTROL_NAMES,
        outcomes=OUTCOMES,
        measure_names=MEASURE_NAMES,
        system=system,
        labels=figures,
        amount=_amount,
        plain=_plain,
    )


def _text_tables(summary: dict) -> list[tuple[str, list]]:
    """The paper's tables beside its own values where the annotation set is one of its two, then every other mode."""
    kinds = ("paper", "aligned", "sentence", "judge") if summary.get("text") else ()
    tables = all_tables(summary).items()
    return [(title.replace("`", ""), table) for name, (title, table) in tables if name.startswith(kinds)]


def _amount(value: float, measure: str, sign: str = "") -> str:
    """A value of a measure, or a difference with its sign: labels in percent, everything else as it is.

    >>> _amount(0.5, "label"), _amount(-0.5, "label", "+"), _amount(-1.25, "likelihood")
    ('50.0%', '−50.0', '−1.250')
    """
    number = f"{100 * value:{sign}.1f}" + ("" if sign else "%") if measure == "label" else f"{value:{sign}.3f}"
    return number.replace("-", "−")


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
