"""Calls, tokens, price and hours of a build, from a sample of its real literature, before anything is sent.

Units are sampled within strata of their size (a few have thousands of papers, most have one or two), their prompts
are made and measured; answers are taken at the share of the limit that past calls of this folder used, else at
`ANSWER_SHARE`.
"""

import json
import random
from pathlib import Path

from dataset_builder.literature.annotation import chunked
from dataset_builder.literature.questions import MOST
from dataset_builder.llm import prompts
from dataset_builder.storage.settings import BuildSettings
from dataset_builder.storage.store import Library

SAMPLE = 300  # units
ANSWER_SHARE = 0.35  # of the answer limit, for statements and questions alike
REPAIRS = 0.15  # share of calls that are sent back once
STATEMENT_TOKENS = 45
TOKENS_PER_MINUTE = 2_000_000  # of an endpoint's rate limit
STRATA = (1, 3, 8, 20, 60, 200, 10**9)  # papers


class Estimator:
    """Stands where a backend counts tokens, without loading one."""

    @staticmethod
    def tokens(text: str) -> int:
        return int(len(text.encode("utf-8", "replace")) / 3.5) + 1


def plan(settings: BuildSettings, work: Path, ranks: int, tokens_per_minute: int = TOKENS_PER_MINUTE) -> dict:
    """-> {"units", "sampled", "rnas", "calls", "prompt_tokens", "answer_tokens", "usd", "usd_batch", "hours"}."""
    strata: dict[int, list] = {}
    totals: dict[int, int] = {}
    draw = random.Random(settings.seed)
    for rank in range(ranks):
        with open(work / "prepared" / f"{rank:05d}.jsonl", encoding="utf-8") as handle:
            for line in handle:
                unit = json.loads(line)
                papers = sum(len(pmids) for _, pmids in unit["topics"])
                stratum = next(i for i, most in enumerate(STRATA) if papers <= most)
                totals[stratum] = totals.get(stratum, 0) + 1
                kept = strata.setdefault(stratum, [])
                room = SAMPLE // len(STRATA)
                if len(kept) < room:
                    kept.append(unit)
                elif draw.randrange(totals[stratum]) < room:  # reservoir
                    kept[draw.randrange(room)] = unit
    library = Library(work / "library.sqlite", read_only=True)
    calls = prompt_tokens = answer_tokens = 0.0
    sampled = 0
    for stratum, units in strata.items():
        weight = totals[stratum] / len(units)
        for unit in units:
            sampled += 1
            for one_prompt, one_answer in unit_calls(unit, library, settings):
                calls += weight * (1 + REPAIRS)
                prompt_tokens += weight * one_prompt * (1 + REPAIRS)
                answer_tokens += weight * one_answer * (1 + REPAIRS)
    rnas = library.db.execute(
        "SELECT count(*) FROM rna JOIN literature ON literature.id = literature WHERE unit NOT NULL"
    ).fetchone()[0]
    library.close()
    local = settings.model.kind == "local"  # neither a price nor an endpoint's rate
    usd = settings.model.prices.usd(round(prompt_tokens), round(answer_tokens))
    hours = (prompt_tokens + answer_tokens) / tokens_per_minute / 60
    return {
        "rnas": rnas,
        "units": sum(totals.values()),
        "sampled": sampled,
        "calls": round(calls),
        "prompt_tokens": round(prompt_tokens),
        "answer_tokens": round(answer_tokens),
        "usd": None if local else round(usd, 4),
        "usd_batch": None if local else round(usd / 2, 4),
        "hours": None if local else round(hours, 4),
    }


def unit_calls(unit: dict, library: Library, settings: BuildSettings):
    """(prompt tokens, answer tokens) of each call that a unit will make, repairs aside."""
    count, limits, names = Estimator.tokens, settings.limits, unit["names"]
    papers = library.papers_by_pmid([pmid for _, pmids in unit["topics"] for pmid in pmids])
    by_pmid = {paper.pmid: paper for paper in papers}

    class Model:
        backend = Estimator

    def size(request) -> int:
        return sum(count(text) for _, text in request.messages)

    answer = ANSWER_SHARE * limits.answer_tokens
    for method in settings.methods:
        groups = [papers] if method == "ais" else [[by_pmid[p] for p in pmids] for _, pmids in unit["topics"]]
        chunks = [chunk for group in groups for chunk in chunked(group, Model, limits)]
        if method == "ais":
            chunks = chunks[:1]
        form = prompts.choose if limits.small else prompts.summarise
        for chunk in chunks:
            yield size(form(names, chunk, limits.answer_tokens)), answer
        statements = sum(min(12, max(2, len(chunk))) for chunk in chunks)
        fixed = size(prompts.merge(names, [{"text": "", "pmids": ["1"]}], limits.answer_tokens))
        if len(chunks) > 1 and not limits.small:
            yield fixed + statements * STATEMENT_TOKENS, answer
        questions = ANSWER_SHARE * (limits.question_tokens or limits.answer_tokens)
        if limits.small:
            one = size(prompts.ask_one(" ".join(["word"] * STATEMENT_TOKENS), 1, "open", 1))
            for _ in range(2 * min(MOST, prompts.CHOSEN * len(chunks))):
                yield one, questions
            continue
        yield fixed + min(20, statements) * STATEMENT_TOKENS + 200, questions


def plan_text(planned: dict) -> str:
    if planned["usd"] is None:
        price = "no price: the model runs on this machine"
    else:
        usd, in_batches, hours = (amount(planned[key]) for key in ("usd", "usd_batch", "hours"))
        price = f"{usd} USD ({in_batches} in batches), {hours} h at 2 million tokens a minute"
    return (
        f"plan, from {planned['sampled']} of {planned['units']} literature sets ({planned['rnas']} RNAs): "
        f"{planned['calls']} calls, {planned['prompt_tokens']} prompt and {planned['answer_tokens']} answer tokens, "
        f"{price}"
    )


def amount(number: float) -> str:
    """A price or a time with two decimals; what would be shown as nothing is not.

    >>> amount(0), amount(0.002), amount(1234.5)
    ('0.00', 'under 0.01', '1,234.50')
    """
    return "under 0.01" if 0 < number < 0.01 else f"{number:,.2f}"
