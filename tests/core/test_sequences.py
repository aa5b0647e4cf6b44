"""Reading RNAs for the chat: what is accepted, and the one sentence for each mistake.

pytest tests/core/test_sequences.py
"""

import codecs
import gzip
import sys

import pytest

from rnagpt.serving.rna_reading import check_lengths
from rnagpt_core.errors import UserError
from rnagpt_core.safe_text import printable
from rnagpt_core.sequences import Record, parse_fasta, parse_sequence, read_fasta

TWO = ">tRNA-Phe yeast tRNA\nGCGGAUUUAG\nCUC\n\n>let-7\nUGAGGUAGUAGG\n"
TWO_RECORDS = [Record("tRNA-Phe", "yeast tRNA", "GCGGAUUUAGCUC"), Record("let-7", "", "UGAGGUAGUAGG")]
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01"


def written(tmp_path, content: bytes | str, name: str = "rna.fa"):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# --- what is accepted


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (TWO, "rna.fa"),
        (TWO.replace("\n", "\r\n"), "rna.fa"),
        (TWO.replace("\n", "\r"), "rna.fa"),
        (codecs.BOM_UTF8 + TWO.encode(), "rna.fa"),
        ("\n \n" + TWO.rstrip(), "rna.fa"),
        (gzip.compress(TWO.encode(), mtime=0), "rna.fa.gz"),
        (gzip.compress(TWO.encode(), mtime=0), "rna.fa"),
        (TWO.replace("U", "T").replace("GCGG", "g c-g.g"), "rna.fa"),
    ],
    ids=["plain", "Windows", "old Mac", "BOM", "blank lines", "gz", "gz by content", "DNA, lower case, gaps"],
)
def test_two_records(tmp_path, content, name):
    assert read_fasta(written(tmp_path, content, name)) == TWO_RECORDS


def test_a_bare_sequence_is_named_after_its_file(tmp_path):
    path = written(tmp_path, "acgt\nNNRY\n", "my_rna.v2.txt")
    assert read_fasta(path) == [Record("my_rna", "", "ACGUNNRY")]
    assert len(read_fasta(path)[0]) == 8


def test_control_characters_of_a_header_are_dropped():
    assert parse_fasta(">a\x1b[31mb red\x07\nACGU\n", "x") == [Record("a[31mb", "red", "ACGU")]


def test_normalises_exactly_as_the_processor_does():
    """The table in fasta.py against `normalize_rna`, for every character of the first plane and some beyond."""
    from processing_rnagpt.processing_rnagpt import normalize_rna

    def outcome(normalise, text):
        try:
            return normalise(text)
        except (UserError, ValueError):
            return "refused"

    differing = [
        code
        for code in [*range(0xD800), *range(0xE000, 0x10000), 0x1F9EC, 0xF0010]
        if outcome(normalize_rna, f"A{chr(code)}C")
        != outcome(lambda text: parse_sequence(text, "x").sequence, f"A{chr(code)}C")
    ]
    assert not differing


# --- one sentence for each mistake


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "rna.fa is empty: expected FASTA records"),
        (" \n\n", "rna.fa is empty"),
        ("hello\n>a\nACGU\n", "rna.fa, line 1: text before the first '>'"),
        (">a\nACGU\n>b\n>c\nACGU\n", "rna.fa, line 3: record b has no sequence"),
        (">a\nACGU\n>b desc\n---\n", "rna.fa, line 3: record b has no sequence"),
        (">a\nNNNNRYNN\n", "rna.fa, line 1: record a has no A, C, G, U or T"),
        (">a\nACGU\n>\nACGU\n", "rna.fa, line 3: the record has no id"),
        (">a\nACGU\n>b\nAC\n>a x\nACGU\n", "rna.fa, line 5: record a has the id of line 1"),
        (">ok\nACGU\n>P1 insulin\nACG\nMALWMR\n", "rna.fa, line 5: record P1: 'L' at position 6 is no nucleotide"),
        (">a\nACG\n>b\nAC1U\n", "rna.fa, line 4: record b: '1' at position 3 is no nucleotide"),
        (">a\nAC\x1bGU\n", "record a: U+001B at position 3 is no nucleotide"),
        ("MALWMRLLPL\n", "rna.fa, line 1: no record (no line begins with '>'), and as a bare sequence 'L' at"),
        ("@read1\nACGU\n+\nIIII\n", "no record (no line begins with '>'), and as a bare sequence '@' at position 1"),
        (PNG, "rna.fa is a binary file, not text"),
        (b"\x89PNG", "rna.fa, line 1: byte 0x89 is no UTF-8 text"),
        (TWO.encode("utf-16"), "rna.fa is UTF-16 text: save it as UTF-8"),
        (">a\nACGU\n>b Müller\nACGU\n".encode("latin-1"), "rna.fa, line 3: byte 0xfc is no UTF-8 text"),
        (gzip.compress(TWO.encode(), mtime=0)[:-10], "rna.fa is a damaged gzip file"),
        (gzip.compress(TWO.encode(), mtime=0)[:14] + b"garbage" * 9, "rna.fa is a damaged gzip file"),
        (gzip.compress(TWO.encode(), mtime=0)[:-8] + b"12345678", "rna.fa is a damaged gzip file"),
    ],
)
def test_a_mistake_in_the_file(tmp_path, content, sentence):
    with pytest.raises(UserError) as error:
        read_fasta(written(tmp_path, content))
    assert sentence in str(error.value)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_a_protein_is_asked_about():
    with pytest.raises(UserError, match=r"'E' at position 4 .*\(is this a protein\?\): give an RNA or DNA sequence"):
        parse_sequence("ACGE", "--rna")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nothing.fa", "nothing.fa does not exist"),
        (".", "is a folder: give a FASTA file in it"),
        ("x" * 300, "cannot be read (File name too long)"),
        ("a\0b", "cannot be read (embedded null byte)"),
    ],
)
def test_no_file(tmp_path, name, sentence):
    with pytest.raises(UserError) as error:
        read_fasta(f"{tmp_path}/{name}")
    assert sentence in str(error.value)


def test_named_gz_but_not_compressed(tmp_path):
    with pytest.raises(UserError, match="named .gz but holds no gzip data"):
        read_fasta(written(tmp_path, TWO, "rna.fa.gz"))


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    bomb = written(tmp_path, gzip.compress(b">a\n" + b"A" * 30_000_000), "bomb.fa.gz")
    assert bomb.stat().st_size < 50_000
    with pytest.raises(UserError, match="bomb.fa.gz holds more than 1,000,000 bytes of text"):
        read_fasta(bomb, max_bytes=1_000_000)
    plain = written(tmp_path, b">a\n" + b"A" * 1000)
    assert len(read_fasta(plain, max_bytes=1003)[0]) == 1000
    with pytest.raises(UserError, match="rna.fa holds more than 1,002 bytes"):
        read_fasta(plain, max_bytes=1002)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the file without an end is Linux's")
def test_a_file_without_an_end():
    with pytest.raises(UserError, match="holds more than 1,000 bytes"):
        read_fasta("/dev/zero", max_bytes=1000)


def test_too_many_records(tmp_path):
    path = written(tmp_path, "".join(f">r{i}\nACGU\n" for i in range(11)))
    assert len(read_fasta(path, max_records=11)) == 11
    with pytest.raises(UserError, match="rna.fa holds 11 records, more than 10: split the file"):
        read_fasta(path, max_records=10)


def refusal(tiny_model, rnas, context, **settings):
    """What `check_lengths` says with these settings of the processor; None where it lets the RNAs pass."""
    from processing_rnagpt import RnaGptProcessor

    _, tiny = tiny_model
    processor = RnaGptProcessor(tiny.tokenizer, tiny.rna_tokenizer, chat_template=tiny.chat_template, **settings)
    try:
        check_lengths(rnas, processor, context)
    except UserError as error:
        return str(error)


def test_a_processor_that_reads_one_window_names_both_numbers_and_the_record(tiny_model):
    """The tiny encoder reads 120 nt at once."""
    assert refusal(tiny_model, [Record("fits", "", "A" * 120)], 512, long_rna="error") is None
    sentence = refusal(tiny_model, [Record("long", "", "A" * 121)], 512, long_rna="error")
    assert sentence.startswith("record long has 121 nt, more than the 120 nt that this model's encoder reads")
    assert "1,000,001 nt" in refusal(tiny_model, [Record("genome", "", "A" * 1_000_001)], 512, long_rna="error")


@pytest.mark.parametrize("pool", [1, 4])
def test_the_llms_context_is_the_limit_of_one_rna_and_of_all_together(tiny_model, pool):
    """Never refused here: what the processor makes fewer placeholders of than the context has."""
    just = Record("just", "", "A" * (511 * pool))
    over = Record("over", "", "A" * (511 * pool + 1))
    assert refusal(tiny_model, [just], 512, rna_pool_size=pool) is None
    assert refusal(tiny_model, [over], 512, rna_pool_size=pool) == (
        f"record over has {len(over):,} nt, which take 512 tokens or more, and this model's context has 512: give a "
        f"part of it, at most {511 * pool:,} nt"
    )
    sentence = refusal(tiny_model, [just, Record("one more", "", "A")], 512, rna_pool_size=pool)
    assert sentence.startswith(f"the 2 RNAs have {511 * pool + 1:,} nt, which take 512 tokens or more together")
    genome = Record("genome", "", "A" * 1_000_000)
    assert refusal(tiny_model, [genome], 512, rna_pool_size=pool, long_rna="truncate") is None


def test_printable_keeps_letters_of_every_script():
    text = "Ωμέγα 核糖核酸 الحمض naïve 🧬\n\tβ"
    assert printable(text) == text
    assert printable("\x1b]0;title\x07a\x9b31m\u202eb\r") == "]0;titlea31mb"
