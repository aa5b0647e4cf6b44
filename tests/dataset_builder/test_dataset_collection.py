"""Collection from the services, spoken by a loopback server in their shapes and with their faults.

pytest tests/dataset_builder/test_dataset_collection.py
"""

import gzip
import json

import pytest
from scripted_services import ScriptedServices
from synthetic_literature import literature

from dataset_builder.sources import rnacentral
from dataset_builder.sources.local_source import listed
from dataset_builder.sources.polite_client import RATES, NotThere, PoliteClient, has_keys
from dataset_builder.sources.rnacentral import Collection
from dataset_builder.storage.records import CuratedFact, dna_md5
from dataset_builder.storage.store import Store
from rnagpt_core.errors import UserError
from rnagpt_core.sequences import stream_fasta

FAST = dict.fromkeys(RATES, 1e9)  # the loopback needs no politeness; Pace has a test of its own


@pytest.fixture(autouse=True)
def little_waiting(monkeypatch):
    monkeypatch.setattr(
        "dataset_builder.sources.polite_client.backoff", lambda attempt, wish, draw: float(wish or 0.01)
    )


def collection(services, tmp_path, timeout=0.6, **options) -> Collection:
    client = PoliteClient(services.addresses, "tests@example.org", timeout, FAST)
    return Collection(Store(tmp_path / "library.sqlite"), client, say=lambda text: None, **options)


def holdings(library) -> dict:
    """What is in a library: {rna_id: (sequence, aliases, PMIDs)}."""
    found = {}
    for _, rna, literature_id, _ in library.rnas():
        pmids = library.db.execute(
            "SELECT pmid FROM literature_paper JOIN paper ON paper.id = paper WHERE literature = ?", (literature_id,)
        )
        found[rna.rna_id] = (rna.sequence, rna.aliases, sorted(pmid for (pmid,) in pmids))
    return found


def expected(rnas) -> dict:
    return {
        row["rna_id"]: (row["sequence"], tuple(alias.lower() for alias in row["aliases"]), sorted(row["pmids"]))
        for row in rnas
    }


def test_everything_arrives_through_faults(tmp_path):
    rnas, papers = literature(300)
    gaps = [row["pmid"] for row in papers[::5]]
    with ScriptedServices(rnas, papers, faults=0.15, page=50, without_abstract=gaps) as services:
        made = collection(services, tmp_path)
        made.run()
    assert holdings(made.library) == expected(rnas)
    assert set(services.events) >= {"429", "500", "cut", "slow", "error inside", "repeat"}
    assert services.agents == {"rnagpt-dataset-builder (mailto:tests@example.org)"}
    counts = made.library.counts()
    assert counts["rnas"] == {"kept": 300}
    assert counts["papers"]["abstracts filled in from Europe PMC"] == len(gaps)
    assert counts["papers"]["names that mean no one RNA, left out"] == 300
    filled = made.library.papers_by_pmid(gaps[:1])[0]
    assert filled.abstract.startswith("Aim miR-") or filled.abstract.startswith("AimmiR-")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_five_thousand_rnas_none_lost_none_doubled(tmp_path):
    rnas, papers = literature(5000)
    with ScriptedServices(rnas, papers, faults=0.03, hang=0.8) as services:
        made = collection(services, tmp_path)
        made.run()
    print(dict(services.events), dict(made.client.events))
    assert holdings(made.library) == expected(rnas)


def test_it_goes_on_where_it_stopped(tmp_path, monkeypatch):
    rnas, papers = literature(80)
    with ScriptedServices(rnas, papers, page=20) as services:
        for stop_after in (3, 30, 90):  # requests
            made = collection(services, tmp_path)
            ask, asked = made.client.ask, []

            def failing(*arguments, ask=ask, asked=asked, stop_after=stop_after, **options):
                asked.append(1)
                if len(asked) > stop_after:
                    raise KeyboardInterrupt
                return ask(*arguments, **options)

            monkeypatch.setattr(made.client, "ask", failing)
            with pytest.raises(KeyboardInterrupt):
                made.run()
            made.library.close()
        made = collection(services, tmp_path)
        made.run()
    assert holdings(made.library) == expected(rnas)
    assert services.requests["rnacentral"] < 2 * (80 + 3 * 40)  # none asked for twice, but for those under way


def test_the_rnas_of_a_list_of_ids_and_of_fasta(tmp_path):
    """As many as the file names, in any order, with the same literature as a search finds; FASTA needs no request for
    a sequence."""
    rnas, papers = literature(24)
    named = rnas[3:15]
    ids = "".join(f"{row['rna_id'].replace('_', '/')}\tx\n" for row in reversed(named))
    (tmp_path / "ids.txt").write_text(f"# my RNAs\n{ids}\nmiR-21\nURS1_2\n")
    text = "".join(f">{row['rna_id']} {row['name']}\n{row['sequence'].replace('U', 'T')}\n" for row in named)
    (tmp_path / "some.fasta.gz").write_bytes(gzip.compress(text.encode()))
    with ScriptedServices(rnas, papers, page=5) as services:
        made = collection(services, tmp_path, ids=str(tmp_path / "ids.txt"))
        made.run()
        assert holdings(made.library) == expected(named) and services.requests["rnacentral"] == 2 * 12
        assert [row[1:3] for row in made.library.left_out()] == [(15, "miR-21"), (16, "URS1_2")]
        (tmp_path / "fasta").mkdir()
        made = collection(services, tmp_path / "fasta", ids=str(tmp_path / "some.fasta.gz"), limit=9)
        made.run()
        assert len(holdings(made.library)) == 9 and holdings(made.library).items() <= expected(named).items()
        assert services.requests["rnacentral"] == 2 * 12
        assert {rna.taxid for _, rna, _, _ in made.library.rnas()} == {9606}
        made.library.close()
        for other in ({"limit": 8}, {"ids": None}, {"facts": ("go",)}):
            wish = {"ids": str(tmp_path / "some.fasta.gz"), "limit": 9} | other
            with pytest.raises(UserError, match=f"was begun with another {next(iter(other))}: use the same"):
                collection(services, tmp_path / "fasta", **wish).run()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gzip"])
def test_a_list_as_other_machines_write_it(tmp_path, encoding):
    """Byte order marks, UTF-16, Windows line ends, gzip without the ending: every RNA is read."""
    named = literature(3)[0]
    ids = [(number, row["rna_id"]) for number, row in enumerate(named, start=1)]
    fasta = "".join(f">{row['rna_id']} {row['name']}\r\n{row['sequence']}\r\n" for row in named)
    for text in (fasta, "\r\n".join(rna_id for _, rna_id in ids)):
        written = gzip.compress(text.encode()) if encoding == "gzip" else text.encode(encoding)
        (tmp_path / "list").write_bytes(written)
        found = list(listed(tmp_path / "list"))
        assert [row[:2] for row in found] == ids
        if text == fasta:
            assert [row["sequence"] for *_, row in found] == [row["sequence"] for row in named]
    if encoding == "utf-8-sig":  # a folder's own FASTA, too
        (tmp_path / "x.fa").write_text(fasta, encoding=encoding)
        assert [header.split()[0] for header, _ in stream_fasta(tmp_path / "x.fa")] == [rna_id for _, rna_id in ids]


def test_an_rna_of_the_list_that_cannot_be_used_is_named(tmp_path):
    rnas, papers = literature(4)
    rnas[2]["gone"] = True
    ids = [row["rna_id"] for row in rnas]
    (tmp_path / "ids.txt").write_text("\n".join(ids))
    text = "".join(f">{rna_id} x\n{'ACGU' * n}\n" for n, rna_id in enumerate(ids, start=1))
    (tmp_path / "some.fa").write_text(text)
    with ScriptedServices(rnas, papers) as services:
        for name, left in (
            ("ids.txt", [(3, ids[2], "RNA that RNAcentral has no record of")]),
            ("some.fa", [(n, ids[n - 1], "shorter than 10 nt") for n in (1, 2)]),
        ):
            (tmp_path / "of").mkdir(exist_ok=True)
            made = collection(services, tmp_path / "of", ids=str(tmp_path / name))
            made.run()
            assert made.library.left_out() == [(name, *row) for row in left]
            made.library.close()
            (tmp_path / "of" / "library.sqlite").unlink()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "does not exist: --ids takes"),
        (b"miR-21\n", "names no RNA: expected ids such as"),
        (b"", "names no RNA"),
        (gzip.compress(b"x" * 999, mtime=0)[:20], "cannot be read"),
    ],
)
def test_a_list_that_names_no_rna(tmp_path, content, said):
    path = tmp_path / ("ids.gz" if content and content[:2] == b"\x1f\x8b" else "ids.txt")
    if content is not None:
        path.write_bytes(content)
    with ScriptedServices(*literature(2)) as services:
        with pytest.raises(UserError, match=said):
            collection(services, tmp_path, ids=str(path)).run()


def test_curated_facts_of_the_rnas(tmp_path, monkeypatch):
    """What LitSumm, Rfam and the Gene Ontology say, through faults and an interruption; papers under the library's
    ids."""
    rnas, papers = literature(12)
    names = ("litsumm", "rfam", "go")
    with ScriptedServices(rnas, papers, faults=0.1) as services:
        made = collection(services, tmp_path, facts=names)
        stored = []

        def interrupted(rna_id, facts):
            if len(stored) == 5:
                raise KeyboardInterrupt
            stored.append(rna_id)
            Store.add_curated(made.library, rna_id, facts)

        monkeypatch.setattr(made.library, "add_curated", interrupted)
        with pytest.raises(KeyboardInterrupt):
            made.run()
        made.library.close()
        made = collection(services, tmp_path, facts=names)
        made.run()
    assert holdings(made.library) == expected(rnas) and len(stored) == 5
    for number, row in enumerate(rnas):
        own = row["pmids"][0]
        summary = [
            CuratedFact("LitSumm (AI-generated)", "MIR1 is of use in medicine (NSCLC).", pmids=(own,)),
            CuratedFact("LitSumm (AI-generated)", "It was seen elsewhere.", pmids=(own, "PMC999999999")),
        ]
        family = CuratedFact(
            "Rfam",
            "Matches the Rfam family let-7 (let-7 microRNA precursor).",
            "RF00027",
            "sequence_start 1, sequence_stop 60",
        )
        term = CuratedFact(
            "Gene Ontology",
            "Involved in miRNA-mediated gene silencing.",
            "GO:0035195",
            "ECO:0000314, direct assay evidence, BHF-UCL",
        )
        assert made.library.curated(row["rna_id"]) == [*(summary if number % 3 != 2 else []), family, term]
    with pytest.raises(UserError, match="facts come from litsumm, rfam, go; got pfam"):
        collection(services, tmp_path, facts=("pfam",)).run()


@pytest.mark.parametrize("wrong", [{"results": [{"text": "x"}]}, [{"go_term": "x"}], {"detail": "moved"}])
def test_a_surprise_in_a_curated_fact_is_an_error(tmp_path, monkeypatch, wrong):
    with ScriptedServices(*literature(2)) as services:
        monkeypatch.setattr(services, "curated", lambda path, params: wrong)
        with pytest.raises(UserError, match="without summary|without go_term_id|an object was expected|results that"):
            collection(services, tmp_path, facts=("litsumm", "go")).run()


def test_a_shortfall_against_the_hit_count_is_an_error(tmp_path):
    with ScriptedServices(*literature(30), short=5) as services:
        with pytest.raises(UserError, match="says it has 35 RNAs for this query and gave 30"):
            collection(services, tmp_path).run()


def test_retracted_papers_inactive_ids_and_long_rnas(tmp_path):
    rnas, papers = literature(12)
    rnas[0]["gone"] = True
    rnas[1].update(sequence="ACGU" * 300, md5=dna_md5("ACGU" * 300))
    rnas[4].update(md5="0" * 32)
    withdrawn = rnas[5]["pmids"]
    with ScriptedServices(rnas, papers, retracted=withdrawn) as services:
        made = collection(services, tmp_path)
        made.run()
    assert made.library.counts()["rnas"] == {
        "kept": 8,
        "dropped: RNA that RNAcentral has no record of": 1,
        "dropped: longer than 1024 nt": 1,
        "dropped: md5 does not match the sequence": 1,
        "dropped: RNA none of whose papers can be used": 1,
    }
    assert made.library.counts()["papers"]["dropped: retracted paper"] == len(withdrawn)
    assert not {p for row in holdings(made.library).values() for p in row[2]} & set(withdrawn)


def test_the_export_service(tmp_path):
    rnas, papers = literature(40)
    with ScriptedServices(rnas, papers) as services:
        made = collection(services, tmp_path, by_export=True, timeout=3)
        made.run()
    assert holdings(made.library) == expected(rnas)
    assert services.requests["rnacentral"] == 0 and services.requests["export"] > 3
    assert {rna.release for _, rna, _, _ in made.library.rnas()} == {"25"}


def test_a_limit(tmp_path):
    rnas, papers = literature(40)
    with ScriptedServices(rnas, papers, page=10) as services:
        made = collection(services, tmp_path, limit=15)
        made.run()
    assert len(holdings(made.library)) == 15


def test_errors_inside_a_200_and_bodies_of_another_shape():
    class Answers(ScriptedServices):
        def rnacentral(self, path, params, body, fault):
            return {"errCode": 404, "errMsg": "Invalid page size"} if path[0] == "no" else ["a list"]

    with Answers([], []) as services:
        client = PoliteClient(services.addresses, "tests@example.org", 2, FAST)
        with pytest.raises(NotThere, match="Invalid page size"):
            client.ask("rnacentral", "no/such", has_keys())
        with pytest.raises(
            UserError, match="did not answer in 6 tries, the last time: body with list where an object"
        ):
            client.ask("rnacentral", "a/list", has_keys(x=int))


def test_a_contact_address_is_asked_for():
    with pytest.raises(UserError, match="give --contact"):
        PoliteClient(rnacentral.ADDRESSES, "")


# The fields of the services' answers, by their public documentation: the interface of RNAcentral (rnacentral.org/api)
# and its export service, EBI Search's RESTful guide with the fields of its domains rnacentral and rnacentral-litscan,
# and the reference of Europe PMC's RESTful web service (core results, status updates).
FIELDS = {
    "EBI Search page": {"hitCount", "entries", "facets", "searchPosition"},
    "EBI Search entry": {"id", "source", "fields"},
    "RNAcentral entry": {"description", "rna_type", "length", "has_lit_scan", "has_litsumm"},
    "LitScan entry": {
        "job_id",
        "title",
        "abstract",
        "abstract_sentence",
        "body_sentence",
        "author",
        "journal",
        "year",
        "pmid",
        "pmcid",
        "doi",
        "cited_by",
    },
    "RNAcentral RNA": {
        "rnacentral_id",
        "sequence",
        "length",
        "description",
        "short_description",
        "species",
        "taxid",
        "genes",
        "publications",
        "rna_type",
        "is_active",
        "distinct_databases",
    },
    "export": {"job", "rnacentral_version", "licenses", "download_date", "results"},
    "exported RNA": {
        "rnacentral_id",
        "taxid",
        "description",
        "rna_type",
        "so_rna_type",
        "databases",
        "secondary_structure",
        "sequence",
    },
    "Europe PMC page": {"version", "hitCount", "nextCursorMark", "nextPageUrl", "request", "resultList"},
    "Europe PMC article": {
        "id",
        "source",
        "pmid",
        "pmcid",
        "doi",
        "title",
        "abstractText",
        "pubYear",
        "authorString",
        "isOpenAccess",
        "license",
        "pubTypeList",
        "commentCorrectionList",
        "inEPMC",
        "inPMC",
        "citedByCount",
    },
    "Europe PMC status updates": {"articlesWithStatusUpdate"},
    "Europe PMC status update": {"src", "extId", "statusUpdates"},
}


def test_the_scripted_services_answer_in_the_documented_fields():
    """The stand-in invents no field that the collectors could come to rely on."""
    rnas, papers = literature(5)
    with ScriptedServices(rnas, papers, page=2, retracted={"1"}) as services:
        page = services.ebi(["rnacentral"], {"query": "", "size": "1000", "searchposition": "0"}, "", "none")
        article = services.ebi(
            ["rnacentral-litscan"],
            {"query": f'job_id:"{rnas[0]["aliases"][0].lower()}"', "size": "10", "searchposition": "0"},
            "",
            "none",
        )
        one = services.rnacentral(["rna", *rnas[0]["rna_id"].split("_")], {}, "", "none")
        exported = services.export(["download"], {}, "", "none")
        body = f"query=PMCID:PMC{papers[0]['pmid']}&cursorMark=*"
        core = services.europe_pmc(["searchPOST"], {}, body, "none")
        status = services.europe_pmc(
            ["status-update-search"], {}, json.dumps({"ids": [{"src": "PMC", "extId": "PMC1"}]}), "none"
        )
    assert set(page) <= FIELDS["EBI Search page"]
    assert set(page["entries"][0]) <= FIELDS["EBI Search entry"]
    assert set(page["entries"][0]["fields"]) <= FIELDS["RNAcentral entry"]
    assert set(article["entries"][0]) == FIELDS["EBI Search entry"]
    assert set(article["entries"][0]["fields"]) <= FIELDS["LitScan entry"]
    assert set(one) <= FIELDS["RNAcentral RNA"]
    assert set(exported) <= FIELDS["export"]
    assert set(exported["results"][0]) <= FIELDS["exported RNA"]
    assert set(core) <= FIELDS["Europe PMC page"]
    assert set(core["resultList"]["result"][0]) <= FIELDS["Europe PMC article"]
    assert set(status) == FIELDS["Europe PMC status updates"]
    assert set(status["articlesWithStatusUpdate"][0]) == FIELDS["Europe PMC status update"]
