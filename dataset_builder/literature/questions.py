"""An annotation -> 5 to 14 questions with answers, open and closed, each resting on papers that support it.

The RNA is called "this RNA": its names are replaced where they stand, and what still names it is marked
(`names_the_rna`), so that it can be dropped. A closed question's options are put in an order that tells nothing; where
a yes-or-no question turns on a direction (up or down), half of them are asked the other way round.
"""

import hashlib
import random
import re
from collections.abc import Mapping, Sequence

from dataset_builder.literature import checks
from dataset_builder.literature.annotation import Quarantined, Tally, general, parsed
from dataset_builder.llm import prompts
from dataset_builder.llm.language_model import LanguageModel
from dataset_builder.storage.records import Paper
from dataset_builder.storage.settings import Limits
from rnagpt_core.endpoint import Refused

FEWEST, MOST = 5, 14
FLIPS = dict(
    pair.split("/")
    for pair in (
        "up-regulated/down-regulated upregulated/downregulated overexpressed/underexpressed increased/decreased "
        "increase/decrease increases/decreases higher/lower elevated/reduced promote/inhibit promotes/inhibits "
        "activate/repress activates/represses enhance/reduce enhances/reduces"
    ).split()
)
FLIPS |= {there: here for here, there in FLIPS.items()}
YES_OR_NO = re.compile(
    r"(?:(?:In|For|Among|Within|During|With|Under|According) [^?]*, )?"
    r"(?:is|are|was|were|do|does|did|has|have|had|can|could|may|might|will|would|should)\b",
    re.I,
)
# what a study set out to find, or did not: no ground for a yes
UNSETTLED = re.compile(
    r"\b(?:unknown|unclear|(?:not|poorly|little|to be) (?:\w+ )?(?:known|clear|understood|elucidated|established)|"
    r"(?:aim|purpose|objective)s? (?:of|was|were|is)|(?:aimed|sought|investigated whether)\b)",
    re.I,
)


async def ask(
    statements: Sequence[dict],
    names: Sequence[str],
    papers: Mapping[str, Paper],
    model: LanguageModel,
    limits: Limits,
    tally: Tally,
) -> list[dict]:
    """-> [{"question", "answer", "kind", "options", "evidence_pmids", "names_the_rna"}], 5 to 14.

    Raises:
        Quarantined: fewer than five questions passed, after the repairs.
    """
    statements = [{**row, "text": unnamed(row["text"], names)} for row in list(statements)[:30]]
    wanted = min(MOST, max(FEWEST + 1, 2 * len(statements)))
    request = current = prompts.ask(statements, wanted, limits.answer_tokens)
    good: list[dict] = []
    reasons: list[str] = []
    for attempt in range(limits.repairs + 1):
        try:
            answer = await model.answer(current)
        except Refused as error:
            reasons = [f"refused by the endpoint: {general(str(error))}"]
            break
        found, reasons = judged(answer.text, statements, names, papers, good)
        good += found  # what passed stays; a repair can only add
        tally.add("ask", reasons)
        if len(good) >= FEWEST:
            break
        if attempt < limits.repairs:
            tally.add("repair", ["ask sent back"])
            have = [f"kept so far, do not repeat: {row['question']}" for row in good]
            missing = [f"{FEWEST - len(good)} more questions are needed"]
            current = request.repaired(answer.text, missing + reasons + have)
    if len(good) < FEWEST:
        why = f", the last for: {general(reasons[0])}" if reasons else ""
        raise Quarantined(f"fewer than {FEWEST} questions passed the checks{why}")
    return good[:MOST]


def judged(text, statements, names, papers, before: Sequence[dict] = ()) -> tuple[list[dict], list[str]]:
    """An answer -> (good questions, reasons against the others)."""
    rows = parsed(text, "questions")
    if rows is None:
        return [], ["answer that is no JSON of the schema"]
    good: list[dict] = []
    reasons = []
    for row in rows:
        try:
            found = judged_one(row, statements, names, papers)
        except ValueError as reason:
            reasons.append(str(reason))
            continue
        if any(alike(found["question"], other["question"]) for other in [*before, *good]):
            reasons.append("the same question again")
        else:
            good.append(found)
    return good, reasons


def judged_one(row, statements: Sequence[dict], names: Sequence[str], papers: Mapping[str, Paper]) -> dict:
    """One question, put into its published form.

    Raises:
        ValueError: why it cannot be used.
    """
    places, options = shape(row, len(statements))
    used = [statements[n - 1] for n in places]
    pmids = list(dict.fromkeys(pmid for statement in used for pmid in statement["pmids"]))
    own = {"this RNA", *names}
    question, answer, *options = (
        unnamed(" ".join(text.split()), names) for text in (row["question"], row["answer"], *options)
    )
    check_texts(question, answer, options, own)
    claims = " ".join(statement["text"] for statement in used)
    source = f"{claims} {checks.text_of(papers, pmids)}"
    claim = question
    if row["kind"] == "closed":
        question, answer, options, claim = closed(question, answer, options, claims, source, own)
    elif row["kind"] == "open":
        options = []
        check_open(question, answer, claims, source, own)
    else:
        raise ValueError("a kind other than open and closed")
    require(claim, source, own, 0.5)
    return published(question, answer, row["kind"], options, pmids, names)


def published(question: str, answer: str, kind: str, options: list[str], pmids: list[str], names) -> dict:
    """A question as it stands in `qa`, beside its RNA."""
    return {
        "question": question,
        "answer": answer,
        "kind": kind,
        "options": options,
        "evidence_pmids": pmids,
        "names_the_rna": any(names_it(part, names) for part in (question, answer, *options)),
    }


def shape(row, statements: int) -> tuple[list[int], list[str]]:
    """-> the different numbers, from 1, of the `statements` that a question rests on, and its options. ValueError for
    a row that has not the form of a question."""
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("question", "answer", "kind")):
        raise ValueError("question without text, answer or kind")
    places = row.get("statements")
    if not isinstance(places, list) or not places or not all(type(n) is int for n in places):
        raise ValueError("question without the statements it rests on")
    if not all(1 <= n <= statements for n in places):
        raise ValueError("question on a statement that does not exist")
    options = row.get("options") or []
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise ValueError("options that are no list of texts")
    return list(dict.fromkeys(places)), options


def check_texts(question: str, answer: str, options: list[str], own: set[str]) -> None:
    """ValueError for texts that are no question about this RNA and its answer, whatever the papers say."""
    if not question.endswith("?") or not 3 <= len(question.split()) <= 45:
        raise ValueError("not a question of 3 to 45 words")
    if "this rna" not in question.lower():
        raise ValueError("a question that does not ask about this RNA")
    if not checks.content_words(question) - {checks.stem(checks.squeezed(name)) for name in own}:
        raise ValueError("a question without anything to ask about")
    if not 1 <= len(answer.split()) <= 60:
        raise ValueError("not an answer of 1 to 60 words")
    if any(checks.STEERING.search(part) or checks.IDENTIFIER.search(part) for part in (question, answer, *options)):
        raise ValueError("text that addresses a reader or a model, or an identifier")


def check_open(question: str, answer: str, claims: str, source: str, own: set[str]) -> None:
    """ValueError for an open question whose answer the annotation does not give."""
    if answer.lower().strip(" .") in ("yes", "no"):
        raise ValueError("an open question answered by yes or no")
    if checks.content_words(answer) <= checks.content_words(question):
        raise ValueError("the question gives the answer away")
    require(answer, source, own, 0.6)
    if not checks.content_words(question + " " + answer) & checks.content_words(claims):
        raise ValueError("not answerable from the annotation")


def closed(question, answer, options, claims, source, own) -> tuple[str, str, list[str], str]:
    """A closed question's checks -> its balanced form, and what the papers must say for it (the question, or where
    the answer is no, the question turned round)."""
    bare = answer.lower().strip(" .")
    if bare in ("yes", "no"):
        if not YES_OR_NO.match(question):
            raise ValueError("a yes or no to a question that asks for something else")
        if any(option.lower().strip(" .") not in ("yes", "no") for option in options):
            raise ValueError("options other than yes and no for a yes-or-no question")
        turned = flipped(question)
        if bare == "no":
            # a no is only taken where the annotation shows the contrary: the same question in the other direction
            if turned is None or checks.unsupported(turned, claims, own, 0.6) or in_direction(question, claims):
                raise ValueError("a no that the annotation does not show")
        elif checks.unsupported(question, claims, own, 0.8) or UNSETTLED.search(claims):
            raise ValueError("a yes that the annotation does not show")
        # half of the questions on a direction are asked the other way round, by their own digest
        elif turned and not in_direction(turned, claims) and digest(question) % 2:
            return turned, "No", ["Yes", "No"], question
        return question, bare.capitalize(), ["Yes", "No"], turned if bare == "no" else question
    if not 2 <= len(options) <= 5 or len({option.lower() for option in options}) != len(options):
        raise ValueError("not 2 to 5 different options")
    match = [option for option in options if option.lower().strip(" .") == bare]
    if len(match) != 1:
        raise ValueError("an answer that is not among the options")
    require(match[0], source, own, 0.6)
    options = sorted(options)
    random.Random(digest(question + match[0])).shuffle(options)
    return question, match[0], options, question


def require(text: str, source: str, own, threshold: float) -> None:
    found = checks.unsupported(text, source, own, threshold)
    if found:
        raise ValueError(found[0])


def digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def flipped(question: str) -> str | None:
    """The question with its one direction word turned; None when it has none or several.

    >>> flipped("Is this RNA up-regulated in liver cancer?")
    'Is this RNA down-regulated in liver cancer?'
    """
    words = re.findall(r"[\w-]+", question)
    turning = [word for word in words if word.lower() in FLIPS]
    if len(turning) != 1:
        return None
    return re.sub(rf"(?<![\w-]){re.escape(turning[0])}(?![\w-])", FLIPS[turning[0].lower()], question)


def in_direction(question: str, claims: str) -> bool:
    """True when the claims have the direction that the question asks about."""
    return any(
        re.search(pattern, question, re.I) and re.search(pattern, claims, re.I)
        for pattern in checks.DIRECTIONS.values()
    )


def unnamed(text: str, names: Sequence[str]) -> str:
    """Text with the RNA's own names replaced.

    >>> unnamed("What does MiR-21 target?", ["mir-21"]), unnamed("Is miR-216a cut?", ["mir-21"])
    ('What does this RNA target?', 'Is miR-216a cut?')
    """
    text = re.sub(r"\b(?:the|said) RNA\b(?! (?:poly|bind|seq|level|interf))", "this RNA", text)
    text = re.sub(r"^(?:The|Said) RNA\b", "This RNA", text)
    for pattern in name_patterns(names):
        text = re.sub(pattern, "this RNA", text, flags=re.I)
    text = re.sub(r"\b(this RNA)(?:\s*[,/(]\s*this RNA\)?)+", r"\1", text)
    return text[:1].upper() + text[1:] if text.startswith("this RNA") else text


def name_patterns(names: Sequence[str]) -> list[str]:
    """A name as people write it: with any hyphen or none, with or without its species prefix; the longest first."""
    patterns = []
    for name in sorted({name for name in names if len(name) >= 3}, key=lambda name: (-len(name), name)):
        bare = re.sub(r"^[a-z]{3}-(?=(?:mir|let|miR)-)", "", name)
        parts = [re.escape(part) for part in re.split(r"[-–\s_]+", bare) if part]
        joined = r"[-–\s]?".join(parts)
        if re.match(r"mir\b", bare, re.I):
            joined = re.sub(r"^mir", "(?:mir|microrna|mirna)", joined, flags=re.I)
        patterns.append(rf"(?<![\w-])(?:the )?(?:[a-z]{{3}}-)?{joined}(?![\w]|-\d)")
    return patterns


def names_it(text: str, names: Sequence[str]) -> bool:
    """True when a text still holds a name of the RNA, or a longer one made with it (miR-21-5p for miR-21)."""
    whole = text.lower()
    for name in names:
        bare = re.sub(r"^[a-z]{3}-(?=(?:mir|let)-)", "", name.lower())
        if len(bare) >= 4 and re.search(rf"(?<![\w]){re.escape(bare)}(?!\d)", whole):
            return True
    return False


def alike(one: str, other: str) -> bool:
    """True for questions with the same content words, or nearly.

    >>> alike("Which gene does this RNA target?", "Which genes does this RNA target?")
    True
    """
    a, b = (checks.content_words(text) for text in (one, other))
    return a == b or (len(a | b) > 3 and len(a & b) / len(a | b) > 0.8)
