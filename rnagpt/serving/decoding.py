"""From logits to text: sampling a token, ending an answer, passing its text on while it grows."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import GenerationMixin, PreTrainedTokenizerBase

MAX_NEW_TOKENS = 256


@dataclass(frozen=True)
class Sampling:
    """How an answer is sampled and where it ends.

    Attributes:
        max_new_tokens: most tokens of the answer; fewer where the LLM's context ends before.
        temperature: 0 takes the likeliest token each time; above 0 the tokens are sampled.
        top_p: sample from the likeliest tokens that together reach this probability.
        seed: for the same sample again; it belongs to this answer, whatever else is answered at the same time.
        stop: texts that end the answer; they are no part of it.
    """

    max_new_tokens: int = MAX_NEW_TOKENS
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


def sample(logits: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """Logits (vocabulary,) -> token id."""
    if sampling.temperature < 1e-3:  # dividing by less would overflow, and the likeliest is taken anyway
        return int(logits.argmax())
    probabilities = torch.softmax(logits.double().cpu() / sampling.temperature, dim=-1)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        # a token stays when those before it do not reach top_p yet; the first always stays
        ordered[ordered.cumsum(0) - ordered >= max(sampling.top_p, 1e-9)] = 0
        probabilities = torch.zeros_like(probabilities).scatter(0, order, ordered)
    return int(torch.multinomial(probabilities, 1, generator=generator))


class AnswerStream:
    """Decodes an answer while its tokens are sampled, and passes on each new piece of text.

    The whole answer is decoded at each step: pieces decoded on their own lose spaces and cut characters in half. White
    space at either end of the answer is left out; a piece that may still change, or turn out to begin a stop text, is
    held back.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        stream_to: Callable[[str], None] | None = None,
        stop: tuple[str, ...] = (),
    ):
        self.tokenizer, self.stream_to, self.stop = tokenizer, stream_to, stop
        self.ids: list[int] = []
        self.text = ""  # what was passed on
        self.stopped = False  # whether a stop text came

    def add(self, token_id: int) -> None:
        """Take the next token of the answer."""
        self.ids.append(token_id)
        # the last character may be half of one, which decodes as U+FFFD
        text = self._decoded().rstrip("\ufffd").rstrip()
        self._pass_on(text if self.stopped else text[: len(text) - beginning_at_end(text, self.stop)].rstrip())

    def end(self) -> None:
        """Pass on what was held back."""
        self._pass_on(self._decoded())

    def _decoded(self) -> str:
        text = self.tokenizer.decode(self.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()
        found = [place for place in (text.find(stop) for stop in self.stop) if place >= 0]
        self.stopped = bool(found)
        return text[: min(found)].rstrip() if found else text

    def _pass_on(self, text: str) -> None:
        piece = text[len(self.text) :]
        if piece:
            self.text += piece
            if self.stream_to is not None:
                self.stream_to(piece)


def beginning_at_end(text: str, stops: tuple[str, ...]) -> int:
    """Length of the longest end of `text` that is the beginning of a stop text.

    >>> beginning_at_end("yes ##", ("###", "Human:"))
    2
    """
    lengths = range(min(max(map(len, stops), default=0), len(text)), 0, -1)
    return next((n for n in lengths if any(stop.startswith(text[-n:]) for stop in stops)), 0)


def stop_token_ids(model: GenerationMixin, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that end an answer: those the LLM's generation settings name, and its tokenizer's."""
    named = model.generation_config.eos_token_id
    named = [] if named is None else [named] if isinstance(named, int) else list(named)
    return list(dict.fromkeys([*named, tokenizer.eos_token_id]))
