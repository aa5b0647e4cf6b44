"""The records that the RNA-QA builder works on, and the columns it publishes.

    raw row of any source -> RnaRecord or Paper, or `Dropped` with a reason that the run report counts

A sequence is upper case, U for T; md5 is of its DNA string, as RNAcentral has it. Public columns: `published_schemas`.
"""

import hashlib
import html
import re
import unicodedata
from dataclasses import dataclass

from rnagpt_core.sequences import is_rna, normalized

MAX_LENGTH = 1024  # nt: what RNA-FM reads (paper, section 2.2)
MIN_LENGTH = 10  # nt
MAX_ABSTRACT = 20_000  # characters: the longest real abstracts have a third of that
PAPER_ID = re.compile(r"\d{1,9}|PMC\d{1,9}")


class Dropped(ValueError):
    """A record that is left out; the message is the reason that is counted."""


@dataclass(frozen=True)
class RnaRecord:
    """One RNA. `aliases` are the names its literature was searched by; an unknown text is "", an unknown taxid 0."""

    rna_id: str
    sequence: str
    rna_type: str = ""
    species: str = ""
    taxid: int = 0
    name: str = ""
    md5: str = ""
    release: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def length_nt(self) -> int:
        return len(self.sequence)

    @property
    def urs(self) -> str:
        """RNAcentral's sequence id without the taxid, or the md5 for an RNA that has none.

        >>> RnaRecord("URS0000012D5F_15368", "ACGU").urs
        'URS0000012D5F'
        """
        match = re.match(r"URS[0-9A-F]{10}", self.rna_id)
        return match[0] if match else self.md5


@dataclass(frozen=True)
class Paper:
    """One paper: `pmid` is its PubMed id, or its PMC id where it has no other."""

    pmid: str
    title: str
    abstract: str
    year: int = 0
    pmcid: str = ""
    licence: str = ""
    retracted: bool = False


@dataclass(frozen=True)
class CuratedFact:
    """One statement about an RNA.

    Attributes:
        source: "LitSumm (AI-generated)", "Rfam", "Gene Ontology", or a local file's own.
        accession: of the family or term, "" where there is none.
        evidence: how it is known, in the source's words.
        pmids: papers it cites, by PMID or PMC id.
    """

    source: str
    text: str
    accession: str = ""
    evidence: str = ""
    pmids: tuple[str, ...] = ()


def rna_record(row: dict, max_length: int = MAX_LENGTH, release: str = "") -> RnaRecord:
    """A source's row -> checked record.

    Raises:
        Dropped: no id, no sequence, letters that are no nucleotide, too short, too long, or another md5 than the
            sequence has.

    >>> rna_record({"rna_id": "x", "sequence": "acgtACGTAC"}).sequence
    'ACGUACGUAC'
    """
    rna_id = rna_id_of(row)
    if not rna_id:
        raise Dropped("RNA without an id")
    sequence = normalized(row.get("sequence"))
    if not sequence:
        raise Dropped("RNA without a sequence" if "sequence" in row else "RNA without a column sequence")
    if not is_rna(sequence):
        raise Dropped("letters that are no nucleotide")
    if len(sequence) > max_length:
        raise Dropped(f"longer than {max_length} nt")
    if len(sequence) < MIN_LENGTH:
        raise Dropped(f"shorter than {MIN_LENGTH} nt")
    digest = dna_md5(sequence)
    if row.get("md5") and str(row["md5"]).lower() != digest:
        raise Dropped("md5 does not match the sequence")
    name = text_of(row.get("name") or row.get("description"))
    aliases = row.get("aliases") or ([name] if name else [])
    if isinstance(aliases, str):
        aliases = [aliases]
    taxid = text_of(row.get("taxid"))
    return RnaRecord(
        rna_id=rna_id,
        sequence=sequence,
        rna_type=text_of(row.get("rna_type")),
        species=text_of(row.get("species")),
        taxid=int(taxid) if taxid.isdecimal() else 0,
        name=name,
        md5=digest,
        release=text_of(row.get("release")) or release,
        aliases=tuple(sorted({text_of(alias) for alias in aliases} - {""})),
    )


def rna_id_of(row: dict) -> str:
    """The id of a source's row, by whichever name the source has for it; "" where there is none. 0 is an id.

    >>> rna_id_of({"rna_id": 0}), rna_id_of({"rna_id": None, "id": "x"}), rna_id_of({})
    ('0', 'x', '')
    """
    values = (row.get(name) for name in ("rna_id", "rnacentral_id", "urs_taxid", "id"))
    return next(filter(None, ("0" if value == 0 else text_of(value) for value in values)), "")


def dna_md5(sequence: str) -> str:
    """md5 of the upper-case DNA string, RNAcentral's key.

    >>> dna_md5("AGGGCUAUAGCUCAGCGGUAGAGCGCCUCGUUUACACCGAGAAUGUCUACGGUUCAAAUCCGUAUAGCCCUA")
    '6bbea9b171ca06a1510819ebfc4bc096'
    """
    return hashlib.md5(sequence.upper().replace("U", "T").encode(), usedforsecurity=False).hexdigest()


def paper(row: dict) -> tuple[Paper, list[str]]:
    """A source's row -> checked paper and what had to be repaired in it (counted by the run report).

    Raises:
        Dropped: no usable id, retracted, or no abstract.
    """
    pmid = text_of(row.get("pmid")) or text_of(row.get("pmcid")).upper()
    if not PAPER_ID.fullmatch(pmid):
        raise Dropped("paper without a PMID or PMC id")
    if row.get("retracted") in (True, 1, "true", "True", "1"):
        raise Dropped("retracted paper")
    repaired = []
    title, abstract = text_of(row.get("title")), clean_text(row.get("abstract"))
    if abstract != str(row.get("abstract") or "").strip() and looks_misdecoded(str(row.get("abstract"))):
        repaired.append("abstract decoded wrongly, put right")
    if not re.search(r"\w{2}", abstract):
        raise Dropped("paper without an abstract")
    if len(abstract) > MAX_ABSTRACT:
        abstract = cut_at_sentence(abstract, MAX_ABSTRACT)
        repaired.append(f"abstract cut to {MAX_ABSTRACT} characters")
    year = text_of(row.get("year"))
    return Paper(
        pmid=pmid,
        title=cut_at_sentence(title, 1000),
        abstract=abstract,
        year=int(year) if re.fullmatch(r"\d{4}", year) else 0,
        pmcid=text_of(row.get("pmcid")),
        licence=text_of(row.get("licence") or row.get("license")),
    ), repaired


def text_of(value) -> str:
    """Any scalar -> one clean line; None and lists of one string (EBI Search) too.

    >>> text_of(["miR-21 \\n in  cancer"]), text_of(None), text_of(float("nan"))
    ('miR-21 in cancer', '', '')
    """
    if isinstance(value, list | tuple):
        value = value[0] if value else ""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():  # ids from a Parquet column with gaps
        value = int(value)
    return " ".join(clean_text(value).split())


def clean_text(value) -> str:
    """Text as people read it: markup out, entities resolved, wrong decoding undone, no control characters, NFC.

    >>> clean_text("up-regulated <i>in\\u00a0vitro</i> (P &lt; 0.05)")
    'up-regulated in vitro (P < 0.05)'
    >>> clean_text("BÃ¶hm"), clean_text("Böhm"), clean_text("α-synuclein")
    ('Böhm', 'Böhm', 'α-synuclein')
    """
    text = str(value or "")
    text = re.sub(r"</?(?:[a-zA-Z][a-zA-Z0-9:]{0,15})(?:\s[^<>]{0,200})?/?>", "", text)
    text = html.unescape(text)
    if looks_misdecoded(text):
        try:
            text = text.encode("cp1252").decode("utf-8")
        except UnicodeError:
            pass
    text = unicodedata.normalize("NFC", text)
    # C: control, format (bidirectional overrides, zero-width), surrogates, private use
    text = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text) if not text.isascii() else text
    return re.sub(r"[\x00-\x1f\x7f\s]+", " ", text).strip()


def looks_misdecoded(text: str) -> bool:
    """True for UTF-8 that was read as Windows-1252: 'Ã¶' for 'ö', 'â€“' for a dash."""
    return re.search("[ÃÂÎÏ][\u0080-\u00bf\u2018-\u203a\u0152-\u0178]|â€", text) is not None


def cut_at_sentence(text: str, limit: int) -> str:
    """The longest run of whole sentences within `limit` characters (or of words, where there is no such sentence).

    >>> cut_at_sentence("One. Two is long. Three.", 18)
    'One. Two is long.'
    """
    if len(text) <= limit:
        return text
    head = text[: limit + 1]
    end = max(head.rfind(mark) for mark in (". ", "? ", "! "))
    return head[: end + 1] if end > 0 else head[:limit].rsplit(" ", 1)[0]


def published_schemas():
    """{config name: pyarrow schema} of what is published; the columns are public (announced in CHANGELOG.md). `facts`
    is there only where curated facts were collected."""
    import pyarrow as pa

    text, texts = pa.string(), pa.list_(pa.string())
    rna = dict.fromkeys("rna_id sequence length_nt rna_type species taxid name md5 release".split(), text)
    rna |= {"length_nt": pa.int32(), "taxid": pa.int64()}
    made_by = dict.fromkeys(("method", "model", "prompt_sha256"), text)
    statements = pa.list_(pa.struct({"text": text, "pmids": texts, "topic": pa.int32()}))
    alignment = {"annotation": text, "pmids": texts, "topics": pa.list_(texts), "statements": statements}
    qa = dict.fromkeys(("qa_id", "question", "answer", "kind"), text)
    qa |= {"options": texts, "evidence_pmids": texts, "names_the_rna": pa.bool_()}
    facts = dict.fromkeys(("source", "text", "accession", "evidence"), text)
    return {
        "alignment": pa.schema(rna | alignment | {"faithfulness": pa.float32()} | made_by),
        "qa": pa.schema(rna | qa | made_by),
        "facts": pa.schema(rna | facts | {"pmids": texts}),
    }
