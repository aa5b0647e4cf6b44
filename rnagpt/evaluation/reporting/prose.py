"""What the figures of a summary say in plain words, the bad news included: on the page, on the model card, and to
those who cannot see the figures.

Every sentence is chosen by an interval or a p-value, never by the look of a number: a difference that the held-out
RNAs cannot show is reported as none shown. Praise needs more evidence than blame.
"""

from collections.abc import Sequence

from rnagpt.evaluation.asking.systems import System, system
from rnagpt.evaluation.reporting.figures import topic_label, type_label
from rnagpt.evaluation.reporting.tables import as_markdown, share

ALPHA = 0.05


def headline(summary: dict) -> dict:
    """{"title": one sentence, "points": further sentences, "tiles": [{"value", "label", "note", "tone"}]}."""
    row = _row(summary, summary["main"])
    if row is None:
        return {"title": "No answers of RNA-GPT about RNA types were evaluated here.", "points": [], "tiles": []}
    if row["rna_type"] is None:
        return _from_grounding(summary, row)
    return {"title": _title(summary, row), "points": _points(summary, row), "tiles": _tiles(summary, row)}


def state(summary: dict) -> str:
    """What a model can and cannot do, for its card: the headline, and a table by kind of question; Markdown."""
    row = _row(summary, summary.get("main"))
    if row is None:
        return ""
    verdict = headline(summary)
    parts = [f"**Measured on {summary['n_rna']:,} RNAs that training had not seen.** {verdict['title']}"]
    if verdict["points"]:
        parts.append("\n".join(f"- {point}" for point in verdict["points"]))
    swapped = _row(summary, f"{row['system']}_swapped")
    table = [["question", "right", "with another RNA", "baseline", "questions", "above its baseline"]]
    for topic, estimate, baseline in _kinds(summary, row):
        above = "-" if baseline is None else "yes" if estimate["low"] > baseline else "**no**"
        level = "-" if baseline is None else f"{100 * baseline:.1f}%"
        other = share(swapped["topics"].get(topic) if swapped else None)
        table.append([topic_label(topic), share(estimate), other, level, str(estimate["n_items"]), above])
    if len(table) > 1:
        simple = [system(other["system"]) for other in summary["systems"]]
        names = _list(["chance", *(spec.phrase for spec in simple if spec.group == "baseline")])
        parts += [
            as_markdown(table).rstrip(),
            f'The baseline is the best of {names}. "No" means that the score\'s 95% interval reaches down to the '
            "baseline: do not use it for that. It was asked nothing else: of function, structure, disease or "
            "literature it knows what its language model has read, whatever the RNA.",
        ]
    return "\n\n".join(parts)


def _from_grounding(summary: dict, row: dict) -> dict:
    """The verdict where no RNA types were asked: from the gaps with another type's RNA, after Holm's correction."""
    key = (summary["main"], "swapped")
    gaps = [gap for gap in summary.get("grounding", []) if (gap["system"], gap["control"]) == key]
    reads = [gap for gap in gaps if gap["low"] > 0 and gap["p_holm"] < ALPHA]
    title = "RNA-GPT is not shown to read the RNA: with another one in its place it does as well."
    if not gaps:
        title = "No RNA of another type was swapped in to tell whether RNA-GPT reads the RNA."
    elif reads:
        title = "RNA-GPT reads the RNA: with another one in its place it does worse."
    names = {"label": "the share of right labels", "likelihood": "the log-likelihood of the true answer, per token,"}
    points = []
    for gap in gaps:
        words = names.get(gap["measure"], f"the similarity with the reference ({gap['measure'].split(':')[-1]})")
        sure = "" if gap in reads else ": no difference that can be shown"
        other, true = (f"{gap[name]:.3f}".replace("-", "−") for name in ("other", "true"))
        points.append(f"With another type's RNA {words} is {other} instead of {true}{sure}.")
    if row["closed"]:
        words = f"Of the closed questions it answers {_whole(row['closed']['value'])} right, which is"
        points += _against_simpler(summary, "closed", words)
    return {"title": title, "points": points, "tiles": []}


def _row(summary: dict, key: str | None) -> dict | None:
    return next((row for row in summary["systems"] if row["system"] == key), None)


def _comparison(summary: dict, other: str, measure: str = "rna_type") -> dict | None:
    rows = summary.get("comparisons", [])
    return next((row for row in rows if row["other"] == other and row["measure"] == measure), None)


def _whole(value: float) -> str:
    """A share in whole percent; one that is not quite 0 or 1 is never rounded to it.

    >>> _whole(0.7104), _whole(0.999), _whole(0.125)
    ('71%', 'over 99%', '12.5%')
    """
    rounded = round(100 * value)
    if abs(100 * value - rounded) == 0.5:  # rounding either way would set it apart from a chance of 12.5 %
        return f"{100 * value:.1f}%"
    if rounded in (0, 100) and value not in (0, 1):
        return "under 1%" if rounded == 0 else "over 99%"
    return f"{rounded}%"


def _differs(comparison: dict | None) -> int:
    """1: the model is better, by the corrected p-value; -1: it is worse, for which the uncorrected one is enough."""
    if comparison is None:
        return 0
    if comparison["value"] > 0:
        return int(comparison["p_holm"] < ALPHA)
    return -int(comparison["p"] < ALPHA)


def _title(summary: dict, row: dict) -> str:
    right, chance = row["rna_type"], summary["chance"]["rna_type"]
    about = f"{_whole(right['value'])} of {right['n_items']} RNAs it never saw in training"
    about += f" (chance: {100 * chance:.3g}%)" if chance is not None else ""
    swapped = _comparison(summary, f"{summary['main']}_swapped")
    if chance is not None and right["low"] <= chance:
        return f"RNA-GPT cannot tell RNA types apart yet: it names the type of {about}."
    if swapped is None:
        return f"RNA-GPT names the type of {about}, but no swapped RNA was shown to tell whether it reads them."
    if _differs(swapped) > 0:
        return f"RNA-GPT reads the RNA: it names the type of {about}."
    instead = "with another RNA in its place it does as well"
    return f"RNA-GPT names the type of {about}, but not by reading the RNA: {instead}."


def _points(summary: dict, row: dict) -> list[str]:
    points = []
    swapped = _row(summary, f"{summary['main']}_swapped")
    if swapped and swapped["rna_type"]:
        true, follows = swapped["rna_type"], summary["follows_shown_rna"].get(swapped["system"])
        more = f" and the swapped-in RNA's type in {_whole(follows['value'])}" if follows else ""
        words = "With an RNA of another type swapped in, it gives the true RNA's type in"
        points.append(f"{words} {_whole(true['value'])} of cases{more}.")
    elif swapped is None:
        points.append("It was not asked with another RNA in its place: this does not show that it reads RNA.")
    without = [
        f"{words} it is right in {_whole(other['rna_type']['value'])}"
        for control, words in (("shuffled", "the RNA's letters shuffled"), ("no_rna", "no RNA at all"))
        if (other := _row(summary, f"{summary['main']}_{control}")) and other["rna_type"]
    ]
    points += [f"With {' and with '.join(without)}."] if without else []
    points += _same_type(summary, row)
    points += _against_simpler(summary)
    able, unable = [], []
    for topic, estimate, baseline in _kinds(summary, row):
        if topic != "rna_type" and baseline is not None:
            right = f"{_whole(estimate['value'])} of {estimate['n_items']} right"
            phrase = f"“{topic_label(topic)}” ({right}; the best baseline: {_whole(baseline)})"
            (able if estimate["low"] > baseline else unable).append(phrase)
    points += [f"Beyond the type it beats what reads no RNA letters at {_list(able)}."] if able else []
    points += [f"It is not shown to beat what reads no RNA letters at {_list(unable)}."] if unable else []
    return points


def _same_type(summary: dict, row: dict) -> list[str]:
    """Whether it reads more of an RNA than its type: from the closed questions, with another RNA of the same type."""
    key = f"{summary['main']}_swapped_same"
    other, comparison = _row(summary, key), _comparison(summary, key, "closed")
    if not other or not other["closed"] or not row["closed"] or comparison is None:
        return []
    verdict = "so it reads more of the RNA than its type"
    if _differs(comparison) <= 0:
        verdict = "no difference that can be shown, so nothing says that it reads more of the RNA than its type"
    return [
        f"With another RNA of the same type it answers {_whole(other['closed']['value'])} of the closed questions "
        f"right instead of {_whole(row['closed']['value'])}: {verdict}."
    ]


def _simpler(summary: dict, measure: str) -> list[tuple[System, dict]]:
    """Baselines and references with their estimates."""
    rows = [(system(row["system"]), row[measure]) for row in summary["systems"]]
    return [(spec, estimate) for spec, estimate in rows if spec.group in ("baseline", "reference") and estimate]


def _against_simpler(summary: dict, measure: str = "rna_type", words: str = "On RNA types it is") -> list[str]:
    """One sentence on the baselines and references, sorted by whether the model beats them."""
    verdicts: dict[str, list[str]] = {"better than": [], "not shown to differ from": [], "worse than": []}
    for spec, estimate in _simpler(summary, measure):
        if comparison := _comparison(summary, spec.key, measure):
            verdict = list(verdicts)[1 - _differs(comparison)]
            verdicts[verdict].append(f"{spec.phrase} ({_whole(estimate['value'])})")
    phrases = [f"{verdict} {_list(names)}" for verdict, names in verdicts.items() if names]
    return [f"{words} {'; '.join(phrases)}."] if phrases else []


def _kinds(summary: dict, row: dict) -> list[tuple[str, dict, float | None]]:
    """Topic, a system's estimate, and the best of chance and of the baselines that read no RNA letters."""
    baselines = [other["topics"] for other in summary["systems"] if system(other["system"]).group == "baseline"]
    found = []
    for topic in summary["topics"]:
        levels = [topics[topic]["value"] for topics in baselines if topics.get(topic)]
        levels += [chance] if (chance := summary["chance"]["topics"].get(topic)) is not None else []
        if row["topics"].get(topic):
            found.append((topic, row["topics"][topic], max(levels, default=None)))
    return found


def _tiles(summary: dict, row: dict) -> list[dict]:
    """The few numbers that stand large at the top of the report, all about RNA types."""

    def tile(estimate: dict, label: str, tone: str) -> dict:
        note = f"{100 * estimate['low']:.0f}–{100 * estimate['high']:.0f}% · n = {estimate['n_items']}"
        return {"value": _whole(estimate["value"]), "label": label, "note": note, "tone": tone}

    tiles = [tile(row["rna_type"], "right with the true RNA", "model")]
    swapped = _row(summary, f"{summary['main']}_swapped")
    if swapped and swapped["rna_type"]:
        tiles.append(tile(swapped["rna_type"], "right with another RNA swapped in", "control"))
    if simple := _simpler(summary, "rna_type"):
        spec, best = max(simple, key=lambda pair: pair[1]["value"])
        tiles.append(tile(best, f"best simple method: {spec.label}", "reference"))
    if (chance := summary["chance"]["rna_type"]) is not None:
        note = f"{len(summary['rna_types'])} RNA types"
        tiles.append({"value": f"{100 * chance:.3g}%", "label": "right by chance", "note": note, "tone": "baseline"})
    return tiles


def descriptions(summary: dict, curves: Sequence[dict]) -> dict[str, str]:
    """Name of a figure -> what it shows, for those who cannot see it."""
    asked = [row for row in summary["systems"] if row["rna_type"]]
    shares = [f"{row['label']}: {100 * row['rna_type']['value']:.0f}% of RNA types" for row in asked]
    return {
        "accuracy": f"Bar chart of accuracies, also given in the next table. {'; '.join(shares)}",
        "similarity": "Bar chart of similarities, also given in the tables below.",
        "type_by_system": "Shares of right answers by system and RNA type, also in tables/.",
        "train_identity": "Scores by identity with the nearest training RNA, also in tables/.",
        "reliability": reliability(summary),
        "confusion": f"Table of true and answered RNA types. {mistakes(summary)}",
        "learning_curves": f"Learning curves. {learned(curves)}",
    }


def reliability(summary: dict) -> str:
    """Whether the main system knows what it knows; "" where nothing tells."""
    row = summary.get("calibration", {}).get(summary["main"])
    if row is None:
        return ""
    risk = f"at most {100 * row['highest_risk']:.0f}%"
    answered = f"There is no threshold at which {risk} of its answers are wrong"
    if row["abstention"]:
        kept = f"{100 * row['abstention']['coverage']:.0f}%"
        answered = f"It can answer {kept} of the questions with {risk} of those wrong"
    return (
        f"Its most likely option is right in {100 * row['accuracy']:.0f}% of {row['n']} questions; calibration "
        f"error {row['ece']:.2f}, Brier score {row['brier']:.2f}. {answered}."
    )


def mistakes(summary: dict) -> str:
    """Which types the main system tells best and worst; "" without a confusion matrix."""
    if not summary.get("confusion"):
        return ""
    counts, labels = summary["confusion"]["counts"], summary["confusion"]["labels"]
    sizes = [sum(row) for row in counts]
    hits = {label: round(100 * counts[i][i] / max(sizes[i], 1)) for i, label in enumerate(labels)}
    best, worst = max(labels, key=hits.__getitem__), min(labels, key=hits.__getitem__)
    each = str(min(sizes)) if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    return (
        f"Best at {type_label(best)} ({hits[best]}% right), worst at {type_label(worst)} ({hits[worst]}%). Each row "
        f"holds {each} RNAs; “none” means that none of these types was found in the answer."
    )


def learned(curves: Sequence[dict]) -> str:
    """Each stage's first and last loss and what it took; "" without losses."""
    sentences = []
    for stage in dict.fromkeys(row["stage"] for row in curves):
        logged = [row for row in curves if row["stage"] == stage and "loss" in row]
        if logged:
            last = max(logged, key=lambda row: row["step"])
            time = f" and {last['seconds']:,.0f} seconds" if "seconds" in last else ""
            sentences.append(
                f"{topic_label(stage)}: loss from {logged[0]['loss']:.2f} to {last['loss']:.2f} in "
                f"{last['step']:,.0f} steps{time}."
            )
    return " ".join(sentences)


def _list(parts: Sequence[str]) -> str:
    """
    >>> _list(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
