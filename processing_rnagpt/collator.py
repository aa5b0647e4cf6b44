"""The training collator: question-answer pairs of RNAs -> one batch, the RNA's prefix stored once.

    [RNA prefix][question 1, answer 1][question 2, answer 2]...      one sequence per RNA (share_prefix=True)
    [RNA prefix][question 1, answer 1] / [RNA prefix][question 2, answer 2]   the naive form, for comparison

With a shared prefix a block mask lets each pair see the prefix and itself, and positions restart after the prefix, so
losses and gradients equal those of separate sequences while L + n*q tokens are computed instead of n * (L + q).

    [RNA 1 ...][RNA 2 ...] / [RNA 3 ...][RNA 4 ...]     packed: several sequences per row, hardly any padding

Packed sequences do not see each other either. A row is kept short, because the mask is dense: its cost grows with the
square of the row, while padding costs in proportion.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from .processing_rnagpt import RnaGptProcessor
from .rna_sequences import RnaInput

IGNORED = -100


@dataclass
class EncodedPair:
    """One conversation as token ids, and where its answers stand: [start, end) of each."""

    input_ids: list[int]
    answers: list[tuple[int, int]]


@dataclass
class SharedPrefixCollator:
    """Collates rows {"rna_id", "sequence", "pairs": [{"question", "answer"}, ...]} for the SFT trainer.

    A pair may instead be a conversation of several turns, {"turns": [{"question", "answer"}, ...]}; all its answers
    are learned. A row without a sequence is text alone.

    Args:
        processor: renders the chat and expands `<RNAHere>`.
        features: rna_id -> encoder output (slots, hidden) as `RnaGptModel.encode_rna` gave it; without it the batch
            carries `rna_input_ids`, and the model runs its encoder.
        share_prefix: one sequence per RNA (True) or one per pair (False).
        pack: put several sequences into one row, about twice as long as the batch's longest sequence.
        chat_template: name or text of the template; the processor's default when None.
        with_ids: add "rna_ids", the list of the rows' ids, for a trainer that names the rows of a failed batch.
    """

    processor: RnaGptProcessor
    features: Mapping[str, torch.Tensor] | None = None
    share_prefix: bool = True
    pack: bool = False
    chat_template: str | None = None
    with_ids: bool = False

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """-> input_ids, position_ids, labels (batch, seq) int64; loss_weights (batch, seq) float32, which sum to the
        number of pairs; attention_mask, see `batch_of`; RNA inputs (batch, RNAs, ...)."""
        sequences, rnas = [], []
        for row in rows:
            of_row, rna = self.lay_out_row(row)
            sequences += of_row
            rnas += [[] if rna is None else [rna]] * len(of_row)
            if rna is not None and self.features is not None:
                rna.features = self.features[row["rna_id"]]
        lengths = [len(sequence["input_ids"]) for sequence in sequences]
        bins = fill_rows(lengths) if self.pack else [[i] for i in range(len(sequences))]
        batch = batch_of(sequences, bins, self.processor.tokenizer.pad_token_id or 0)
        batch |= self.processor.rna_batch([[rna for i in members for rna in rnas[i]] for members in bins])
        if self.with_ids:
            batch["rna_ids"] = [row["rna_id"] for row in rows]
        return batch

    def lay_out_row(self, row: dict) -> tuple[list[dict], RnaInput | None]:
        """A row's sequences, one for its RNA or one for each pair (see `lay_out`), and its RNA, read once for all."""
        pairs, rna = self.encode_pairs(row)
        groups = [pairs] if self.share_prefix else [[pair] for pair in pairs]
        return [lay_out(group, shared_prefix_length(group)) for group in groups], rna

    def encode_pairs(self, row: dict) -> tuple[list[EncodedPair], RnaInput | None]:
        """Each question-answer pair of a row, rendered and tokenised as a conversation of its own; and the row's RNA.

        Raises:
            ValueError: the template does not keep the prompt's tokens when the answer follows.
        """
        rna = self.processor.rna_input(row["sequence"]) if row.get("sequence") else None
        prompts, wholes, n_turns = [], [], []
        for pair in row["pairs"]:
            turns = pair.get("turns") or [pair]
            messages: list[dict] = []
            for turn in turns:
                content = [{"type": "rna", "rna": rna}] if rna is not None and not messages else []
                if turn["question"]:
                    content.append({"type": "text", "text": turn["question"]})
                prompts.append([*messages, {"role": "user", "content": content}])
                messages = [*prompts[-1], {"role": "assistant", "content": turn["answer"]}]
                wholes.append(messages)
            n_turns.append(len(turns))
        prompt_ids = self._token_ids(prompts, rna, add_generation_prompt=True)
        whole_ids = self._token_ids(wholes, rna, add_generation_prompt=False)
        pairs, first = [], 0
        for n in n_turns:
            last = whole_ids[first + n - 1]
            answers = []
            for prompt, whole in zip(prompt_ids[first : first + n], whole_ids[first : first + n], strict=True):
                if whole[: len(prompt)] != prompt or last[: len(whole)] != whole:
                    raise ValueError(
                        f"{row['rna_id']}: the chat template does not begin the answer where the opened assistant "
                        "turn ends, so its tokens cannot be told from the question's. Use another template."
                    )
                answers.append((len(prompt), self._end_of_answer(row, whole, len(prompt))))
            pairs.append(EncodedPair(last[: answers[-1][1]], answers))
            first += n
        return pairs, rna

    def _end_of_answer(self, row: dict, whole: list[int], start: int) -> int:
        """One past the stop token: what follows it (a line break in ChatML) is never generated, so not learned."""
        stops = {self.processor.tokenizer.eos_token_id, self.processor.turn_end_id(self.chat_template)}
        end = len(whole)
        while end > start and whole[end - 1] not in stops:
            end -= 1
        if end == start:
            raise ValueError(
                f"{row['rna_id']}: the chat template does not end the answer with the LLM's stop token "
                f"{self.processor.tokenizer.eos_token!r}; a model trained so would never stop."
            )
        return end

    def _token_ids(self, conversations: list, rna: RnaInput | None, add_generation_prompt: bool) -> list[list[int]]:
        """Tokens of conversations about one RNA, which stands in the first message of each."""
        texts = self.processor.apply_chat_template(
            conversations, chat_template=self.chat_template, add_generation_prompt=add_generation_prompt
        )
        texts = self.processor.expand(texts, [[] if rna is None else [rna]] * len(texts))
        return self.processor.tokenizer(texts, add_special_tokens=False)["input_ids"]


@dataclass
class PreferenceCollator(SharedPrefixCollator):
    """Collates rows of two pairs, the answer to be preferred and the one to be given up, for TRL's DPOTrainer."""

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """-> input_ids, attention_mask, completion_mask (2 * batch, seq) int64, first all preferred answers, then all
        given up; RNA inputs (2 * batch, 1, ...)."""
        encoded, rnas = zip(*map(self.encode_pairs, rows), strict=True)
        pairs = [pair for side in zip(*encoded, strict=True) for pair in side]
        for row, rna in zip(rows, rnas, strict=True):
            if self.features is not None:
                rna.features = self.features[row["rna_id"]]
        shape = len(pairs), max(len(pair.input_ids) for pair in pairs)
        batch = {"input_ids": torch.full(shape, self.processor.tokenizer.pad_token_id or 0)}
        batch |= {name: torch.zeros(shape, dtype=torch.long) for name in ("attention_mask", "completion_mask")}
        for i, pair in enumerate(pairs):
            batch["input_ids"][i, : len(pair.input_ids)] = torch.tensor(pair.input_ids)
            batch["attention_mask"][i, : len(pair.input_ids)] = 1
            for start, end in pair.answers:
                batch["completion_mask"][i, start:end] = 1
        return batch | self.processor.rna_batch([[rna] for rna in [*rnas, *rnas]])


def batch_of(sequences: list[dict], bins: list[list[int]], pad_id: int) -> dict[str, torch.Tensor]:
    """Sequences (see `lay_out`) in rows, padded on the right; `bins` has the numbers of those that share a row.

    attention_mask tells which token sees which, (batch, 1, seq, seq) float32, 0 where seen, else smallest. Where every
    sequence has a row and a pair of its own, it is (batch, seq) int64, 1 on tokens, and each family of LLMs makes its
    own masks from it.
    """
    dense = any(len(members) > 1 for members in bins) or any(max(sequence["block"]) > 1 for sequence in sequences)
    lengths = [len(sequence["input_ids"]) for sequence in sequences]
    length = max(sum(lengths[i] for i in members) for members in bins)
    batch = {
        "input_ids": torch.full((len(bins), length), pad_id),
        "position_ids": torch.zeros((len(bins), length), dtype=torch.long),
        "labels": torch.full((len(bins), length), IGNORED),
        "loss_weights": torch.zeros((len(bins), length)),
    }
    # Padding sees only itself: a row that sees nothing would be NaN in the softmax.
    visible = torch.eye(length, dtype=torch.bool).repeat(len(bins), 1, 1) if dense else None
    real = torch.zeros((len(bins), length), dtype=torch.long)
    for row_number, members in enumerate(bins):
        start = 0
        for i in members:
            sequence, end = sequences[i], start + lengths[i]
            for name in ("input_ids", "position_ids", "labels", "loss_weights"):
                batch[name][row_number, start:end] = torch.tensor(sequence[name])
            real[row_number, start:end] = 1
            if visible is not None:  # on the diagonal alone: sequences that share a row do not see each other
                visible[row_number, start:end, start:end] = block_mask(torch.tensor(sequence["block"]))
            start = end
    if visible is None:
        return batch | {"attention_mask": real}
    hidden = torch.finfo(torch.float32).min
    return batch | {"attention_mask": torch.zeros(visible.shape).masked_fill(~visible, hidden)[:, None]}


def fill_rows(lengths: list[int]) -> list[list[int]]:
    """Indices of `lengths` in rows of about twice the longest at most: longest first, each into the emptiest row.

    >>> fill_rows([3, 5, 2, 4, 6])
    [[4, 0, 2], [1, 3]]
    """
    rows: list[list[int]] = [[] for _ in range(math.ceil(sum(lengths) / (2 * max(lengths))))]
    filled = [0] * len(rows)
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        emptiest = filled.index(min(filled))
        rows[emptiest].append(i)
        filled[emptiest] += lengths[i]
    return rows


def shared_prefix_length(pairs: list[EncodedPair]) -> int:
    """Number of leading tokens that all pairs have in common, at most to the first answer.

    Compared token by token after tokenising each conversation whole, so no merge across the border can differ.
    """
    shortest = min(pair.answers[0][0] for pair in pairs)
    columns = zip(*(pair.input_ids[:shortest] for pair in pairs), strict=True)
    return next((i for i, tokens in enumerate(columns) if len(set(tokens)) > 1), shortest)


def lay_out(pairs: list[EncodedPair], prefix: int) -> dict[str, list]:
    """One sequence: the first `prefix` tokens once, then the rest of each pair.

    block 0 is the prefix, block k the k-th pair. The weights of a pair's answer tokens are alike and sum to 1. A
    label belongs to the position it is at, as in transformers: position i predicts label i + 1, so a pair whose answer
    begins right after the prefix cannot share its prediction position: the prefix then ends one token earlier.
    """
    if len(pairs) > 1:
        prefix = min(prefix, min(pair.answers[0][0] for pair in pairs) - 1)
    out = {
        "input_ids": list(pairs[0].input_ids[:prefix]),
        "position_ids": list(range(prefix)),
        "labels": [IGNORED] * prefix,
        "loss_weights": [0.0] * prefix,
        "block": [0] * prefix,
    }
    for k, pair in enumerate(pairs, start=1):
        answered = {i for start, end in pair.answers for i in range(start, end)}
        for i in range(prefix, len(pair.input_ids)):
            out["input_ids"].append(pair.input_ids[i])
            out["position_ids"].append(i)
            out["labels"].append(pair.input_ids[i] if i in answered else IGNORED)
            out["loss_weights"].append(1.0 / len(answered) if i in answered else 0.0)
            out["block"].append(k)
    return out


def block_mask(block: torch.Tensor) -> torch.Tensor:
    """(seq,) block numbers -> (seq, seq) bool: causal, and only within the own block or the prefix (block 0).

    So each pair reads the RNA and itself, as if it stood alone after the prefix: together with positions that restart
    after the prefix, losses and gradients are those of separate sequences.

    >>> block_mask(torch.tensor([0, 1, 2])).int().tolist()
    [[1, 0, 0], [1, 1, 0], [1, 0, 1]]
    """
    own = (block[:, None] == block[None, :]) | (block[None, :] == 0)
    return own & torch.ones(len(block), len(block), dtype=torch.bool).tril()
