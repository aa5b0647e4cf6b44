"""What a run's own files say of a checkpoint, as the sections of its card: training, evaluation, cost, data.

    facts = read_facts("runs/quickstart/checkpoint")     # from the run's folder around it, or the folder itself
    facts.sections()                                     # arguments of rnagpt.checkpoints.model_card.fill

Nothing is made up: a section without a file to rest on says that it is not recorded.
"""

import gzip
import hashlib
import json
import tempfile
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from dataset_builder.facts_table import facts as facts_table
from dataset_builder.facts_table.facts import load_facts
from rnagpt.checkpoints.forms import assets
from rnagpt.checkpoints.model_card import public_name
from rnagpt.evaluation.asking.run_record import read_record
from rnagpt.evaluation.reporting.model_index import model_index
from rnagpt.evaluation.reporting.prose import state
from rnagpt.evaluation.reporting.report import read_run_facts
from rnagpt.evaluation.reporting.tables import as_markdown, chance, share
from rnagpt_core.errors import UserError

FACTS_TABLE = "the packaged table of RNA facts"


@dataclass(frozen=True)
class RunFacts:
    """stages: the training.json of each, in order. summary: evaluation/summary.json, its `main` this checkpoint.
    run: run.json. seconds: of training, all stages. cost: what the releaser adds: "hardware", "cost_usd", "co2_grams".
    left_out: an evaluation that is there and measured another checkpoint, in words; "" where there is none.
    """

    stages: list[dict]
    summary: dict | None
    run: dict
    seconds: float | None
    cost: dict
    left_out: str

    def sections(self) -> dict:
        """Arguments of `model_card.fill`; those that nothing is known of are left out, and `fill` says so."""
        found = {"training": training_text(self), "cost": cost_text(self), "data_licences": data_licences(self)}
        if self.summary is not None:
            found |= {"state": state(self.summary), "evaluation": evaluation_text(self.summary)}
        return {name: text for name, text in found.items() if text}

    def metadata(self, model_name: str) -> dict:
        """What goes into the card's YAML head: model-index, emissions."""
        head: dict = {}
        if self.summary is not None and (index := model_index(self.summary, model_name)):
            head["model-index"] = index
        if "co2_grams" in self.cost:
            hardware = {"hardware_used": self.cost["hardware"]} if "hardware" in self.cost else {}
            emissions = {"emissions": self.cost["co2_grams"], "training_type": "fine-tuning"}
            head["co2_eq_emissions"] = emissions | hardware
        return head

    @property
    def sources(self) -> set[str]:
        """What the stages were trained on, as it may be published."""
        return {data_name(stage["recipe"]) for stage in self.stages}


def read_facts(checkpoint: str | Path, run_dir: str | Path | None = None, cost: dict | None = None) -> RunFacts:
    """The facts of a checkpoint's run: `run_dir`, or the folder that the checkpoint lies in where that is a run's.

    Raises:
        UserError: `run_dir` is given and is no run, or a file of it is damaged.
    """
    folder = Path(checkpoint)
    if run_dir is not None and not Path(run_dir).is_dir():
        raise UserError(f"{run_dir} is no folder: give the folder of a run, as `rnagpt quickstart` leaves it")
    around = Path(run_dir or folder.absolute().parent)
    files, own = sorted(around.glob("stage*/training.json")), folder / "training.json"
    if own.is_file():
        files = [*(file for file in files if file.parent.name < folder.name), own]
    if run_dir is not None and not files and not (around / "evaluation").is_dir():
        raise UserError(f"{run_dir} is no run: expected stage*/training.json or evaluation/summary.json in it")
    stages = [stage for stage in map(read_json, files) if "recipe" in stage]
    summary = around / "evaluation" / "summary.json"
    run = read_run_facts(around)
    left_out, figures = "", None
    if not summary.is_file():
        figures = recorded_summary(folder / "items.jsonl.gz")
    elif main := measured_as(folder, around, measured := read_json(summary), run):
        figures = {**measured, "main": main}
    else:
        left_out = f"{summary} measured other checkpoints than {folder}: the card tells none of its figures"
    return RunFacts(stages, figures, run, training_seconds(folder, stages), dict(cost or {}), left_out)


def measured_as(folder: Path, around: Path, summary: dict, run: dict) -> str | None:
    """Under which key a run's evaluation has the figures of this very checkpoint; None where it measured others.

    A recipe's evaluation names the checkpoint of each system (evaluation.json). A quick start measures its first
    stage, as "stage1", and what its last one left, as "stage2".
    """
    name, keys = folder.resolve().name, {row["system"] for row in summary.get("systems", [])}
    if record := read_record(around):
        for part in [part for part in record["systems"] if part["kind"] == "rna" and part["name"] in keys]:
            path = assets() / "demo" if part["model"] == "demo" else Path(part["model"]).absolute()
            # its folder may have been moved since, the two last names stay
            if path.parts[-2:] == folder.absolute().parts[-2:]:
                return part["name"]
        return None
    main, stages = summary.get("main"), [file.parent.name for file in sorted(around.glob("stage*/training.json"))]
    if name in stages[:-1]:
        return name if name in keys and name != main else None
    if name in stages and name not in keys and name.replace("stage", "stage ") not in run.get("Seconds", {}):
        return None  # trained after the quick start
    return name if name in keys else main


def read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path} is damaged: expected JSON, as RNA-GPT wrote it; remove it or run again") from None
    return content if isinstance(content, dict) else {}


def recorded_summary(path: Path) -> dict | None:
    """Figures of the answers that ship with the demo (items.jsonl.gz); None where there are none.

    The baselines and references that no model is needed for are computed beside them, where scikit-learn is installed;
    the nearest training RNA by identity where edlib is, too.
    """
    if not path.is_file():
        return None
    from rnagpt.evaluation.asking.items import read_items, to_line
    from rnagpt.evaluation.reporting.summary import summarise

    with tempfile.TemporaryDirectory() as folder:
        items = Path(folder) / "items.jsonl"
        items.write_bytes(gzip.decompress(path.read_bytes()))
        if find_spec("sklearn") is not None:
            from rnagpt.evaluation.asking.baselines import baseline_answers

            questions = [item for item in read_items(items) if item.system == "demo"]
            ids = {item.rna_id for item in questions}
            held_out = [fact for fact in load_facts(split="test") if fact.rna_id in ids]
            train, neighbours = load_facts(split="train"), None
            if find_spec("edlib") is not None:
                from rnagpt.known_rnas.neighbours import nearest_by_identity

                neighbours = nearest_by_identity(*([rna.sequence for rna in rnas] for rnas in (held_out, train)))
            answers = baseline_answers(train, held_out, questions, neighbours=neighbours)
            with open(items, "a", encoding="utf-8") as file:
                file.writelines(map(to_line, answers))
        return summarise(items)


def training_seconds(folder: Path, stages: list[dict]) -> float | None:
    """Of all stages: the packaged demo's from its joined curve, else the sum of what each stage noted."""
    curve = folder / "curve.jsonl"
    if curve.is_file() and len(stages) == 1:
        rows = sorted(map(json.loads, curve.read_text().splitlines()), key=lambda row: row["seconds"])
        return sum({row["stage"]: row["seconds"] for row in rows}.values()) or None
    return sum(stage.get("seconds") or 0.0 for stage in stages) or None


def training_text(facts: RunFacts) -> str:
    """A row per stage: what trained, on what, how much."""
    if not facts.stages:
        return ""
    table = [["stage", "trains", "data", "samples seen", "learning rate", "LoRA rank"]]
    before = facts.stages[0]["recipe"].get("start_from")
    goes_on = bool(before)  # whether the stage trains the adapter of another on
    for number, stage in enumerate(facts.stages, start=1):
        recipe = stage["recipe"]
        adapted = recipe["stage"] == "instruction"
        rank = (recipe.get("lora") or {}).get("r", "8 (PEFT's default)") if adapted else "-"
        if adapted and not recipe.get("lora") and goes_on:
            rank = "that of the stage before"
        samples = recipe["data"].get("samples", recipe["data"].get("visits"))  # the old name of the key
        trains = "projector and LoRA" if adapted else "projector"
        count = f"{samples:,}" if samples else "each RNA once"
        rate = str(recipe["sft"].get("learning_rate", "TRL default"))
        table.append([f"{number}, {recipe['stage']}", trains, data_name(recipe), count, rate, str(rank)])
        goes_on = adapted
    lines = [as_markdown(table)]
    lines.append("A sample is one RNA with its annotation (alignment) or with some questions (instruction).")
    if len(facts.stages) == 1 and before:
        lines.append(f"The stage listed goes on from `{Path(before).name}` of the same run, which is not listed here.")
    if FACTS_TABLE in facts.sources:
        lines.append(f"\n{facts_table_text()}")
    versions = facts.run.get("Machine", {})
    named = ", ".join(
        f"{name} {versions[name]}" for name in ("torch", "transformers", "trl", "peft") if name in versions
    )
    lines += [f"\nWritten with {named}."] if named else []
    return "\n".join(lines)


def data_name(recipe: dict) -> str:
    """The sources of a recipe as they may be published.

    >>> data_name({"data": {"sources": [{"path": "owner/rna-qa", "config": "qa", "split": "train"}]}})
    'owner/rna-qa (qa, train)'
    """
    names = []
    for source in recipe["data"].get("sources") or []:
        part = ", ".join(filter(None, [source.get("config"), source.get("split")]))
        names.append(f"{public_name(source['path'])} ({part})")
    return "; ".join(names) or FACTS_TABLE


def facts_table_text() -> str:
    """Which table it is: sha256, rows, split."""
    table = Path(facts_table.__file__).parent / "data" / "rna_facts.tsv.gz"
    digest, rows = hashlib.sha256(table.read_bytes()).hexdigest(), Counter(fact.split for fact in load_facts())
    return (
        f"The table of RNA facts is `dataset_builder/facts_table/data/rna_facts.tsv.gz` (sha256 `{digest[:16]}`): "
        f"{rows['train']:,} RNAs for training, {rows['validation']:,} for validation, {rows['test']:,} held out; no "
        "held-out RNA has an 80% neighbour among the others."
    )


def data_licences(facts: RunFacts) -> str:
    """A line per source of the training data; what it obliges to."""
    lines = []
    if FACTS_TABLE in facts.sources:
        count = Counter(fact.licence for fact in load_facts(split="train"))
        listed = "; ".join(f"{licence}, {rows:,} RNAs" for licence, rows in count.most_common())
        lines.append(
            f"- RNA facts (training data): {listed}. Sequences and names only; name the sources (miRBase, Rfam, "
            "GtRNAdb and others) where you pass the rows on"
        )
    named = sorted(facts.sources - {FACTS_TABLE})
    return "\n".join([*lines, *(f"- {name} (training data): see its own card" for name in named)])


def cost_text(facts: RunFacts) -> str:
    """Time, hardware, money and carbon, each only where it is known."""
    cost, machine = facts.cost, facts.run.get("Machine", {})
    hardware = cost.get("hardware")
    if not hardware and "processor cores" in machine and "+cpu" in str(machine.get("torch", "+cpu")):
        hardware = f"{machine['processor cores']} processor cores, no GPU"
    sentences = []
    if facts.seconds:
        where = f" on {hardware}" if hardware else ""
        sentences.append(f"Training took {facts.seconds / 60:,.0f} minutes{where}.")
    elif hardware:
        sentences.append(f"Trained on {hardware}.")
    if "cost_usd" in cost:
        sentences.append(f"It cost {cost['cost_usd']:,.2f} USD.")
    carbon = f"{cost['co2_grams']:,.0f} g of CO2 equivalent." if "co2_grams" in cost else "not measured."
    return " ".join([*sentences, f"Carbon: {carbon}"]) if sentences or cost else ""


def evaluation_text(summary: dict) -> str:
    """Every system's figures beside their controls and baselines, with 95% intervals by sequence cluster."""
    main, measures = summary.get("main"), ("rna_type", "closed")
    parts = [
        f"{summary['n_rna']:,} held-out RNAs in {summary['n_clusters']:,} clusters, {summary['n_questions']:,} "
        f"questions; {100 * summary['confidence']:g}% intervals by cluster."
    ]
    if any(row[measure] for row in summary["systems"] for measure in measures):
        table = [["system", "names the RNA's type", "other closed questions"]]
        for row in summary["systems"]:
            label = f"**{row['label']}, this model**" if row["system"] == main else row["label"]
            table.append([f"{label} ({row['about']})", *(share(row[measure]) for measure in measures)])
        table.append(["chance", *(chance(summary, measure) for measure in measures)])
        parts.append(as_markdown(table).rstrip())
    for entry in summary.get("text", []):  # numbers of two modes do not compare
        modes = {row["system"]: row["modes"] for row in entry["systems"]}
        table = [["similarity of free answers (F1)", "with the RNA", "with another RNA"]]
        for mode, metrics in modes.get(main, {}).items():
            for label, values in metrics.items():
                other = modes.get(f"{main}_swapped", {}).get(mode, {}).get(label)
                second = f"{other['f1']['value']:.3f}" if other else "-"
                table.append([f"{label}, {mode}", f"{values['f1']['value']:.3f}", second])
        parts += [as_markdown(table).rstrip()] if main in modes else []
    return "\n\n".join([*parts, "A score that its baseline also reaches says nothing about reading RNA."])
