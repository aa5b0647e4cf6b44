"""Answers many conversations at once; the terminal, the batch file, the web page and the server all stand on it.

    engine = Engine(model, processor)
    answer = engine.prepare([{"role": "user", "content": [{"type": "rna", "rna": "ACGU"}, {"type": "text", ...}]}])
    engine.run([answer])
    answer.text

Each `step` makes one token of every answer under way. New ones join between two steps (continuous batching), and what
a prompt has in common with an earlier one, the RNA above all, is taken from the keys and values kept then.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import torch
from transformers import DynamicCache, GenerationMixin, RepetitionPenaltyLogitsProcessor

from modeling_rnagpt.own_rules_rnagpt import masks_by_kind
from processing_rnagpt import RnaGptProcessor, RnaInput
from rnagpt.checking.answering import exact_together
from rnagpt.serving.decoding import AnswerStream, Sampling, sample, stop_token_ids
from rnagpt.serving.key_values import KeyValues, PrefixCache, stacked
from rnagpt.serving.rna_reading import check_lengths
from rnagpt_core.errors import UserError
from rnagpt_core.sequences import Record

MAX_ANSWERS = 16  # decoded together
MAX_PREFILL = 4096  # tokens of prompts computed together, padding included
CACHED_BYTES = 1 << 30
UNBOUNDED = 1 << 20  # context of an LLM that names none (Mamba's state has no end)
RNA_SHARE = 4  # encoder outputs may take a quarter of that on top: they are smaller than an RNA's keys and values


@dataclass(eq=False)
class Answer:
    """One question being answered.

    Attributes:
        prompt_ids: tokens of the rendered conversation; cached_tokens of them were not computed again.
        token_ids, logprobs: the answer's tokens so far, the stop token included, and the model's log-probability
            (nats, at temperature 1) of each.
        plain_logprobs: the same tokens' log-probabilities without the RNAs; with `confidence`, once it is finished.
        finish_reason: None while under way; "stop" (its own end or a stop text), "length", "cancelled", "timeout", or
            "error", with `error`.
    """

    sampling: Sampling
    stream: AnswerStream
    prompt_ids: list[int]
    prefix_key: np.ndarray
    rnas: list[RnaInput]
    plain_ids: list[int] | None
    room: int
    deadline: float | None
    when_done: Callable[["Answer"], None] | None
    generator: torch.Generator = field(init=False)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    plain_logprobs: list[float] | None = None
    cached_tokens: int = 0
    finish_reason: str | None = None
    error: BaseException | None = None

    def __post_init__(self):
        self.generator, seed = torch.Generator(), self.sampling.seed
        self.generator.seed() if seed is None else self.generator.manual_seed(seed)

    @property
    def text(self) -> str:
        """The answer as far as it was passed on."""
        return self.stream.text

    def cancel(self) -> None:
        """End it at the next step; may be called from any thread."""
        if self.finish_reason is None:
            self.finish_reason = "cancelled"


class Engine:
    """The model, and the answers it is giving. One thread runs it; `prepare` and `Answer.cancel` suit any thread.

    Args:
        model, processor: as `rnagpt.checkpoints.checkpoint.load` gives them.
        max_answers: most answers decoded together; further ones wait.
        cached_bytes: memory for keys and values kept between turns, and a quarter of it for encoder outputs; 0
            computes everything anew.
    """

    def __init__(
        self,
        model: GenerationMixin,
        processor: RnaGptProcessor,
        max_answers: int = MAX_ANSWERS,
        cached_bytes: int = CACHED_BYTES,
    ):
        self.model, self.processor, self.max_answers = model, processor, max_answers
        self.prefixes = PrefixCache(cached_bytes)
        self.together: bool | None = None  # whether answers are computed together; found out at the first step
        self.rnas: OrderedDict[str, RnaInput] = OrderedDict()  # by sequence, read and encoded; last used last
        self.rna_bytes = 0
        self.waiting: deque[Answer] = deque()
        self.active: list[Answer] = []
        self.held: KeyValues | None = None  # of the active answers, row by row
        self._processor_lock = threading.Lock()  # a fast tokenizer is used by one thread at a time
        self._encoder_lock = threading.Lock()

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer."""
        text = self.model.config.text_config
        named = (getattr(text, name, None) for name in ("max_position_embeddings", "max_seq_len", "seq_length"))
        return next((length for length in named if length), UNBOUNDED)

    # --- taking a question

    def prepare(
        self,
        messages: Sequence[dict],
        sampling: Sampling | None = None,
        stream_to: Callable[[str], None] | None = None,
        confidence: bool = False,
        deadline: float | None = None,
        when_done: Callable[[Answer], None] | None = None,
    ) -> Answer:
        """Read and encode a conversation's RNAs, render it once and tokenise it. Whatever its texts hold is text,
        control tokens too.

        Args:
            messages: {"role", "content"}, the content a string or parts {"type": "rna", "rna"}, {"type": "text",
                "text"}; the last is the question.
            stream_to: called with each new piece of the answer, by the thread that runs the engine.
            confidence: compute the likelihood of the answer without the RNAs, too.
            deadline: of `time.monotonic`, when to give up.
            when_done: called once with the finished answer, by the thread that runs the engine.

        Raises:
            UserError: an RNA cannot be read, or the prompt fills the LLM's context.
        """
        sampling = sampling or Sampling()
        sequences = rnas_of(messages)
        # a genome is not tokenised only to say that it is too long
        named = [Record(f"rna{number}", "", rna) for number, rna in enumerate(sequences, start=1)]
        check_lengths(named, self.processor, self.context)
        rnas = self.encode(sequences)
        ids = self.token_ids(messages, dict(zip(sequences, rnas, strict=True)))
        plain_ids = self.token_ids(messages, {}) if confidence and rnas else None
        room = self.context - len(ids)
        if room < 1:
            raise UserError(
                f"the RNA and the conversation are {len(ids):,} tokens, and this model's context of {self.context:,} "
                "leaves no room for an answer: begin a new conversation, or give a shorter RNA or question"
            )
        return Answer(
            sampling,
            AnswerStream(self.processor.tokenizer, stream_to, sampling.stop),
            ids,
            self.prefix_key(ids, sequences, rnas),
            rnas,
            plain_ids,
            min(sampling.max_new_tokens, room),
            deadline,
            when_done,
        )

    def token_ids(self, messages: Sequence[dict], rnas: dict[str, RnaInput]) -> list[int]:
        """Tokens of a conversation about these RNAs, by sequence, or without any; the assistant's turn opened."""
        with self._processor_lock:
            batch = self.processor(well_formed(messages, rnas), sanitize_control_tokens=True)
        return batch["input_ids"][0].tolist()

    @torch.inference_mode()
    def encode(self, sequences: list[str]) -> list[RnaInput]:
        """RNAs with their features, each read and encoded once for all the questions about it."""
        with self._encoder_lock:
            try:
                rnas = self.processor.rna_inputs([self.rnas.get(sequence, sequence) for sequence in sequences])
            except ValueError as error:  # the processor's word for an RNA that it cannot read
                raise UserError(str(error)) from None
            for sequence, rna in zip(sequences, rnas, strict=True):
                if rna.features is None:
                    batch = self.processor.rna_batch([[rna]])
                    inputs = {name: tensor.to(self.model.device) for name, tensor in batch.items()}
                    rna.features = self.model.model.encode_rna(**inputs)[0]
                    self.rna_bytes += rna.features.nbytes
                self.rnas[sequence] = rna
                self.rnas.move_to_end(sequence)
            while self.rna_bytes > self.prefixes.max_bytes // RNA_SHARE and len(self.rnas) > 1:
                self.rna_bytes -= self.rnas.popitem(last=False)[1].features.nbytes
            return rnas

    def prefix_key(self, ids: list[int], sequences: list[str], rnas: list[RnaInput]) -> np.ndarray:
        """The prompt's tokens, each placeholder replaced by a negative number that stands for its RNA: two prompts
        about different RNAs have the same tokens, and must not share their keys and values."""
        key = np.array(ids, dtype=np.int64)
        numbers = [-1 - int.from_bytes(blake2b(rna.encode(), digest_size=7).digest()) for rna in sequences]
        soft_tokens = [rna.soft_tokens for rna in rnas]
        key[key == self.processor.rna_token_id] = np.repeat(np.array(numbers, dtype=np.int64), soft_tokens)
        return key

    # --- answering

    def start(self, answer: Answer) -> None:
        """Answer it from the next step on, or when there is room."""
        self.waiting.append(answer)

    def run(self, answers: Iterable[Answer]) -> None:
        """Answer all of these. When anything is raised, all that is under way is given up."""
        for answer in answers:
            self.start(answer)
        try:
            while self.busy:
                self.step()
        except BaseException:
            self.give_up()
            raise

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do."""
        return bool(self.waiting or self.active)

    def give_up(self, error: BaseException | None = None) -> list[Answer]:
        """Forget what is under way or waiting; returns those answers, marked as cancelled or by the error."""
        given_up = [*self.active, *self.waiting]
        self.active, self.held = [], None
        self.waiting.clear()
        for answer in given_up:
            answer.finish_reason, answer.error = ("error", error) if error else ("cancelled", None)
        return given_up

    @torch.inference_mode()
    def step(self) -> None:
        """Take in waiting answers, then make one token of each."""
        if self.together is None:
            self.together = True
            if not exact_together(self.model.config.text_config):
                self.answer_alone()
        now = time.monotonic()
        for answer in [*self.active, *self.waiting]:
            if answer.finish_reason is None and answer.deadline is not None and now > answer.deadline:
                answer.finish_reason = "timeout"
        self.drop_finished()
        if self.active:
            self.decode()
        self.drop_finished()
        joining = self.next_waiting()
        if joining:
            self.prefill(joining)
            self.drop_finished()

    def next_waiting(self) -> list[Answer]:
        """Waiting answers that there is room for, at most MAX_PREFILL tokens together (one always fits)."""
        joining: list[Answer] = []
        while self.waiting and len(self.active) + len(joining) < self.max_answers:
            longest = max(len(answer.prompt_ids) for answer in [*joining, self.waiting[0]])
            if joining and longest * (len(joining) + 1) > MAX_PREFILL:
                break
            joining.append(self.waiting.popleft())
        return joining

    def prefill(self, answers: list[Answer]) -> None:
        """Compute the prompts, from where they leave what is kept, and sample each answer's first token."""
        self.active += answers  # first, so that `give_up` knows them whatever happens below
        # Rows of different lengths in one pass: what is kept of each stands right-aligned, its new tokens after it,
        # padded on the left. Gaps fall between the two; the mask hides them, and positions do not count them.
        pasts = []
        for answer in answers:
            length, layers = self.prefixes.longest(answer.prefix_key)
            answer.cached_tokens = length = self.usable_prefix(answer, length)
            pasts.append([(keys[:, :, :length], values[:, :, :length]) for keys, values in layers if length])
        held = stacked([KeyValues.of(past, self.model.device) for past in pasts])
        if not self.together:
            held.cache = DynamicCache(config=self.model.config.text_config)
        fresh = [answer.prompt_ids[answer.cached_tokens :] for answer in answers]
        width = max(map(len, fresh))
        ids = torch.zeros(len(answers), width, dtype=torch.long)
        positions = torch.zeros_like(ids)
        mask = torch.zeros(len(answers), width, dtype=torch.bool)
        for i, (answer, tokens) in enumerate(zip(answers, fresh, strict=True)):
            ids[i, width - len(tokens) :] = torch.tensor(tokens)
            positions[i, width - len(tokens) :] = torch.arange(answer.cached_tokens, len(answer.prompt_ids))
            mask[i, width - len(tokens) :] = True
        # the padding must not look like a placeholder
        ids.masked_fill_(~mask, 1 if self.processor.rna_token_id == 0 else 0)
        logits, held = self.forward(held, ids, positions, mask, self.rna_inputs(answers))
        self.held = held if self.held is None else stacked([self.held, held])
        self.take_tokens(answers, logits)

    def usable_prefix(self, answer: Answer, length: int) -> int:
        """How much of a kept prefix serves: the last token is computed, and no RNA is cut in two.

        A negative key at `length` that equals the one before it is the inside of an RNA.
        """
        key = answer.prefix_key
        length = min(length, len(key) - 1)
        while length and key[length] < 0 and key[length] == key[length - 1]:
            length -= 1
        return length

    def rna_inputs(self, answers: list[Answer]) -> dict[str, torch.Tensor]:
        """Features of the RNAs whose placeholders are computed now, as the model takes them."""
        rows = []
        for answer in answers:
            placeholders = int((answer.prefix_key[answer.cached_tokens :] < 0).sum())
            row: list[RnaInput] = []
            for rna in reversed(answer.rnas):  # those whose keys are kept come first
                if sum(one.soft_tokens for one in row) < placeholders:
                    row.insert(0, rna)
            rows.append(row)
        return self.processor.rna_batch(rows)

    def decode(self) -> None:
        """One more token of each active answer."""
        ids = torch.tensor([[answer.token_ids[-1]] for answer in self.active])
        positions = torch.tensor([[len(answer.prompt_ids) + len(answer.token_ids) - 1] for answer in self.active])
        logits, self.held = self.forward(self.held, ids, positions, torch.ones_like(ids, dtype=torch.bool), {})
        self.take_tokens(self.active, logits)

    def forward(
        self, held: KeyValues, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor, rna_inputs: dict
    ) -> tuple[torch.Tensor, KeyValues]:
        """Logits (rows, vocabulary) after the last of `ids` (rows, new), and `held` grown by them."""
        device = self.model.device
        held.mask = torch.cat([held.mask, mask.to(device)], dim=1)
        positions = positions.to(device)
        output = self.model(
            input_ids=ids.to(device),
            attention_mask=self.attention_mask(held.mask, positions),
            position_ids=positions,
            past_key_values=held.cache,
            use_cache=True,
            logits_to_keep=1,
            **rna_inputs,
        )
        return output.logits[:, -1].float(), held

    def attention_mask(self, mask: torch.Tensor, positions: torch.Tensor):
        """What the model takes for rows with gaps, (rows, columns) bool: the same as integers; nothing for a row
        alone, which has none; and where layers see a window, masks that count it in positions, without the gaps."""
        if not self.together:
            return None
        text = self.model.config.text_config
        if getattr(text, "sliding_window", None) is None and len(set(getattr(text, "layer_types", None) or [])) < 2:
            return mask.long()
        keys = mask.long().cumsum(dim=1) - 1  # (rows, columns)
        seen = mask[:, None, None, :] & (keys[:, None, None, :] <= positions[:, None, :, None])
        dtype = self.model.dtype
        dense = torch.zeros(seen.shape, dtype=dtype, device=mask.device).masked_fill(~seen, torch.finfo(dtype).min)
        return masks_by_kind(text, dense, positions, keys)

    def answer_alone(self) -> None:
        """From now on one answer at a time, with the family's own cache and nothing kept between turns."""
        self.together, self.max_answers, self.prefixes = False, 1, PrefixCache(0)

    def take_tokens(self, answers: list[Answer], logits: torch.Tensor) -> None:
        """Sample a token of each answer, pass its text on, and see which end."""
        logprobs = torch.log_softmax(logits, dim=-1)
        # where the vocabulary has the placeholder it can be sampled, and would stand for an RNA that is not there
        logits[:, self.processor.rna_token_id : self.processor.rna_token_id + 1] = -torch.inf
        penalty = self.model.generation_config.repetition_penalty
        ends = stop_token_ids(self.model, self.processor.tokenizer)
        for i, answer in enumerate(answers):
            row = logits[i]
            if penalty not in (None, 1.0):  # some LLMs' own settings ask for it
                seen = torch.tensor([answer.prompt_ids + answer.token_ids], device=row.device)
                seen = seen[:, (seen[0] < len(row)).nonzero()[:, 0]]  # placeholders may lie beyond the vocabulary
                row = RepetitionPenaltyLogitsProcessor(penalty)(seen, row[None].clone())[0]
            token = sample(row, answer.sampling, answer.generator)
            answer.token_ids.append(token)
            answer.logprobs.append(float(logprobs[i, token]))
            answer.stream.add(token)
            if answer.finish_reason is not None:
                continue
            if token in ends or answer.stream.stopped:
                answer.finish_reason = "stop"
            elif len(answer.token_ids) >= answer.room:
                answer.finish_reason = "length"

    def drop_finished(self) -> None:
        """Take finished answers out of the batch, keep their keys and values, and tell whoever waits for them."""
        gone = [answer for answer in self.waiting if answer.finish_reason is not None]
        for answer in gone:
            self.waiting.remove(answer)
        staying = [i for i, answer in enumerate(self.active) if answer.finish_reason is None]
        if len(staying) < len(self.active):
            for i, answer in enumerate(self.active):
                if answer.finish_reason is not None:
                    if self.prefixes.max_bytes:
                        # the last token sampled was not computed yet
                        self.prefixes.put(np.append(answer.prefix_key, answer.token_ids[:-1]), self.held.row(i))
                    gone.append(answer)
            self.active = [self.active[i] for i in staying]
            self.held = self.held.keep(staying) if staying else None
        for answer in gone:
            answer.stream.end()
            if answer.plain_ids is not None and answer.finish_reason in ("stop", "length"):
                answer.plain_logprobs = self.likelihood(answer.plain_ids, answer.token_ids)
            if answer.when_done is not None:
                answer.when_done(answer)

    @torch.inference_mode()
    def likelihood(self, prompt_ids: list[int], answer_ids: list[int]) -> list[float]:
        """Log-probability (nats) of each token of an answer after a prompt without RNA."""
        ids = torch.tensor([prompt_ids + answer_ids], device=self.model.device)[:, -self.context :]
        logits = self.model(input_ids=ids, logits_to_keep=len(answer_ids) + 1).logits[0, :-1].float()
        answer = torch.tensor(answer_ids, device=logits.device)
        return torch.log_softmax(logits, dim=-1).gather(1, answer[:, None])[:, 0].tolist()


def rnas_of(messages: Sequence[dict]) -> list[str]:
    """The sequences of a conversation's RNA parts, in order."""
    parts = [part for message in messages if not isinstance(message["content"], str) for part in message["content"]]
    return [part["rna"] for part in parts if part["type"] == "rna"]


def well_formed(messages: Sequence[dict], rnas: dict[str, RnaInput]) -> list[dict]:
    """The same messages with the RNAs that were read, or without any where there are none, and without what cannot be
    rendered.

    Halves of characters are replaced. A message that is empty (an answer that ended at once, an RNA alone without its
    RNA) becomes a space: transformers' sanitised rendering hands templates a list in the place of an empty text.
    """

    def whole(text: str) -> str:
        return text.encode("utf-8", "replace").decode()

    def content(given):
        if isinstance(given, str):
            return whole(given) or " "
        parts = [
            {"type": "rna", "rna": rnas[part["rna"]]}
            if part["type"] == "rna"
            else {"type": "text", "text": whole(part["text"])}
            for part in given
            if part["type"] == "text" or rnas
        ]
        return parts if any(part["type"] == "rna" or part["text"] for part in parts) else " "

    return [{**message, "content": content(message["content"])} for message in messages]
