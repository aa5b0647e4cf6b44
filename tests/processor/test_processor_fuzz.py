"""Random strings through the processor: a right encoding or one clear error, nothing else."""

import random
import re
import unicodedata

import pytest
from conftest import TINY_MAX_NUCLEOTIDES

from processing_rnagpt.processing_rnagpt import RNA_TOKEN

# rna-fm's ids, written out from its alphabet; not taken from the code under test
IDS = dict(zip("ACGURYKMSWBDHVN", range(4, 19), strict=True)) | {"T": 7}
IDS |= {letter.lower(): token for letter, token in IDS.items()}
ALPHABETS = ["ACGU", "acgtACGTU", "ACGURYKMSWBDHVN", "ACGU-. \n\t", "ACGUacgu\u00a0\u2003\u3000\x1c\x85"]


def is_white(character: str) -> bool:
    """White space by Unicode's own classes and the control characters that separate lines and records."""
    return unicodedata.category(character) in ("Zs", "Zl", "Zp") or character in "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85"


def random_string(draw: random.Random) -> str:
    """Half of them RNAs of some alphabet, a quarter RNAs with one wrong character, the rest any Unicode."""
    length = draw.choice([0, 1, 2, 10, 100, draw.randrange(5001), draw.randrange(5001)])
    kind = draw.random()
    if kind < 0.75:
        letters = draw.choices(draw.choice(ALPHABETS), k=length)
        if kind > 0.5 and letters:
            letters[draw.randrange(length)] = any_character(draw)
        return "".join(letters)
    return "".join(any_character(draw) for _ in range(draw.randrange(min(length, 200) + 1)))


def any_character(draw: random.Random) -> str:
    """Of any plane, lone surrogates and unassigned code points too; half of them ASCII."""
    return chr(draw.randrange(128) if draw.random() < 0.5 else draw.randrange(0x110000))


def expected(text: str) -> list[int] | str:
    """Encoder ids without BOS and EOS, or a pattern of the error; one character at a time."""
    ids = []
    for character in text:
        if is_white(character) or character in "-.":
            continue
        if character not in IDS:
            return re.escape(repr(character.upper() if character.isascii() else character)) + (
                rf" at position {len(ids) + 1} is no nucleotide"
            )
        ids.append(IDS[character])
    return ids or "the RNA is empty"


def check(processor, text: str) -> None:
    outcome = expected(text)
    if isinstance(outcome, str):
        with pytest.raises(ValueError, match=f"RNA 1 of 1: {outcome}"):
            processor(RNA_TOKEN, rna=text)
        return
    batch = processor(RNA_TOKEN, rna=text)
    assert int((batch["input_ids"] == processor.rna_token_id).sum()) == len(outcome)
    ids, mask = batch["rna_input_ids"][0], batch["rna_attention_mask"][0].bool()  # (windows, length)
    assert ids.shape[1] <= TINY_MAX_NUCLEOTIDES + 2
    for window, real in zip(ids, mask, strict=True):
        tokens = window[real].tolist()
        assert (tokens[0], tokens[-1]) == (0, 2) and not {0, 1, 2, 3} & set(tokens[1:-1])
    kept = batch["rna_index"][0] == 0 if "rna_index" in batch else mask & (ids != 0) & (ids != 2)
    assert ids[kept].tolist() == outcome


def run(processor, strings: int, seed: int) -> None:
    draw = random.Random(seed)
    right = 0
    for number in range(strings):
        text = random_string(draw)
        try:
            check(processor, text)
        except BaseException as error:
            raise AssertionError(f"string {number} of seed {seed}, {len(text)} characters: {text[:80]!r}") from error
        right += not isinstance(expected(text), str)
    assert 0.2 * strings < right < 0.8 * strings  # both outcomes were tried


def test_random_strings_are_encoded_rightly_or_refused_clearly(tiny_model):
    run(tiny_model[1], 1_000, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_hundred_thousand_random_strings(tiny_model):
    run(tiny_model[1], 100_000, seed=2)


def test_characters_one_by_one(tiny_model):
    """Between two nucleotides: the first 12,544 code points, with all white space among them, the
    surrogates, the byte order mark and the last code point."""
    reader = tiny_model[1].rna_reader
    for code in [*range(0x3100), *range(0xD7F0, 0xDC10), 0xFEFF, 0x10FFFF]:
        text = f"A{chr(code)}C"
        outcome = expected(text)
        if isinstance(outcome, str):
            with pytest.raises(ValueError, match=f"RNA 1 of 1: {outcome}"):
                reader.read([text])
        else:
            (rna,) = reader.read([text])
            assert rna.windows[0][1:-1].tolist() == outcome
