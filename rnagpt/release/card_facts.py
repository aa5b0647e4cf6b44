"""What a run's own files say of a checkpoint, as the sections of its card: training, evaluation, cost, data.

    facts = read_facts("runs/quickstart/checkpoint")     # from the run's folder around it, or the folder itself
    facts.sections()                                     # arguments of rnagpt.checkpoints.model_card.fill

Nothing is made up: a section without a file to rest on says that it is not recorded.
"""

import gzip
import json
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from rnagpt.checkpoints.forms import assets
from rnagpt_core.errors import UserError

# what the evaluation asks, in words
TOPICS = {
    "rna_type": "what type of RNA it is",
    "is_type": "is it of a given type, yes or no",
    "length_class": "how long it is, in three classes",
    "organism_group": "which group of organisms it is from",
    "amino_acid": "which amino acid a tRNA carries",
}
FLOORS = {
    "majority": "the commonest answer",
    "length_only": "the RNA's length alone",
    "question_only": "the most similar training question's answer",
}
FACTS_TABLE = "the packaged table of RNA facts"


@dataclass(frozen=True)
class RunFacts:
    """stages: the training.json of each, in order. summary: evaluation/summary.json, its `main` this checkpoint.
    run: run.json. seconds: of training, all stages. cost: what the releaser adds: "hardware", "cost_usd", "co2_grams".
    left_out: an evaluation that is there and measured another checkpoint, in words; "" where there is none.
    """

    stages: list[dict] = field(default_factory=list)
    summary: dict | None = None
    run: dict = field(default_factory=dict)
    seconds: float | None = None
    cost: dict = field(default_factory=dict)
    left_out: str = ""

    def sections(self) -> dict:
        """Arguments of `model_card.fill`; those that nothing is known of are left out, and `fill` says so."""
        found = {"training": training_text(self), "cost": cost_text(self), "data_licences": data_licences(self)}
        if self.summary is not None:
            found |= {"state": state_text(self.summary), "evaluation": evaluation_text(self.summary)}
        return {name: text for name, text in found.items() if text}

    def metadata(self, model_name: str) -> dict:
        """What goes into the card's YAML head: model-index, emissions."""
        head: dict = {}
        if self.summary is not None and self.summary.get("main"):
            from huggingface_hub.repocard_data import eval_results_to_model_index

            from rnagpt.evaluation.reporting.model_index import dataset_of, eval_results

            results = eval_results(self.summary, *dataset_of(self.summary))
            if results:
                head["model-index"] = eval_results_to_model_index(model_name, results)
        if "co2_grams" in self.cost:
            head["co2_eq_emissions"] = {"emissions": self.cost["co2_grams"], "training_type": "fine-tuning"}
            if "hardware" in self.cost:
                head["co2_eq_emissions"]["hardware_used"] = self.cost["hardware"]
        return head

    @property
    def reads_facts_table(self) -> bool:
        """Whether any stage was trained on the packaged table."""
        return any(not stage["recipe"]["data"].get("sources") for stage in self.stages)


def read_facts(checkpoint: str | Path, run_dir: str | Path | None = None, cost: dict | None = None) -> RunFacts:
    """The facts of a checkpoint's run: `run_dir`, or the folder that the checkpoint lies in where that is a run's.

    Raises:
        UserError: `run_dir` is given and is no run, or a file of it is damaged.
    """
    folder = Path(checkpoint)
    if run_dir is not None and not Path(run_dir).is_dir():
        raise UserError(f"{run_dir} is no folder: give the folder of a run, as `rnagpt quickstart` leaves it")
    around = Path(run_dir) if run_dir is not None else folder.absolute().parent
    files = sorted(around.glob("stage*/training.json"))
    if (folder / "training.json").is_file():
        own = folder / "training.json"
        files = [*(file for file in files if file.parent.name < folder.name), own]
    if run_dir is not None and not files and not (around / "evaluation").is_dir():
        raise UserError(f"{run_dir} is no run: expected stage*/training.json or evaluation/summary.json in it")
    stages = [read_json(file) for file in files]
    stages = [stage for stage in stages if "recipe" in stage]
    summary = around / "evaluation" / "summary.json"
    run = read_json(around / "run.json") if (around / "run.json").is_file() else {}
    left_out, figures = "", None
    if summary.is_file():
        measured = read_json(summary)
        main = measured_as(folder, around, measured, run)
        figures = {**measured, "main": main} if main else None
        if figures is None:
            left_out = f"{summary} measured other checkpoints than {folder}: the card tells none of its figures"
    else:
        figures = recorded_summary(folder / "items.jsonl.gz")
    return RunFacts(stages, figures, run, training_seconds(folder, stages), dict(cost or {}), left_out)


def measured_as(folder: Path, around: Path, summary: dict, run: dict) -> str | None:
    """Under which key a run's evaluation has the figures of this very checkpoint; None where it measured others.

    A recipe's evaluation names the checkpoint of each system (evaluation.json). A quick start measures its first
    stage, as "stage1", and what its last one left, as "stage2".
    """
    name, keys = folder.resolve().name, {row["system"] for row in summary.get("systems", [])}
    if (around / "evaluation.json").is_file():
        asked = read_json(around / "evaluation.json").get("systems", [])
        # its folder may have been moved since, the two last names stay
        here = {
            part["name"]: assets() / "demo" if part["model"] == "demo" else Path(part["model"]).absolute()
            for part in asked
            if part.get("kind") == "rna"
        }
        found = [key for key, path in here.items() if path.parts[-2:] == folder.absolute().parts[-2:]]
        return next((key for key in found if key in keys), None)
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

    The floors and references that no model is needed for are computed beside them, where scikit-learn is installed;
    the nearest training RNA by identity where edlib is, too.
    """
    if not path.is_file():
        return None
    from dataset_builder.facts_table.facts import load_facts
    from rnagpt.evaluation.asking.items import read_items, to_line
    from rnagpt.evaluation.reporting.summary import summarise

    with tempfile.TemporaryDirectory() as folder:
        items = Path(folder) / "items.jsonl"
        items.write_bytes(gzip.decompress(path.read_bytes()))
        if find_spec("sklearn") is not None:
            from rnagpt.evaluation.asking.baselines import baseline_answers

            asked = [item for item in read_items(items) if item.system == "demo"]
            ids = {item.rna_id for item in asked}
            held_out = [fact for fact in load_facts(split="test") if fact.rna_id in ids]
            train, neighbours = load_facts(split="train"), None
            if find_spec("edlib") is not None:
                from rnagpt.known_rnas.neighbours import nearest_by_identity

                neighbours = nearest_by_identity(*([rna.sequence for rna in rnas] for rnas in (held_out, train)))
            answers = baseline_answers(train, held_out, asked, neighbours=neighbours)
            with open(items, "a", encoding="utf-8") as file:
                file.writelines(map(to_line, answers))
        return summarise(items)


def training_seconds(folder: Path, stages: list[dict]) -> float | None:
    """Of all stages: the packaged demo's from its joined curve, else the sum of what each stage noted."""
    curve = folder / "curve.jsonl"
    if curve.is_file() and len(stages) == 1:
        last: dict[str, float] = {}
        for line in curve.read_text().splitlines():
            row = json.loads(line)
            last[row["stage"]] = max(last.get(row["stage"], 0.0), row["seconds"])
        return sum(last.values()) or None
    return sum(stage.get("seconds") or 0.0 for stage in stages) or None


def training_text(facts: RunFacts) -> str:
    """A row per stage: what trained, on what, how much."""
    if not facts.stages:
        return ""
    lines = ["| stage | trains | data | visits | learning rate | LoRA rank |", "|---|---|---|---|---|---|"]
    for number, stage in enumerate(facts.stages, start=1):
        recipe = stage["recipe"]
        adapted = recipe["stage"] == "instruction"
        rank = (recipe.get("lora") or {}).get("r", "8 (PEFT's default)") if adapted else "-"
        if adapted and not recipe.get("lora") and goes_on(facts.stages, number):
            rank = "that of the stage before"
        visits = recipe["data"].get("samples", recipe["data"].get("visits"))
        lines.append(
            f"| {number}, {recipe['stage']} | {'projector and LoRA' if adapted else 'projector'} "
            f"| {data_name(recipe)} | {f'{visits:,}' if visits else 'each RNA once'} "
            f"| {recipe['sft'].get('learning_rate', 'TRL default')} "
            f"| {rank} |"
        )
    lines.append("")
    lines.append("A visit shows one RNA with its annotation (alignment) or with some questions (instruction).")
    if len(facts.stages) == 1 and facts.stages[0]["recipe"].get("start_from"):
        before = Path(facts.stages[0]["recipe"]["start_from"]).name
        lines.append(f"The stage listed goes on from `{before}` of the same run, which is not listed here.")
    if facts.reads_facts_table:
        lines.append(f"\n{facts_table_text()}")
    versions = facts.run.get("Machine", {})
    named = ", ".join(
        f"{name} {versions[name]}" for name in ("torch", "transformers", "trl", "peft") if name in versions
    )
    if named:
        lines.append(f"\nWritten with {named}.")
    return "\n".join(lines)


def goes_on(stages: list[dict], number: int) -> bool:
    """Whether an instruction stage (counted from 1) goes on training the adapter of another."""
    if number > 1:
        return stages[number - 2]["recipe"]["stage"] == "instruction"
    return bool(stages[0]["recipe"].get("start_from"))


def data_name(recipe: dict) -> str:
    """The sources of a recipe as they may be published.

    >>> data_name({"data": {"sources": [{"path": "owner/rna-qa", "config": "qa", "split": "train"}]}})
    'owner/rna-qa (qa, train)'
    """
    from rnagpt.checkpoints.model_card import public_name

    sources = recipe["data"].get("sources") or []
    if not sources:
        return FACTS_TABLE
    return "; ".join(
        f"{public_name(source['path'])} ({', '.join(filter(None, [source.get('config'), source.get('split')]))})"
        for source in sources
    )


def facts_table_text() -> str:
    """Which table it is: sha256, rows, split."""
    import hashlib

    from dataset_builder.facts_table import facts

    digest = hashlib.sha256((Path(facts.__file__).parent / "data" / "rna_facts.tsv.gz").read_bytes()).hexdigest()
    rows = Counter(fact.split for fact in facts.load_facts())
    return (
        f"The table of RNA facts is `dataset_builder/facts_table/data/rna_facts.tsv.gz` (sha256 `{digest[:16]}`): "
        f"{rows['train']:,} RNAs for training, {rows['validation']:,} for validation, {rows['test']:,} held out; no "
        "held-out RNA has an 80% neighbour among the others."
    )


def data_licences(facts: RunFacts) -> str:
    """A line per source of the training data; what it obliges to."""
    if not facts.stages:
        return ""
    lines = []
    if facts.reads_facts_table:
        from dataset_builder.facts_table.facts import load_facts

        count = Counter(fact.licence for fact in load_facts(split="train"))
        listed = "; ".join(f"{licence}, {rows:,} RNAs" for licence, rows in count.most_common())
        lines.append(
            f"- RNA facts (training data): {listed}. Sequences and names only; name the sources (miRBase, Rfam, "
            "GtRNAdb and others) where you pass the rows on"
        )
    named = {data_name(stage["recipe"]) for stage in facts.stages} - {FACTS_TABLE}
    lines += [f"- {name} (training data): see its own card" for name in sorted(named)]
    return "\n".join(lines)


def cost_text(facts: RunFacts) -> str:
    """Time, hardware, money and carbon, each only where it is known."""
    cost, machine = facts.cost, facts.run.get("Machine", {})
    hardware = cost.get("hardware") or (
        f"{machine['processor cores']} processor cores, no GPU"
        if "processor cores" in machine and "+cpu" in str(machine.get("torch", "+cpu"))
        else None
    )
    said = []
    if facts.seconds:
        said.append(f"Training took {facts.seconds / 60:,.0f} minutes" + (f" on {hardware}." if hardware else "."))
    elif hardware:
        said.append(f"Trained on {hardware}.")
    if "cost_usd" in cost:
        said.append(f"It cost {cost['cost_usd']:,.2f} USD.")
    carbon = f"{cost['co2_grams']:,.0f} g of CO2 equivalent." if "co2_grams" in cost else "not measured."
    return " ".join([*said, f"Carbon: {carbon}"]) if said or cost else ""


def state_text(summary: dict) -> str:
    """What the figures say it can and cannot do, in plain sentences and a table by kind of question."""
    rows = {row["system"]: row for row in summary["systems"]}
    main = rows.get(summary.get("main") or "")
    if main is None:
        return ""
    swapped = rows.get(f"{main['system']}_swapped")
    lines = [f"**Measured on {summary['n_rna']:,} RNAs that training had not seen.**"]
    if main["rna_type"]:
        sentence = f"Asked for the RNA's type, it is right in {share(main['rna_type'])} of cases"
        chance = summary["chance"].get("rna_type")
        lines.append(sentence + (f" (chance: {100 * chance:.1f}%)." if chance is not None else "."))
        if swapped and swapped["rna_type"]:
            other = f"Shown an RNA of another type instead, it is right in {share(swapped['rna_type'])}"
            follows = summary.get("follows_shown_rna", {}).get(swapped["system"])
            lines.append(other + (f", and names that other RNA's type in {share(follows)}." if follows else "."))
        elif swapped is None:
            lines.append("It was not asked with another RNA in its place: this does not show that it reads RNA.")
        lines += other_controls(rows, main["system"])
        better = [
            row
            for row in rows.values()
            if row["group"] in ("reference", "floor")
            and row["rna_type"]
            and row["rna_type"]["value"] >= main["rna_type"]["value"]
        ]
        if better:
            listed = ", ".join(f"{row['label']} ({100 * row['rna_type']['value']:.1f}%)" for row in better)
            lines.append(f"As good or better at this, without being a chat model: {listed}.")
    by_kind = kinds_table(summary, main, swapped, rows)
    text = " ".join(lines)
    if not by_kind:
        return text
    floors = ", ".join(["chance", *(said for key, said in FLOORS.items() if key in rows)])
    return (
        f"{text}\n\n{by_kind}\n\nThe floor is the best of {floors}. "
        '"No" means that the score\'s 95% interval reaches down to the floor: do not use it for that. It was asked '
        "nothing else: of function, structure, disease or literature it knows what its language model has read, "
        "whatever the RNA."
    )


def other_controls(rows: dict, system: str) -> list[str]:
    """One sentence on what is left of the type's score without the RNA, without its order, with a relative."""
    said = []
    for control, means in (
        ("no_rna", "with no RNA at all"),
        ("shuffled", "with its nucleotides shuffled"),
        ("swapped_same", "with another RNA of the same type"),
    ):
        row = rows.get(f"{system}_{control}")
        if row and row["rna_type"]:
            said.append(f"{means} in {share(row['rna_type'])}")
    return [f"It is right {', '.join(said)}."] if said else []


def kinds_table(summary: dict, main: dict, swapped: dict | None, rows: dict) -> str:
    """Right answers by kind of question, beside the floor and another RNA; "" where there are no kinds."""
    lines = ["| question | right | with another RNA | floor | questions | above its floor |", "|" + 6 * "---|"]
    for topic, estimate in main["topics"].items():
        if not estimate:
            continue
        floors = [rows[key]["topics"].get(topic) for key in FLOORS if key in rows]
        known = [row["value"] for row in floors if row]
        if (chance := summary["chance"]["topics"].get(topic)) is not None:
            known.append(chance)
        floor = max(known) if known else None
        other = swapped["topics"].get(topic) if swapped else None
        above = "-" if floor is None else "yes" if estimate["low"] > floor else "**no**"
        lines.append(
            f"| {TOPICS.get(topic, topic)} | {share(estimate)} | {share(other) if other else '-'} "
            f"| {f'{100 * floor:.1f}%' if floor is not None else '-'} | {estimate['n_items']} | {above} |"
        )
    return "\n".join(lines) if len(lines) > 2 else ""


def evaluation_text(summary: dict) -> str:
    """Every system's figures beside their controls and floors, with 95% intervals by sequence cluster."""
    level = f"{100 * summary['confidence']:g}%"
    lines = [
        f"{summary['n_rna']:,} held-out RNAs in {summary['n_clusters']:,} clusters, {summary['n_questions']:,} "
        f"questions; {level} intervals by cluster.",
        "",
    ]
    if any(row["rna_type"] or row["closed"] for row in summary["systems"]):
        lines += ["| system | names the RNA's type | other closed questions |", "|---|---|---|"]
        for row in summary["systems"]:
            cells = [share(row[measure]) if row[measure] else "-" for measure in ("rna_type", "closed")]
            label = f"**{row['label']}, this model**" if row["system"] == summary.get("main") else row["label"]
            lines.append(f"| {label} ({row['about']}) | {cells[0]} | {cells[1]} |")
        chance = [
            f"{100 * value:.1f}%" if value is not None else "-"
            for value in (summary["chance"]["rna_type"], summary["chance"]["closed"])
        ]
        lines.append(f"| chance | {chance[0]} | {chance[1]} |")
    lines += text_scores(summary)
    lines += ["", "A score that its floor also reaches says nothing about reading RNA."]
    return "\n".join(lines)


def text_scores(summary: dict) -> list[str]:
    """Similarities of free answers, of the main system and with another RNA; numbers of two modes do not compare."""
    lines: list[str] = []
    main = summary.get("main")
    for entry in summary.get("text", []):
        rows = {row["system"]: row for row in entry["systems"] if row["system"] in (main, f"{main}_swapped")}
        if main not in rows:
            continue
        lines += ["", "| similarity of free answers (F1) | with the RNA | with another RNA |", "|---|---|---|"]
        for mode, metrics in rows[main]["modes"].items():
            for label, values in metrics.items():
                other = rows.get(f"{main}_swapped", {}).get("modes", {}).get(mode, {}).get(label)
                second = f"{other['f1']['value']:.3f}" if other else "-"
                lines.append(f"| {label}, {mode} | {values['f1']['value']:.3f} | {second} |")
    return lines


def share(estimate: dict) -> str:
    """An estimate with its interval.

    >>> share({"value": 0.75, "low": 0.690, "high": 0.805})
    '75.0% [69.0, 80.5]'
    """
    value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
    return f"{value:.1f}% [{low:.1f}, {high:.1f}]"
