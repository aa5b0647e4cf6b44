"""What the numbers of a summary say in plain words, the bad news included.

Every sentence is chosen by an interval or a p-value, never by the look of a number: a difference that the held-out
RNAs cannot show is reported as none shown. Praise needs more evidence than blame.
"""

import re

from rnagpt.evaluation.asking.systems import system

ALPHA = 0.05
_TOPICS = {
    "rna_type": "RNA type",
    "is_type": "Is it type X?",
    "length_class": "Length class",
    "organism_group": "Organism group",
    "amino_acid": "Amino acid",
}


def topic_label(topic: str) -> str:
    """A topic, or a stage, for people.

    >>> topic_label("is_type"), topic_label("cell_compartment"), topic_label("stage2")
    ('Is it type X?', 'Cell compartment', 'Stage 2')
    """
    words = re.sub(r"(?<=[a-z])(?=\d)", " ", topic.replace("_", " "))
    return _TOPICS.get(topic, words[:1].upper() + words[1:])


def headline(summary: dict) -> dict:
    """{"title": one sentence, "points": further sentences, "tiles": [{"value", "label", "note", "tone"}]}."""
    row = _row(summary, summary["main"])
    if row is not None and row["rna_type"] is None:
        return _from_grounding(summary, row)
    if row is None:
        return {"title": "No answers of RNA-GPT about RNA types were evaluated here.", "points": [], "tiles": []}
    return {"title": _title(summary, row), "points": _points(summary, row), "tiles": _tiles(summary, row)}


def _from_grounding(summary: dict, row: dict) -> dict:
    """The verdict where no RNA types were asked: from the gaps with another type's RNA, after Holm's correction."""
    gaps = [
        gap for gap in summary.get("grounding", []) if gap["system"] == summary["main"] and gap["control"] == "swapped"
    ]
    reads = [gap for gap in gaps if gap["low"] > 0 and gap["p_holm"] < ALPHA]
    title = (
        "No RNA of another type was swapped in to tell whether RNA-GPT reads the RNA."
        if not gaps
        else "RNA-GPT reads the RNA: with another one in its place it does worse."
        if reads
        else "RNA-GPT is not shown to read the RNA: with another one in its place it does as well."
    )
    names = {"label": "the share of right labels", "likelihood": "the log-likelihood of the true answer, per token,"}
    points = []
    for gap in gaps:
        words = names.get(gap["measure"], f"the similarity with the reference ({gap['measure'].split(':')[-1]})")
        sure = "" if gap in reads else ": no difference that can be shown"
        other, true = (f"{gap[name]:.3f}".replace("-", "−") for name in ("other", "true"))
        points.append(f"With another type's RNA {words} is {other} instead of {true}{sure}.")
    if row["closed"]:
        points += _against_simpler(
            summary, "closed", f"Of the closed questions it answers {_share(row['closed']['value'])} right, which is"
        )
    return {"title": title, "points": points, "tiles": []}


def _row(summary: dict, key: str | None) -> dict | None:
    return next((row for row in summary["systems"] if row["system"] == key), None)


def _comparison(summary: dict, other: str, measure: str = "rna_type") -> dict | None:
    return next(
        (row for row in summary.get("comparisons", []) if row["other"] == other and row["measure"] == measure), None
    )


def _share(value: float) -> str:
    """A share in whole percent; one that is not quite 0 or 1 is never rounded to it.

    >>> _share(0.7104), _share(0.999), _share(0.125)
    ('71%', 'over 99%', '12.5%')
    """
    rounded = round(100 * value)
    if abs(100 * value - rounded) == 0.5:  # rounding either way would set it apart from a chance of 12.5 %
        return f"{100 * value:.1f}%"
    if rounded in (0, 100) and value not in (0, 1):
        return "under 1%" if rounded == 0 else "over 99%"
    return f"{rounded}%"


def _chance(level: float) -> str:
    return f"{100 * level:.3g}%"


def _differs(comparison: dict | None) -> int:
    """1: the model is better, by the corrected p-value; -1: it is worse, for which the uncorrected one is enough."""
    if comparison is None:
        return 0
    if comparison["value"] > 0:
        return int(comparison["p_holm"] < ALPHA)
    return -int(comparison["p"] < ALPHA)


def _title(summary: dict, row: dict) -> str:
    right, chance = row["rna_type"], summary["chance"]["rna_type"]
    about = f"{_share(right['value'])} of {right['n_items']} RNAs it never saw in training"
    luck = f" (chance: {_chance(chance)})" if chance is not None else ""
    swapped = _comparison(summary, f"{summary['main']}_swapped")
    if chance is not None and right["low"] <= chance:
        return f"RNA-GPT cannot tell RNA types apart yet: it names the type of {about}{luck}."
    if swapped is None:
        return f"RNA-GPT names the type of {about}{luck}, but no swapped RNA was shown to tell whether it reads them."
    if _differs(swapped) > 0:
        return f"RNA-GPT reads the RNA: it names the type of {about}{luck}."
    return (
        f"RNA-GPT names the type of {about}{luck}, but not by reading the RNA: "
        "with another RNA in its place it does as well."
    )


def _points(summary: dict, row: dict) -> list[str]:
    points = []
    swapped = _row(summary, f"{summary['main']}_swapped")
    if swapped and swapped["rna_type"]:
        follows = summary["follows_shown_rna"].get(swapped["system"])
        points.append(
            f"With an RNA of another type swapped in, it gives the true RNA's type in "
            f"{_share(swapped['rna_type']['value'])} of cases"
            + (f" and the swapped-in RNA's type in {_share(follows['value'])}." if follows else ".")
        )
    missing = [
        spec
        for spec in (_row(summary, f"{summary['main']}_{control}") for control in ("shuffled", "no_rna"))
        if spec and spec["rna_type"]
    ]
    if missing:
        names = {"shuffled": "the RNA's letters shuffled", "no_rna": "no RNA at all"}
        points.append(
            "With "
            + " and with ".join(
                f"{names[spec['system'].removeprefix(summary['main'] + '_')]} it is right in "
                f"{_share(spec['rna_type']['value'])}"
                for spec in missing
            )
            + "."
        )
    points += _same_type(summary, row)
    points += _against_simpler(summary)
    points += _closed_topics(summary, row)
    return points


def _same_type(summary: dict, row: dict) -> list[str]:
    """Whether it reads more of an RNA than its type: from the closed questions, with another RNA of the same type."""
    key = f"{summary['main']}_swapped_same"
    other, comparison = _row(summary, key), _comparison(summary, key, "closed")
    if not other or not other["closed"] or not row["closed"] or comparison is None:
        return []
    verdict = (
        "so it reads more of the RNA than its type"
        if _differs(comparison) > 0
        else "no difference that can be shown, so nothing says that it reads more of the RNA than its type"
    )
    return [
        f"With another RNA of the same type it answers {_share(other['closed']['value'])} of the closed questions "
        f"right instead of {_share(row['closed']['value'])}: {verdict}."
    ]


def _against_simpler(summary: dict, measure: str = "rna_type", words: str = "On RNA types it is") -> list[str]:
    """One sentence on the floors and references, sorted by whether the model beats them."""
    verdicts: dict[int, list[str]] = {1: [], 0: [], -1: []}
    for row in summary["systems"]:
        comparison = _comparison(summary, row["system"], measure)
        if row["group"] in ("floor", "reference") and comparison:
            verdicts[_differs(comparison)].append(f"{system(row['system']).phrase} ({_share(row[measure]['value'])})")
    phrases = [
        f"{verdict} {_list(names)}"
        for verdict, names in (
            ("better than", verdicts[1]),
            ("not shown to differ from", verdicts[0]),
            ("worse than", verdicts[-1]),
        )
        if names
    ]
    return [f"{words} {'; '.join(phrases)}."] if phrases else []


def _closed_topics(summary: dict, row: dict) -> list[str]:
    """Which other topics it answers better than the best constant answer, or than chance without one."""
    majority, able, unable = _row(summary, "majority"), [], []
    for topic in summary["topics"]:
        estimate = row["topics"].get(topic)
        constant = (majority["topics"].get(topic) or {}).get("value") if majority else None
        floor = max(
            (level for level in (constant, summary["chance"]["topics"][topic]) if level is not None), default=None
        )
        if topic == "rna_type" or estimate is None or floor is None:
            continue
        phrase = (
            f"“{topic_label(topic)}” ({_share(estimate['value'])} of {estimate['n_items']} right; "
            f"a constant answer: {_share(floor)})"
        )
        (able if estimate["low"] > floor else unable).append(phrase)
    sentences = []
    if able:
        sentences.append(f"Beyond the type it beats a constant answer at {_list(able)}.")
    if unable:
        sentences.append(f"It is not shown to beat a constant answer at {_list(unable)}.")
    return sentences


def _tiles(summary: dict, row: dict) -> list[dict]:
    """The few numbers that stand large at the top of the report, all about RNA types."""

    def interval(estimate: dict) -> str:
        return f"{100 * estimate['low']:.0f}–{100 * estimate['high']:.0f}% · n = {estimate['n_items']}"

    tiles = [
        {
            "value": _share(row["rna_type"]["value"]),
            "label": "right with the true RNA",
            "note": interval(row["rna_type"]),
            "tone": "model",
        }
    ]
    swapped = _row(summary, f"{summary['main']}_swapped")
    if swapped and swapped["rna_type"]:
        tiles.append(
            {
                "value": _share(swapped["rna_type"]["value"]),
                "label": "right with another RNA swapped in",
                "note": interval(swapped["rna_type"]),
                "tone": "control",
            }
        )
    simple = [other for other in summary["systems"] if other["group"] in ("floor", "reference") and other["rna_type"]]
    if simple:
        best = max(simple, key=lambda other: other["rna_type"]["value"])
        tiles.append(
            {
                "value": _share(best["rna_type"]["value"]),
                "label": f"best simple method: {best['label']}",
                "note": interval(best["rna_type"]),
                "tone": "reference",
            }
        )
    if summary["chance"]["rna_type"] is not None:
        tiles.append(
            {
                "value": _chance(summary["chance"]["rna_type"]),
                "label": "right by chance",
                "note": f"{len(summary['rna_types'])} RNA types",
                "tone": "floor",
            }
        )
    return tiles


def _list(parts: list[str]) -> str:
    """
    >>> _list(["a", "b", "c"])
    'a, b and c'
    """
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
