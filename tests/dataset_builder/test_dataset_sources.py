"""What comes into the RNA-QA builder: records, files of every form, and the faults real files have.

pytest tests/dataset_builder/test_dataset_sources.py
"""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic_literature import literature, write_folder

from dataset_builder.sources.local_source import collect
from dataset_builder.storage.records import MAX_ABSTRACT, Dropped, RnaRecord, paper, published_schemas, rna_record
from dataset_builder.storage.store import Store
from rnagpt_core.errors import UserError

TRNA = "AGGGCUAUAGCUCAGCGGUAGAGCGCCUCGUUUACACCGAGAAUGUCUACGGUUCAAAUCCGUAUAGCCCUA"  # RNAcentral's own md5:
TRNA_MD5 = "6bbea9b171ca06a1510819ebfc4bc096"


def collected(folder, **options) -> Store:
    library = Store(folder / "library.sqlite")
    collect(folder, library, **options)
    return library


def abstract_of(library, pmid="1") -> str:
    return library.papers_by_pmid([pmid])[0].abstract


def folder_with(tmp_path, papers, rnas=None):
    rows = rnas or [{"rna_id": "x", "sequence": TRNA, "pmids": [str(row.get("pmid")) for row in papers]}]
    return write_folder(tmp_path, rows, papers)


@pytest.mark.parametrize("size", [1024, 1025])
def test_the_limit_of_1024_nt(size):
    row = {"rna_id": "x", "sequence": "ACGT" * (size // 4) + "A" * (size % 4)}
    if size == 1024:
        assert rna_record(row).length_nt == 1024
    else:
        with pytest.raises(Dropped, match="longer than 1024 nt"):
            rna_record(row)
        assert rna_record(row, max_length=2000).length_nt == 1025


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"sequence": TRNA}, "without an id"),
        ({"rna_id": "x"}, "without a column sequence"),
        ({"rna_id": "x", "sequence": "ACGUXACGUACGU"}, "no nucleotide"),
        ({"rna_id": "x", "sequence": "ACGU"}, "shorter than 10"),
        ({"rna_id": "x", "sequence": TRNA + "A", "md5": TRNA_MD5}, "md5 does not match"),
    ],
)
def test_rnas_that_are_dropped(row, reason):
    with pytest.raises(Dropped, match=reason):
        rna_record(row)


def test_the_exports_dna_alphabet_and_md5():
    row = {"rnacentral_id": "URS0000000193_3197", "sequence": TRNA.replace("U", "T"), "md5": TRNA_MD5, "taxid": 3197}
    rna = rna_record(row, release="25")
    assert (rna.sequence, rna.md5, rna.urs, rna.release) == (TRNA, TRNA_MD5, "URS0000000193", "25")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"pmid": "1", "abstract": ""}, "without an abstract"),
        ({"pmid": "1", "abstract": None}, "without an abstract"),
        ({"pmid": "1", "abstract": " \n\u200b "}, "without an abstract"),
        ({"pmid": "1", "abstract": "Real.", "retracted": True}, "retracted"),
        ({"pmid": "x; DROP", "abstract": "Real."}, "without a PMID"),
        ({"abstract": "Real."}, "without a PMID"),
    ],
)
def test_papers_that_are_dropped(row, reason):
    with pytest.raises(Dropped, match=reason):
        paper(row)


def test_a_paper_without_pmid_or_without_pmcid():
    assert paper({"pmcid": "pmc12", "abstract": "It binds."})[0].pmid == "PMC12"
    assert paper({"pmid": 12, "abstract": "It binds."})[0].pmcid == ""


def test_an_abstract_of_ten_megabytes_is_cut_at_a_sentence(tmp_path):
    library = collected(folder_with(tmp_path, [{"pmid": "1", "abstract": "MiR-21 binds PTEN in vitro. " * 400_000}]))
    text = abstract_of(library)
    assert MAX_ABSTRACT - 30 < len(text) <= MAX_ABSTRACT and text.endswith("in vitro.")
    assert library.counts()["papers"] == {"kept": 1, f"repaired: abstract cut to {MAX_ABSTRACT} characters": 1}


def test_encodings(tmp_path):
    clean = "Böhm et al. found TGF-β ≥ 2-fold – in vitro."
    misread = clean.encode().decode("cp1252", errors="ignore")
    assert misread != clean
    rows = [
        json.dumps({"pmid": "1", "abstract": clean}, ensure_ascii=False).encode("utf-8-sig"),
        json.dumps({"pmid": "2", "abstract": "Böhm found it – in vitro."}, ensure_ascii=False).encode("cp1252"),
        json.dumps({"pmid": "3", "abstract": "BÃ¶hm found it in vitro."}).encode(),
        b"\x80\x81 no JSON",
        b'{"pmid": "5", "abstract": "cut off',
        b"[1, 2]",
    ]
    folder = folder_with(tmp_path, [{"pmid": str(i)} for i in range(1, 6)])
    (folder / "papers.jsonl").write_bytes(b"\n".join(rows))
    library = collected(folder)
    assert abstract_of(library, "1") == clean
    assert abstract_of(library, "2") == "Böhm found it – in vitro."
    assert abstract_of(library, "3") == "Böhm found it in vitro."
    assert library.counts()["papers"] == {
        "kept": 3,
        "dropped: line that is no JSON object": 3,
        "repaired: line not in UTF-8, read as Windows-1252": 2,
        "repaired: abstract decoded wrongly, put right": 1,
    }


def test_utf16_file(tmp_path):
    folder = folder_with(tmp_path, [{"pmid": "1"}])
    (folder / "papers.jsonl").write_text('{"pmid": "1", "abstract": "TGF-β rises."}\n', encoding="utf-16")
    assert abstract_of(collected(folder)) == "TGF-β rises."


def test_duplicate_pmids_keep_the_longer_abstract_in_either_order(tmp_path):
    versions = [{"pmid": "1", "abstract": "Short text."}, {"pmid": "1", "abstract": "A much longer text it is."}]
    for number, order in enumerate((versions, versions[::-1])):
        library = collected(folder_with(tmp_path / str(number), order))
        assert abstract_of(library) == "A much longer text it is."
        assert library.counts()["papers"] == {"kept": 1, "dropped: PMID seen before (the longer abstract is kept)": 1}


def test_what_cannot_be_used_is_counted(tmp_path):
    rnas, papers = literature(8)
    lonely, wrong = {"rna_id": "lonely", "pmids": ["999"]}, {"rna_id": "wrong", "md5": "0" * 32}
    rnas += [rnas[0], {**rnas[1], **lonely}, {**rnas[1], **wrong}]
    papers.append({"pmid": "77", "abstract": "Withdrawn claim.", "retracted": True})
    library = collected(write_folder(tmp_path, rnas, papers))
    assert library.counts()["rnas"] == {
        "kept": 8,
        "dropped: RNA none of whose papers can be used": 1,
        "dropped: md5 does not match the sequence": 1,
        "dropped: rna_id seen before": 1,
    }
    assert library.counts()["papers"]["dropped: retracted paper"] == 1
    assert library.left_out() == [
        ("papers.jsonl", len(papers), "77", "retracted paper"),
        ("rnas.jsonl", 9, rnas[0]["rna_id"], "rna_id seen before"),
        ("rnas.jsonl", 10, "lonely", "RNA none of whose papers can be used"),
        ("rnas.jsonl", 11, "wrong", "md5 does not match the sequence"),
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pmids": "1;2"}, "pmids that are a text: a list of PMIDs is expected"),
        ({"pmids": []}, "RNA that names no paper"),
        ({"sequence": ""}, "RNA without a sequence"),
        ({"seq": "ACGUACGUACGU"}, "RNA without a column sequence"),
    ],
)
def test_a_row_left_out_is_named_with_its_reason(tmp_path, change, reason):
    rnas, papers = literature(3)
    odd = {**rnas[2], "rna_id": "odd", **change}
    if "seq" in odd:
        del odd["sequence"]
    library = collected(write_folder(tmp_path, [rnas[0], odd, rnas[1]], papers))
    assert library.left_out() == [("rnas.jsonl", 2, "odd", reason)]


def test_rnas_with_the_same_names_and_papers_share_one_literature(tmp_path):
    library = collected(write_folder(tmp_path, *literature(40)))
    assert library.number_of("rna") == 40
    assert library.number_of("literature") == 30
    numbers = {rna.aliases: literature for _, rna, literature, _ in library.rnas()}
    assert len(set(numbers.values())) == len(numbers) == 30


def test_the_rnas_of_a_unit_are_looked_up_not_searched_for(tmp_path):
    """One look through all sets for each of them took hours at 100,000 RNAs."""
    from dataset_builder.storage.store import RNAS_OF_SET

    library = collected(write_folder(tmp_path, *literature(12)))
    steps = [row[3] for row in library.db.execute(f"EXPLAIN QUERY PLAN {RNAS_OF_SET}", (1,))]
    assert any("literature_unit" in step for step in steps) and not any(step.startswith("SCAN") for step in steps)


def test_collecting_again_changes_nothing(tmp_path):
    folder = write_folder(tmp_path, *literature(12))
    first = collected(folder)
    before = [first.number_of(table) for table in ("rna", "paper", "literature", "literature_paper")]
    again = collected(folder)
    assert [again.number_of(table) for table in ("rna", "paper", "literature", "literature_paper")] == before


def test_parquet_gzip_and_fasta(tmp_path):
    rnas, papers = literature(6)
    expected = [rna for _, rna, _, _ in collected(write_folder(tmp_path / "jsonl", rnas, papers)).rnas()]

    folder = tmp_path / "parquet"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rnas), folder / "rnas.parquet")
    with gzip.open(folder / "papers.jsonl.gz", "wt") as handle:
        handle.writelines(json.dumps(row) + "\n" for row in papers)
    assert [rna for _, rna, _, _ in collected(folder).rnas()] == expected

    folder = write_folder(tmp_path / "fasta", [], papers)
    (folder / "rnas.jsonl").unlink()
    (folder / "rnas.fasta").write_text("".join(f">{r['rna_id']} {r['name']}\n{r['sequence'].lower()}\n" for r in rnas))
    (folder / "links.jsonl").write_text(
        "".join(json.dumps({"rna_id": r["rna_id"], "pmid": p}) + "\n" for r in rnas for p in r["pmids"])
    )
    found = [rna for _, rna, _, _ in collected(folder).rnas()]
    assert [(r.rna_id, r.sequence, r.md5, r.taxid) for r in found] == [
        (r.rna_id, r.sequence, r.md5, r.taxid) for r in expected
    ]


def test_a_folder_that_is_none_and_one_with_a_damaged_file(tmp_path):
    with pytest.raises(UserError, match="no folder at .*: expected one with rnas.jsonl and papers.jsonl"):
        collected_from = tmp_path / "nothing"
        collect(collected_from, Store(tmp_path / "l.sqlite"))
    with pytest.raises(UserError, match="should have one of rnas.jsonl.*it has none"):
        collected(tmp_path)
    folder = write_folder(tmp_path / "cut", *literature(4))
    content = gzip.compress((folder / "papers.jsonl").read_bytes())
    (folder / "papers.jsonl").unlink()
    (folder / "papers.jsonl.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="papers.jsonl.gz is damaged"):
        collected(folder)
    assert Store(folder / "library.sqlite").number_of("paper") == 0  # all or nothing


def test_records_have_the_published_columns():
    schemas = published_schemas()
    for schema in schemas.values():
        for column in ("rna_id", "sequence", "length_nt", "rna_type", "species", "taxid", "name", "md5", "release"):
            assert column in schema.names and hasattr(RnaRecord("x", "ACGU"), column)
    assert {"annotation", "method", "pmids", "topics", "model", "prompt_sha256", "faithfulness"} <= set(
        schemas["alignment"].names
    )
    assert {"qa_id", "question", "answer", "kind", "options", "evidence_pmids", "method"} <= set(schemas["qa"].names)


def test_papers_may_be_named_by_their_pmc_id(tmp_path):
    """In RNAs, links and facts, though the library has them by their PMIDs."""
    rnas, papers = literature(6)
    expected = [set(row["pmids"]) for row in rnas]
    for row in papers:
        row["pmcid"] = f"PMC{row['pmid']}"
    links = [{"rna_id": row["rna_id"], "pmid": f"PMC{pmid}"} for row in rnas[3:] for pmid in row.pop("pmids")]
    for row in rnas[:3]:
        row["pmids"] = [f"pmc{pmid}" for pmid in row["pmids"]]
    source = write_folder(tmp_path / "source", rnas, papers)
    fact = {"rna_id": rnas[0]["rna_id"], "source": "x", "text": "y", "pmids": rnas[0]["pmids"][:1]}
    for name, rows in (("links", links), ("facts", [fact])):
        (source / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    library = collected(source)
    query = "SELECT pmid FROM literature_paper JOIN paper ON paper.id = paper WHERE literature = ?"
    found = [{pmid for (pmid,) in library.db.execute(query, (number,))} for _, _, number, _ in library.rnas()]
    assert found == expected
    assert library.curated(rnas[0]["rna_id"])[0].pmids == (fact["pmids"][0][3:],)


def test_links_in_another_format_are_told(tmp_path):
    source = write_folder(tmp_path, *literature(3))
    (source / "links.tsv").write_text("rna_id\tpmid\n")
    with pytest.raises(UserError, match="should have one of links.jsonl, .*; it has links.tsv"):
        collect(source, Store(tmp_path / "library.sqlite"))


def test_links_from_a_parquet_column_of_floats(tmp_path):
    rnas, papers = literature(4)
    links = [(rna["rna_id"], float(pmid)) for rna in rnas for pmid in rna.pop("pmids")] + [("", None)]
    source = write_folder(tmp_path / "source", rnas, papers)
    names, pmids = zip(*links, strict=True)
    pq.write_table(pa.table({"rna_id": names, "pmid": pmids}), source / "links.parquet")
    library = Store(tmp_path / "library.sqlite")
    collect(source, library)
    assert library.counts()["rnas"] == {"kept": 4}
    library.close()
