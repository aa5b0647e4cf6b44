"""Hold a local model's answers to their JSON schema while it decodes: of all next tokens the likeliest that keeps the
answer a beginning of something the schema allows.

    pattern = schema_pattern(schema)                # a regular expression for the whole answer
    FormRows([pattern], limits, prompt_length, stops, texts)   # a logits processor, one pattern per row

The schema fixes the form, not the truth: what the model says is checked like any other answer.
"""

import json
import re
from functools import lru_cache

import regex

PLAIN = r"[^\"\\\x00-\x1f]"  # of a JSON text, without escapes: a small model loses itself in them
# a statement ends with its full stop, a question names its RNA and ends with its mark; else a small model rambles on
FORMS = {
    "text": r"[A-Z](?:[^\"\\.\x00-\x1f]|\.[^\s\"\\])+\.",  # a stop before a space is the end
    "question": r"[A-Z][a-z]+(?: [^\s\"\\?]+){0,6} this RNA(?: [^\s\"\\?]+){1,20}\?",
    "answer": r"[A-Za-z0-9][^\"\\.\x00-\x1f]+\.?",
}
MOST_CITATIONS = 2  # of one statement


def schema_pattern(schema: dict, name: str = "") -> str:
    """A JSON schema of `prompts` -> the regular expression of its values: fields in order, one space, no escapes.
    Texts have their own pattern, or the form that `FORMS` has for their field's `name`; lists of citations at most
    `MOST_CITATIONS`.

    >>> schema_pattern({"type": "object", "properties": {"pmid": {"type": "string", "enum": ["7", "8"]}}})
    '\\\\{"pmid": (?:"7"|"8")\\\\}'
    >>> schema_pattern({"type": "array", "items": {"type": "integer", "enum": [1]}, "minItems": 1, "maxItems": 3})
    '\\\\[(?:1)\\\\]'
    """
    if "enum" in schema:
        return f"(?:{'|'.join(re.escape(json.dumps(value, ensure_ascii=False)) for value in schema['enum'])})"
    if "anyOf" in schema:
        return f"(?:{'|'.join(schema_pattern(part) for part in schema['anyOf'])})"
    if schema["type"] == "object":
        parts = (
            f"{re.escape(json.dumps(key))}: {schema_pattern(part, key)}" for key, part in schema["properties"].items()
        )
        return rf"\{{{', '.join(parts)}\}}"
    if schema["type"] == "array":
        fewest, most = schema.get("minItems", 0), schema["maxItems"]
        choices = schema["items"].get("enum")
        if choices:
            most = min(most, MOST_CITATIONS, len(choices))
        if most == 0:
            return r"\[\]"
        item = schema_pattern(schema["items"])
        more = f"(?:, {item}){{{max(0, fewest - 1)},{most - 1}}}" if most > 1 else ""
        return rf"\[{item}{more}\]" if fewest else rf"\[(?:{item}{more})?\]"
    if schema["type"] == "string":
        return f'"(?:{schema.get("pattern") or FORMS.get(name, PLAIN + "{0,120}")})"'
    raise ValueError(f"schema of a type that is not known here: {schema['type']}")


@lru_cache(256)
def compiled(pattern: str):
    return regex.compile(pattern)


def may_become(pattern: str, text: str) -> bool:
    """True when a text is whole, or can be continued to be.

    >>> may_become("(?:yes|no)!", "ye"), may_become("(?:yes|no)!", "yo")
    (True, False)
    """
    return compiled(pattern).fullmatch(text, partial=True) is not None


def is_whole(pattern: str, text: str) -> bool:
    return compiled(pattern).fullmatch(text) is not None


class FormRows:
    """Logits processor for greedy decoding: leaves each row its likeliest token that keeps the form, no other.

    Args:
        texts: of the vocabulary's tokens, None for those that no answer may have; limits: tokens of each row's answer.
    """

    def __init__(self, patterns: list[str], limits: list[int], prompt_length: int, stops: list[int], texts: list):
        self.patterns, self.limits, self.prompt_length, self.stops, self.texts = (
            patterns,
            limits,
            prompt_length,
            stops,
            texts,
        )
        self.firsts = by_first(texts)
        self.said = [""] * len(patterns)
        self.ended = [False] * len(patterns)

    def __call__(self, input_ids, scores):
        import torch

        length = input_ids.shape[1] - self.prompt_length
        found = torch.full_like(scores, -float("inf"))
        for row in range(len(self.patterns)):
            if length and not self.ended[row]:
                self.said[row] += self.texts[int(input_ids[row, -1])] or ""
            self.ended[row] = (
                self.ended[row] or length >= self.limits[row] or is_whole(self.patterns[row], self.said[row])
            )
            token = self.stops[0] if self.ended[row] else self.best(row, scores[row])
            self.ended[row] = self.ended[row] or token == self.stops[0]
            found[row, token] = 0.0
        return found

    def best(self, row: int, scores) -> int:
        """The likeliest token after which the row's text may still become whole; a stop when there is none."""
        pattern, said = self.patterns[row], self.said[row]
        likeliest = scores.topk(min(20, len(scores))).indices.tolist()
        for token in likeliest:
            if self.texts[token] and may_become(pattern, said + self.texts[token]):
                return token
        # inside what the schema fixes: only tokens with a first character that can follow
        follows = [first for first in self.firsts if may_become(pattern, said + first)]
        possible = [token for first in follows for token in self.firsts[first]]
        if not possible:
            return self.stops[0]
        for place in scores[possible].argsort(descending=True).tolist():
            if may_become(pattern, said + self.texts[possible[place]]):
                return possible[place]
        return self.stops[0]


def by_first(texts: list) -> dict[str, list[int]]:
    """Tokens by the first character of their text."""
    found: dict[str, list[int]] = {}
    for token, text in enumerate(texts):
        if text:
            found.setdefault(text[0], []).append(token)
    return found


def token_texts(tokenizer) -> list[str | None]:
    """The text of each token; None for special ones, parts of a character and control characters."""
    special = set(tokenizer.all_special_ids)
    (zero,) = tokenizer("0", add_special_tokens=False)["input_ids"][-1:]
    texts: list[str | None] = []
    for token in range(len(tokenizer)):
        text = tokenizer.decode([zero, token])[1:]  # behind a 0, so that a leading space is not lost
        usable = token not in special and text and "\ufffd" not in text and all(ord(c) >= 32 for c in text)
        texts.append(text if usable else None)
    return texts
