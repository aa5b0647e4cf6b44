"""Papers of one literature set (an RNA's names and its papers) -> annotations, each sentence with its papers.

divide_and_conquer: each topic is summarised alone, in chunks that fit the token budget; the summaries are merged in a
final round (paper, section 2.2). ais, all in one summary: one call over as many papers as fit.
A statement that fails a check (`checks.problems`) is sent back at most `repairs` times, then left out and counted; an
annotation that is left without statements is quarantined with the reason.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from dataset_builder.literature import checks
from dataset_builder.llm import prompts
from dataset_builder.llm.language_model import LanguageModel
from dataset_builder.llm.prompts import Request
from dataset_builder.storage.records import Paper, cut_at_sentence
from dataset_builder.storage.settings import Limits
from rnagpt_core.endpoint import Refused, estimated_tokens


class Quarantined(Exception):
    """Nothing usable came out of a stage; the message says why."""


class Tally(Counter):
    """What was left out or repaired on the way, counted by reason."""

    def add(self, stage: str, reasons: Sequence[str]) -> None:
        # without the particulars, so that reasons add up: "a number the cited papers do not have: 97%"
        self.update(f"{stage}: {general(reason)}" for reason in reasons)


def general(reason: str) -> str:
    """A reason without its particulars.

    >>> general("a number the cited papers do not have: 97%, 3"), general("only 20% of its words are in the papers")
    ('a number the cited papers do not have', 'too few of its words are in the cited papers')
    """
    if reason.startswith("only ") and "% of its words" in reason:
        return "too few of its words are in the cited papers"
    return reason.split(": ")[0]


async def annotate(
    method: str,
    names: Sequence[str],
    papers: Sequence[Paper],
    topics,
    model: LanguageModel,
    limits: Limits,
    tally: Tally,
) -> dict:
    """-> {"method", "statements": [{"text", "pmids", "topic"}], "faithfulness", "annotation"}.

    Args:
        topics: [(words, PMIDs), ...] for divide_and_conquer.

    Raises:
        Quarantined: no statement passed the checks.
    """
    by_pmid = {paper.pmid: paper for paper in papers}
    if method == "ais":
        found = await summary(names, chunked(papers, limits)[0], model, limits, tally)
        statements = [{**row, "topic": 0} for row in found]
    else:
        jobs = [
            summary_of_topic(number, names, chunk, model, limits, tally)
            for number, (_, pmids) in enumerate(topics)
            for chunk in chunked([by_pmid[pmid] for pmid in pmids], limits)
        ]
        parts = [rows for rows in await asyncio.gather(*jobs) if rows]
        statements = await merged(names, parts, by_pmid, model, limits, tally)
    if not statements:
        raise Quarantined("no statement passed the checks")
    return annotation_of(method, statements, by_pmid, names)


def annotation_of(method: str, statements: list[dict], by_pmid: Mapping[str, Paper], names: Sequence[str]) -> dict:
    """Statements as one annotation, with the mean share of their words that the cited papers have."""
    faithful = [checks.support(row["text"], checks.text_of(by_pmid, row["pmids"]), names) for row in statements]
    return {
        "method": method,
        "annotation": " ".join(row["text"] for row in statements),
        "statements": statements,
        "faithfulness": round(sum(faithful) / len(faithful), 4),
    }


def chunked(papers: Sequence[Paper], limits: Limits) -> list[list[Paper]]:
    """Papers in order, in chunks within the token budget; an abstract that is longer alone is cut at a sentence."""
    chunks: list[list[Paper]] = [[]]
    room = limits.prompt_tokens
    for paper in papers:
        size = estimated_tokens(json.dumps(paper.abstract, ensure_ascii=False) + paper.title) + 24
        if size > limits.prompt_tokens:
            share = limits.prompt_tokens / size * 0.9
            paper = replace(
                paper, abstract=cut_at_sentence(paper.abstract, max(200, int(len(paper.abstract) * share)))
            )
            size = limits.prompt_tokens
        if size > room and chunks[-1]:
            chunks.append([])
            room = limits.prompt_tokens
        chunks[-1].append(paper)
        room -= size
    return chunks


async def summary(names, papers, model, limits, tally) -> list[dict]:
    """One call over these papers -> checked statements."""
    request = prompts.summarise(names, papers, limits.answer_tokens)
    return await checked(request, {paper.pmid: paper for paper in papers}, names, model, limits, tally)


async def summary_of_topic(topic: int, names, papers, model, limits, tally) -> list[dict]:
    """A topic that yields nothing leaves the others: it is counted."""
    try:
        return [{**row, "topic": topic} for row in await summary(names, papers, model, limits, tally)]
    except Quarantined as reason:
        tally.add("summarise", [f"topic left out: {reason}"])
        return []


async def merged(names, parts: list[list[dict]], by_pmid, model, limits, tally) -> list[dict]:
    """Summaries of the topics -> one list, in rounds whose input fits the token budget."""
    while len(parts) > 1:
        rounds, size = [[]], 0
        for part in parts:
            tokens = sum(estimated_tokens(json.dumps(row, ensure_ascii=False)) for row in part)
            if size + tokens > limits.prompt_tokens and len(rounds[-1]) > 1:
                rounds.append([])
                size = 0
            rounds[-1].append(part)
            size += tokens
        done = [merge_round(names, group, by_pmid, model, limits, tally) for group in rounds]
        parts = await asyncio.gather(*done)
    return parts[0] if parts else []


async def merge_round(names, parts: list[list[dict]], by_pmid, model, limits, tally) -> list[dict]:
    rows = [row for part in parts for row in part]
    if len(parts) == 1:
        return rows
    topic_of = {pmid: row["topic"] for row in rows for pmid in row["pmids"]}
    request = prompts.merge(names, rows, limits.answer_tokens)
    cited = {pmid: by_pmid[pmid] for pmid in topic_of}
    try:
        found = await checked(request, cited, names, model, limits, tally)
    except Quarantined:
        tally.add("merge", ["summaries left side by side, no merged statement passed the checks"])
        return rows  # each of them passed
    return [{**row, "topic": topic_of[row["pmids"][0]]} for row in found]


async def checked(
    request: Request, papers: Mapping[str, Paper], names, model: LanguageModel, limits: Limits, tally: Tally
) -> list[dict]:
    """Ask, check, send back at most `limits.repairs` times; the best answer's good statements.

    Raises:
        Quarantined: not one good statement.
    """
    best: list[dict] = []
    best_reasons: list[str] = ["no answer"]
    current = request
    for attempt in range(limits.repairs + 1):
        try:
            answer = await model.answer(current)
        except Refused as error:
            if attempt == 0:
                raise Quarantined(f"{request.stage} refused by the endpoint: {general(str(error))}") from None
            break
        good, reasons = judged(answer.text, papers, names)
        if attempt == 0 or len(good) > len(best):
            best, best_reasons = good, reasons
        if not reasons or len(good) > len(reasons):  # a few bad ones are left out, that is cheaper than asking again
            break
        current = request.repaired(answer.text, reasons)
        if attempt < limits.repairs:
            tally.add("repair", [f"{request.stage} sent back"])
    tally.add(request.stage, best_reasons)
    if not best:
        raise Quarantined(f"{request.stage}: {general(best_reasons[0])}")
    return best


def judged(text: str, papers: Mapping[str, Paper], names) -> tuple[list[dict], list[str]]:
    """An answer -> (good statements, reasons against the others)."""
    rows = parsed(text, "statements")
    if rows is None:
        return [], ["answer that is no JSON of the schema"]
    good, reasons, seen = [], [], set()
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("text"), str) or not isinstance(row.get("pmids"), list):
            reasons.append("statement without text or pmids")
            continue
        pmids = list(dict.fromkeys(str(pmid) for pmid in row["pmids"]))
        for statement in one_or_more(" ".join(row["text"].split())):
            found = checks.problems(statement, pmids, papers, names)
            if checks.squeezed(statement) in seen:
                found.append("the same statement again")
            seen.add(checks.squeezed(statement))
            if found:
                reasons += found[:1]
            else:
                good.append({"text": statement, "pmids": pmids})
    return good, reasons


def one_or_more(text: str) -> list[str]:
    """A statement as it is; one of several sentences, as a small model writes, sentence by sentence, each to be
    checked for itself. A last one that breaks off is among them, for the checks to find.

    >>> one_or_more("It binds PTEN. It falls in glioma and")
    ['It binds PTEN.', 'It falls in glioma and']
    """
    parts = checks.sentences(text)
    whole = [part for part in parts if re.search(r"[.!]['\")\]]?$", part)]
    return [text] if len(parts) <= 1 or len(whole) == len(parts) == 2 else parts


def parsed(text: str, name: str) -> list | None:
    """{"name": [...]} out of an answer, fenced or followed by chatter or not; None when there is none. Of an answer
    that was cut at its limit, the items that are whole.

    >>> parsed('```json\\n{"statements": [1]}\\n```', "statements"), parsed("I cannot.", "statements")
    ([1], None)
    >>> parsed('{"statements": [{"text": "It binds.", "pmids": ["1"]}, {"text": "It fa', "statements")
    [{'text': 'It binds.', 'pmids': ['1']}]
    """
    start = text.find("{")
    if start < 0:
        return None
    decoder = json.JSONDecoder(strict=False)  # a tab or a line break inside a text is no reason to lose it
    try:
        value, _ = decoder.raw_decode(text[start:])
    except (json.JSONDecodeError, RecursionError):
        return whole_items(text[start:], name, decoder) or None
    rows = value.get(name) if isinstance(value, dict) else None
    return rows if isinstance(rows, list) else None


def whole_items(text: str, name: str, decoder: json.JSONDecoder) -> list:
    """The whole items at the beginning of a list that breaks off."""
    opening = re.match(rf'{{\s*"{name}"\s*:\s*\[\s*', text)
    if opening is None:
        return []
    place, items = opening.end(), []
    while True:
        try:
            item, place = decoder.raw_decode(text, place)
        except (json.JSONDecodeError, RecursionError):
            return items
        items.append(item)
        comma = re.compile(r"\s*,\s*").match(text, place)
        if comma is None:
            return items
        place = comma.end()
