"""Is an RNA encoder read exactly? Measured on itself, with a few short RNAs, before anything trains.

    check_encoder(encoder, tokenizer) -> [Finding("alphabet", True, "A C G U, written as they are; ..."), ...]

Each finding compares what training and chat compute with a plain run of the encoder on its tokenizer's own output.
`rnagpt check` prints them; `load_encoder` refuses an encoder by the first that failed.
"""

import copy
import math
from random import Random
from typing import NamedTuple

import torch

from modeling_rnagpt.modeling_rnagpt import encode_and_pool, encoder_max_tokens, takes_mask
from processing_rnagpt.rna_sequences import PROBE, RnaAlphabet, RnaInput, RnaReader, encoder_inputs
from rnagpt_core.errors import UserError, one_line

TOLERANCE = 1e-4  # of the largest feature: what fp32 loses between two orders of summation in deep encoders
LENGTHS = (48, 36, 60, 12)  # nt; whole codons
WINDOW = 24  # tokens of a window where windows are compared


class Finding(NamedTuple):
    """One row of the check."""

    name: str
    passed: bool
    detail: str


class Unfit(Exception):
    """A comparison that failed; the message is the finding's detail."""


@torch.no_grad()
def check_encoder(encoder, tokenizer, at_limit: bool = True) -> list[Finding]:
    """What an encoder and its tokenizer do with RNAs, row by row; seconds. Rows end at the first that failed.

    Args:
        encoder: as `load_encoder` gives it; on the meta device only its alphabet, tokens and limit are looked at.
        tokenizer: as `load_encoder` gives it.
        at_limit: also run one RNA as long as the encoder's limit, which takes a large encoder some seconds on a CPU.
    """
    findings: list[Finding] = []
    probe = Probe(encoder, tokenizer)
    has_weights = not next(encoder.parameters()).is_meta
    at_limit = at_limit and has_weights
    rows = {"alphabet": probe.alphabet_row, "tokens": probe.tokens_row, "limit": lambda: probe.limit_row(at_limit)}
    if has_weights:
        rows |= {"features": probe.features_row, "batch": probe.batch_row, "windows": probe.windows_row}
    for name, row in rows.items():
        try:
            findings.append(Finding(name, True, row()))
        except Unfit as error:
            findings.append(Finding(name, False, str(error)))
        except Exception as error:  # of torch, or of a repository's own code: told as a finding, whatever it is
            findings.append(Finding(name, False, f"{type(error).__name__}: {one_line(error)[:200]}"))
        if not findings[-1].passed:
            break
    return findings


def refuse_unfit(encoder, tokenizer, name: str) -> None:
    """UserError by the first finding that failed."""
    for finding in check_encoder(encoder, tokenizer, at_limit=False):
        if not finding.passed:
            raise UserError(f"{name} cannot be read as an RNA encoder ({finding.name}): {finding.detail}")


def describe_tokens(alphabet: RnaAlphabet, reader: RnaReader) -> str:
    """How tokens, and so features, lie on the nucleotides."""

    def count(length: int) -> int:
        return len(reader.read([PROBE[:length]])[0].tokens)

    if count(48) == 48:
        return "one token per nucleotide"
    if alphabet.word > 1 or all(count(n) == n - (48 - count(48)) for n in (24, 36)):
        k = 49 - count(48)
        return f"overlapping {k}-mers: N - {k - 1} tokens of N nt, token i covers nt i to i + {k - 1}"
    for k in range(2, 9):
        if all(count(n * k) == n for n in (12, 24, 36)):
            if alphabet.multiple > 1:
                return "codons side by side: N / 3 tokens, of whole codons only"
            rest = count(12 * k + 1) - 12
            return f"{k}-mers side by side, " + ("a rest in tokens of its own" if rest else "a rest is left out")
    return f"tokens of several lengths (BPE), {len(PROBE) / count(len(PROBE)):.1f} nt each in a random RNA"


class Probe:
    """The comparisons; each returns what to say of it, or raises `Unfit`."""

    def __init__(self, encoder, tokenizer):
        self.encoder, self.tokenizer = encoder, tokenizer
        draw = Random(0)
        self.rnas = ["".join(draw.choices("ACGU", k=length)) for length in LENGTHS]

    def alphabet_row(self) -> str:
        try:
            self.alphabet = RnaAlphabet.of(self.tokenizer)
        except ValueError as error:
            raise Unfit(str(error)) from None
        ends = {int(i) for i in (*self.alphabet.prefix, *self.alphabet.suffix)}
        self.reader = RnaReader(self.tokenizer, sorted(ends), alphabet=self.alphabet)
        spelled = "".join(self.alphabet.spelling[ord(code)] for code in "ACGU")
        forms = {0: "written as they are", 1: "written with spaces between"}
        form = forms.get(self.alphabet.word, f"written in overlapping words of {self.alphabet.word} letters")
        ambiguous = [code for code in "RYKMSWBDHV" if self.alphabet.spelling[ord(code)].upper() == "N"]
        return f"{' '.join(spelled)}, {form}" + (f"; {' '.join(ambiguous)} as N" if ambiguous else "")

    def tokens_row(self) -> str:
        (rna,) = self.reader.read([PROBE])
        lost = set(self.reader.drop_token_ids) & set(rna.tokens.tolist())
        if lost:
            raise Unfit(f"its tokenizer uses token {min(lost)} for nucleotides and for an RNA's beginning or end")
        if rna.tokens.max() >= self.encoder.get_input_embeddings().weight.shape[0]:
            size = self.encoder.get_input_embeddings().weight.shape[0]
            raise Unfit(
                f"its tokenizer gives token {rna.tokens.max()}, and the encoder has embeddings of {size} tokens: the "
                "tokenizer belongs to another encoder"
            )
        return describe_tokens(self.alphabet, self.reader)

    def limit_row(self, run: bool) -> str:
        limit, most = encoder_max_tokens(self.encoder.config), self.reader.max_tokens
        ends = len(self.alphabet.prefix) + len(self.alphabet.suffix)
        if most < 1 or (limit is not None and most + ends > limit):
            raise Unfit(f"its tokenizer allows {most + ends:,} tokens, and the encoder has {limit:,} positions")
        if run:
            repeats = math.ceil(most * 9 / len(PROBE)) + 1  # of up to nine nucleotides in a token
            (rna,) = self.reader.read([PROBE * repeats])
            self._features([RnaInput(rna.tokens[:most], [(0, most, 0, most)], rna.prefix, rna.suffix, [])])
        without = "" if limit is not None else " (its positions have no end)"
        return f"windows of {most:,} tokens and {ends} special ones{without}"

    def features_row(self) -> str:
        """As a plain run gives them, on the positions between the special tokens."""
        for rna, read in zip(self.rnas, self.reader.read(self.rnas), strict=True):
            text = self.alphabet.write(rna)
            ids = self.tokenizer(text, truncation=False, verbose=False)["input_ids"]
            plain = self._plain(ids)[len(self.alphabet.prefix) : len(ids) - len(self.alphabet.suffix)]
            if len(plain) != read.soft_tokens:
                raise Unfit(f"{len(plain)} tokens of an RNA of {len(rna)} nt became {read.soft_tokens} soft tokens")
            self._compare(self._features([read]), plain, "a plain run of the encoder")
        return f"as in a plain run of {type(self.encoder).__name__}, {plain.shape[-1]} wide"

    def batch_row(self) -> str:
        rnas = self.reader.read(self.rnas)
        alone = torch.cat([self._features([rna]) for rna in rnas])
        self._compare(self._features(rnas), alone, "each RNA alone (its code may not heed the attention mask)")
        return f"{len(rnas)} RNAs of {min(LENGTHS)} to {max(LENGTHS)} nt together as each alone"

    def windows_row(self) -> str:
        """Joined windows against a plain run of each, of which the positions nearest its middle are kept."""
        short = copy.copy(self.tokenizer)
        ends = len(self.alphabet.prefix) + len(self.alphabet.suffix)
        short.model_max_length = min(WINDOW, self.reader.max_tokens) + ends
        (rna,) = RnaReader(short, self.reader.drop_token_ids, alphabet=self.alphabet).read([PROBE[:360]])
        plain, before = [], len(self.alphabet.prefix)
        for window, (start, _, first, last) in zip(rna.windows, rna.spans, strict=True):
            plain.append(self._plain(window.tolist())[before + first - start : before + last - start])
        self._compare(self._features([rna]), torch.cat(plain), "each window alone")
        return f"{len(rna.spans)} windows joined as each alone"

    def _plain(self, ids: list[int]) -> torch.Tensor:
        """Last hidden states of one row of tokens, (length, hidden), by the encoder's own forward."""
        rows = torch.tensor([ids], device=self.encoder.device)
        mask = {"attention_mask": torch.ones_like(rows)} if takes_mask(self.encoder) else {}
        hidden = self.encoder(rows, **mask)[0]
        if hidden.shape[:2] != rows.shape:
            raise Unfit(f"of {rows.shape[1]} tokens the encoder gives {tuple(hidden.shape[1:-1])} features")
        if hidden.shape[-1] != self.encoder.config.hidden_size:
            width = self.encoder.config.hidden_size
            raise Unfit(f"its features are {hidden.shape[-1]} wide, and its configuration says {width} (hidden_size)")
        return hidden[0]

    def _features(self, rnas: list[RnaInput]) -> torch.Tensor:
        """What training and chat make of RNAs, (features of all, hidden)."""
        inputs = encoder_inputs([rnas], self.tokenizer.pad_token_id)
        tensors = {name: tensor[0].to(self.encoder.device) for name, tensor in inputs.items()}
        ids, mask, index = map(tensors.get, ("rna_input_ids", "rna_attention_mask", "rna_index"))
        return encode_and_pool(self.encoder, ids, mask, rnas[0].drop_token_ids, 1, index)[0]

    def _compare(self, got: torch.Tensor, expected: torch.Tensor, what: str) -> None:
        if got.shape != expected.shape:
            raise Unfit(f"{len(got)} features instead of {len(expected)} of {what}")
        if not torch.isfinite(expected).all():
            raise Unfit("its features are not finite")
        apart = float((got - expected).abs().max())
        if apart > TOLERANCE * max(1.0, float(expected.abs().max())):
            raise Unfit(f"its features lie up to {apart:.2g} apart from those of {what}")
