"""Calls, tokens, price and hours of a build, from a sample of its real literature, before anything is sent.

Literature sets are sampled within strata of their size (a few have thousands of papers, most have one or two), their
prompts are made and measured; answers are taken at `ANSWER_SHARE` of their limit.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from dataset_builder.building.steps import read_rank
from dataset_builder.literature.annotation import chunked
from dataset_builder.llm import prompts
from dataset_builder.storage.settings import BuildSettings
from dataset_builder.storage.store import Store

SAMPLE = 300  # literature sets
ANSWER_SHARE = 0.35  # of the answer limit, for statements and questions alike
REPAIRS = 0.15  # share of calls that are sent back once
STATEMENT_TOKENS = 45
TOKENS_PER_MINUTE = 2_000_000  # of an endpoint's rate limit
STRATA = (1, 3, 8, 20, 60, 200, 10**9)  # papers


def plan(settings: BuildSettings, work: Path, ranks: int) -> dict:
    """-> {"rnas", "units", "sampled", "calls", "prompt_tokens", "answer_tokens", "usd", "usd_batch", "hours"}; units
    are literature sets."""
    sampled, totals = sample(work, ranks, settings.seed)
    store = Store(work / "library.sqlite", read_only=True)
    calls = prompt_tokens = answer_tokens = 0.0
    for stratum, rows in sampled.items():
        times = totals[stratum] / len(rows) * (1 + REPAIRS)
        for row in rows:
            for one_prompt, one_answer in calls_of_set(row, store, settings):
                calls += times
                prompt_tokens += times * one_prompt
                answer_tokens += times * one_answer
    (rnas,) = store.db.execute(
        "SELECT count(*) FROM rna JOIN literature ON literature.id = literature WHERE unit NOT NULL"
    ).fetchone()
    store.close()
    usd = settings.model.prices.usd(round(prompt_tokens), round(answer_tokens))
    return {
        "rnas": rnas,
        "units": totals.total(),
        "sampled": sum(map(len, sampled.values())),
        "calls": round(calls),
        "prompt_tokens": round(prompt_tokens),
        "answer_tokens": round(answer_tokens),
        "usd": round(usd, 4),
        "usd_batch": round(usd / 2, 4),
        "hours": round((prompt_tokens + answer_tokens) / TOKENS_PER_MINUTE / 60, 4),
    }


def sample(work: Path, ranks: int, seed: int) -> tuple[dict[int, list[dict]], Counter]:
    """Prepared rows by stratum, a reservoir of each, and how many rows each stratum has."""
    sampled: dict[int, list[dict]] = defaultdict(list)
    totals: Counter = Counter()
    random_numbers, room = random.Random(seed), SAMPLE // len(STRATA)
    for rank in range(ranks):
        for row in read_rank(work / "prepared", None, rank, ranks):
            papers = sum(len(pmids) for _, pmids in row["topics"])
            stratum = next(i for i, most in enumerate(STRATA) if papers <= most)
            totals[stratum] += 1
            if len(sampled[stratum]) < room:
                sampled[stratum].append(row)
            elif random_numbers.randrange(totals[stratum]) < room:
                sampled[stratum][random_numbers.randrange(room)] = row
    return sampled, totals


def calls_of_set(row: dict, store: Store, settings: BuildSettings) -> Iterator[tuple[int, float]]:
    """(prompt tokens, answer tokens) of each call that a literature set will make, repairs aside."""
    if settings.extractive:
        return
    limits, names = settings.limits, row["names"]
    papers = store.papers_by_pmid([pmid for _, pmids in row["topics"] for pmid in pmids])
    by_pmid = {paper.pmid: paper for paper in papers}
    answer = ANSWER_SHARE * limits.answer_tokens
    fixed = prompts.merge(names, [{"text": "", "pmids": ["1"]}], limits.answer_tokens).prompt_tokens
    for method in settings.methods:
        if method == "ais":
            chunks = chunked(papers, limits)[:1]
        else:
            topics = ([by_pmid[pmid] for pmid in pmids] for _, pmids in row["topics"])
            chunks = [chunk for topic in topics for chunk in chunked(topic, limits)]
        for chunk in chunks:
            yield prompts.summarise(names, chunk, limits.answer_tokens).prompt_tokens, answer
        statements = sum(min(12, max(2, len(chunk))) for chunk in chunks)
        if len(chunks) > 1:
            yield fixed + statements * STATEMENT_TOKENS, answer
        yield fixed + min(20, statements) * STATEMENT_TOKENS + 200, answer


def plan_text(planned: dict) -> str:
    sets = f"plan, from {planned['sampled']} of {planned['units']} literature sets ({planned['rnas']} RNAs): "
    if not planned["calls"]:
        return f"{sets}no language model, no calls and no price"
    usd, in_batches, hours = (amount(planned[key]) for key in ("usd", "usd_batch", "hours"))
    return (
        f"{sets}{planned['calls']} calls, {planned['prompt_tokens']} prompt and {planned['answer_tokens']} answer "
        f"tokens, {usd} USD ({in_batches} in batches), {hours} h at 2 million tokens a minute"
    )


def amount(number: float) -> str:
    """A price or a time with two decimals; what would be shown as nothing is not.

    >>> amount(0), amount(0.002), amount(1234.5)
    ('0.00', 'under 0.01', '1,234.50')
    """
    return "under 0.01" if 0 < number < 0.01 else f"{number:,.2f}"
