"""`rnagpt build-dataset` from a folder to a loadable dataset, against a scripted language model on the loopback.

pytest tests/dataset_builder/test_build_dataset.py
"""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from scripted_llm import ScriptedLlm
from scripted_services import ScriptedServices
from synthetic_literature import literature, write_folder

from dataset_builder.publishing.card import biases
from dataset_builder.publishing.yes_no_balance import YesNoBalance
from dataset_builder.sources.local_source import collect
from dataset_builder.storage.records import CuratedFact
from dataset_builder.storage.settings import BuildSettings, ModelSettings
from dataset_builder.storage.store import Store
from rnagpt.cli import main

ROOT = Path(__file__).parents[2]


def command(source, output, server, *more) -> list[str]:
    common = ["build-dataset", str(source), "--output", str(output), "--llm", "scripted", "--endpoint", server.url]
    return [*common, "--timeout", "5", *more]


def rows(output, config) -> list[dict]:
    """Every published row, by its id."""
    found = []
    for path in sorted((output / "dataset" / config).glob("*.parquet")):
        split = path.name.split("-")[0]
        found += [{**row, "split": split} for row in pq.read_table(path).to_pylist()]
    return sorted(found, key=lambda row: (row.get("qa_id", ""), row["rna_id"], row["method"]))


def report(output) -> dict:
    return json.loads((output / "report.json").read_text())


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(source, output, server's paid calls): 48 RNAs, both methods, an inventive model, no faults."""
    folder = tmp_path_factory.mktemp("built")
    source = write_folder(folder / "source", *literature(48))
    with ScriptedLlm(invent=True) as server:
        methods = ["--method", "divide_and_conquer,ais", "--held-out", "0.1"]
        assert main(command(source, folder / "out", server, *methods)) == 0
        return source, folder / "out", Counter(server.paid)


def test_load_dataset_from_the_folder_and_streaming(built, tmp_path):
    from datasets import load_dataset

    _, output, _ = built
    for config in ("alignment", "qa"):
        loaded = load_dataset(str(output / "dataset"), config, cache_dir=str(tmp_path))
        assert set(loaded) == {"train", "validation", "test"}
        assert {name: part.num_rows for name, part in loaded.items()} == Counter(
            row["split"] for row in rows(output, config)
        )
        streamed = load_dataset(str(output / "dataset"), config, split="test", streaming=True)
        assert list(streamed) == loaded["test"].to_list()
        found = [{**row, "split": name} for name, part in loaded.items() for row in part]
        assert sorted(found, key=lambda r: (r.get("qa_id", ""), r["rna_id"], r["method"])) == rows(output, config)
    assert load_dataset(str(output / "dataset"), split="test", cache_dir=str(tmp_path)).to_list()[0]["annotation"]


def test_every_row_rests_on_papers_of_its_own(built):
    source, output, _ = built
    own = {row["rna_id"]: set(row["pmids"]) for row in map(json.loads, open(source / "rnas.jsonl"))}
    abstracts = {row["pmid"]: row["abstract"] for row in map(json.loads, open(source / "papers.jsonl"))}
    for row in rows(output, "alignment"):
        assert set(row["pmids"]) <= own[row["rna_id"]]
        assert row["annotation"] == " ".join(statement["text"] for statement in row["statements"])
        for statement in row["statements"]:
            assert any(statement["text"] in abstracts[pmid] for pmid in statement["pmids"])  # no invention is left
    per_rna = Counter()
    for row in rows(output, "qa"):
        assert row["evidence_pmids"] and set(row["evidence_pmids"]) <= own[row["rna_id"]]
        assert "this RNA" in row["question"] and not row["names_the_rna"]
        assert row["kind"] == "open" or row["answer"] in row["options"]
        per_rna[row["rna_id"], row["method"]] += 1
    assert per_rna and all(5 <= number <= 14 for number in per_rna.values())


def test_neither_yes_nor_no_is_most_answers(built, tmp_path):
    """Of 900 written yes and 100 no (each annotation with five open questions), about as many yes as may be stay; the
    same ones whatever else is published, and never fewer than five questions of an annotation."""

    def question(number, answer):
        return {"question": f"Is it {number}?", "kind": "closed", "answer": answer, "evidence_pmids": ["1"]}

    openly = [{"question": f"What {n}?", "kind": "open", "answer": "x"} for n in range(5)]
    written = [[question(10 * unit + n, "No" if n == 0 else "Yes") for n in range(10)] + openly for unit in range(100)]
    balance = YesNoBalance(0.6, 5)
    for questions in written:
        balance.count("ais", questions, {"train": 2, "test": 1})
    kept = [balance.selected("train", "ais", questions) for questions in written]
    counted = Counter(row["answer"] for questions in kept for row in questions)
    assert counted["No"] == 100 and counted["x"] == 500 and 120 <= counted["Yes"] <= 180
    assert kept == [balance.selected("test", "ais", questions) for questions in written]
    bare = [balance.selected("train", "ais", questions[:6]) for questions in written]
    assert all(len(questions) == 5 and questions[0]["answer"] == "No" for questions in bare)  # of six
    everything = YesNoBalance(1, 5)
    everything.count("ais", written[0], {"train": 1})
    assert everything.selected("train", "ais", written[0]) == written[0]

    _, output, _ = built
    answers = [row["answer"] for row in rows(output, "qa") if row["answer"] in ("Yes", "No")]
    assert answers and report(output)["yes and no"] == Counter(answers)


def test_what_the_model_invented_is_counted(built):
    _, output, _ = built
    reasons = report(output)["left out or repaired"]
    for reason in ("a number the cited papers do not have", "a name the cited papers do not have", "a citation that"):
        assert any(reason in key for key in reasons), reasons


def test_splits_share_no_paper(built):
    _, output, _ = built
    splits: dict = {}
    for row in rows(output, "alignment"):
        for pmid in row["pmids"]:
            splits.setdefault(pmid, set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert {name for found in splits.values() for name in found} == {"train", "validation", "test"}


def test_shared_literature_is_paid_once(built):
    _, output, paid = built
    assert set(paid.values()) == {1}
    by_names: dict = {}
    for row in rows(output, "alignment"):
        by_names.setdefault((row["name"], row["method"]), set()).add(row["annotation"])
    assert all(len(found) == 1 for found in by_names.values())
    assert report(output)["units"] == 36  # of 48 RNAs


@pytest.mark.parametrize(
    ("counted", "llm", "said", "unsaid"),
    [
        ({"Yes": 9, "No": 1}, "none", ["always saying yes gets 90%", "word for word", "at least 1 question,"], []),
        ({"Yes": 3, "No": 5}, "x", ["always saying no gets 62%", "at least 5 questions,"], ["word for word"]),
        ({}, "x", [], ["always saying"]),
    ],
)
def test_the_card_tells_what_a_user_would_fall_for(counted, llm, said, unsaid):
    method = "extractive" if llm == "none" else "ais"
    settings = BuildSettings(ModelSettings(llm), methods=(method,))
    text = biases({"yes and no": counted, "annotation text": "extractive" if llm == "none" else "generated"}, settings)
    assert all(part in text for part in said) and not any(part in text for part in unsaid)


def test_the_card_has_figures_counts_and_configs(built):
    _, output, _ = built
    card = (output / "dataset" / "README.md").read_text()
    for part in ("config_name: alignment", "config_name: qa", "## What was left out, and why", "papers_per_rna.png"):
        assert part in card
    assert (output / "dataset" / "figures" / "papers_per_rna.png").stat().st_size > 1000


def test_the_same_command_again_asks_nothing_and_writes_the_same(built):
    source, output, _ = built
    before = rows(output, "qa"), rows(output, "alignment")
    with ScriptedLlm(invent=True) as server:
        methods = ["--method", "divide_and_conquer,ais", "--held-out", "0.1"]
        assert main(command(source, output, server, *methods)) == 0
        assert not server.paid
    assert (rows(output, "qa"), rows(output, "alignment")) == before


def test_a_rebuilt_dataset_is_not_read_from_the_cache(tmp_path):
    from datasets import load_dataset

    found = []
    for seed in (0, 1):
        source = write_folder(tmp_path / f"source{seed}", *literature(8, seed=seed))
        with ScriptedLlm() as server:
            assert main(command(source, tmp_path / f"out{seed}", server)) == 0
        os.rename(tmp_path / f"out{seed}" / "dataset", tmp_path / "dataset")
        loaded = load_dataset(str(tmp_path / "dataset"), "qa", split="train", cache_dir=str(tmp_path / "cache"))
        found.append(loaded["answer"][:])
        os.rename(tmp_path / "dataset", tmp_path / f"old{seed}")
    assert found[0] != found[1]


def test_without_one_good_question_the_annotations_load(tmp_path, capsys):
    """All annotations stand, all literature sets are quarantined for questions, and nothing bad is published."""
    from datasets import load_dataset

    class NoQuestions(ScriptedLlm):
        def answer(self, body):
            if body["response_format"]["json_schema"]["name"] == "ask":
                return json.dumps({"questions": [{"question": "Why?", "answer": "Yes", "kind": "open"}]})
            return super().answer(body)

    source = write_folder(tmp_path / "source", *literature(6))
    with NoQuestions() as server:
        assert main(command(source, tmp_path / "out", server, "--repairs", "0")) == 0
    dataset = str(tmp_path / "out" / "dataset")
    assert "there is no config qa" in capsys.readouterr().err
    loaded = load_dataset(dataset, cache_dir=str(tmp_path / "cache"))
    assert sum(part.num_rows for part in loaded.values()) == 6
    found = report(tmp_path / "out")
    assert sum(found["quarantined"].values()) == found["units"] == 5 and not found["kinds"]


def test_other_settings_in_the_same_folder_are_refused(built, capsys):
    source, output, _ = built
    with ScriptedLlm() as server:
        assert main(command(source, output, server, "--seed", "5")) == 2
    assert "was begun with other settings" in capsys.readouterr().err


def test_a_source_that_changed_is_read_again_before_the_first_call_and_refused_after_it(tmp_path, capsys):
    rnas, papers = literature(8)
    source = write_folder(tmp_path / "source", rnas[:4], papers)
    with ScriptedLlm() as server:
        assert main(command(source, tmp_path / "out", server, "--plan")) == 0
        write_folder(source, rnas, papers)
        assert main(command(source, tmp_path / "out", server)) == 0
        assert "rnas.jsonl changed" in capsys.readouterr().err
        assert {row["rna_id"] for row in rows(tmp_path / "out", "alignment")} == {row["rna_id"] for row in rnas}
        before = rows(tmp_path / "out", "qa"), Counter(server.paid)
        (source / "links.jsonl").write_text("")
        assert main(command(source, tmp_path / "out", server)) == 2
        assert "links.jsonl in" in capsys.readouterr().err
        (source / "links.jsonl").unlink()
        assert main(command(source, tmp_path / "out", server)) == 0
        assert (rows(tmp_path / "out", "qa"), Counter(server.paid)) == before


def test_the_plan_sends_nothing_and_comes_near(tmp_path, capsys):
    source = write_folder(tmp_path / "source", *literature(40))
    with ScriptedLlm() as server:
        assert main(command(source, tmp_path / "out", server, "--plan")) == 0
        said = capsys.readouterr().err
        assert not server.paid and "plan, from 30 of 30 literature sets (40 RNAs)" in said and "USD" in said
        assert main(command(source, tmp_path / "out", server)) == 0
    planned = report(tmp_path / "out")["planned"]
    assert 0.7 < planned["calls"] / len(server.paid) < 1.5


def test_the_budget_stops_cleanly_and_the_same_command_goes_on(tmp_path, capsys):
    source = write_folder(tmp_path / "source", *literature(20))
    with ScriptedLlm() as server:
        assert main(command(source, tmp_path / "out", server, "--budget-usd", "0.004")) == 2
        said = capsys.readouterr().err
        assert "the next call would pass the budget of 0.004 USD" in said and "raise --budget-usd" in said
        some = len(server.paid)
        assert 0 < some and not (tmp_path / "out" / "dataset").exists()
        assert main(command(source, tmp_path / "out", server, "--budget-usd", "1")) == 0
        assert len(server.paid) > some and set(server.paid.values()) == {1}


def test_the_batch_api_gives_the_same_at_half_the_price(tmp_path, monkeypatch, capsys):
    source = write_folder(tmp_path / "source", *literature(16))
    with ScriptedLlm(off_schema=0.1) as server:
        assert main(command(source, tmp_path / "calls", server)) == 0
        calls = sum(server.paid.values())
    more = ["--batch-api", "--batch-seconds", "0.01"]
    with ScriptedLlm(off_schema=0.1, faults=0.2) as server:
        # killed after a batch was made, before it was noted: found again by its metadata
        with monkeypatch.context() as patch:
            patch.setattr("time.sleep", lambda seconds: (_ for _ in ()).throw(KeyboardInterrupt()))
            assert main(command(source, tmp_path / "batches", server, *more)) == 130
        assert len(server.batches) == 1
        with sqlite3.connect(tmp_path / "batches" / "work" / "calls" / "calls.sqlite") as db:
            db.execute("DELETE FROM batch")
        assert main(command(source, tmp_path / "batches", server, *more)) == 0
        assert set(server.paid.values()) == {1} and len(server.paid) == calls
        assert not server.bodies  # no call besides the batches
        assert len(server.batches) < 12
    for config in ("alignment", "qa"):
        assert rows(tmp_path / "calls", config) == rows(tmp_path / "batches", config)
    spent = report(tmp_path / "batches")["spent"]
    assert spent["usd"] == pytest.approx(calls * (100 * 0.15 + 50 * 0.60) / 1e6 / 2)
    assert spent["events"]["batch lines without an answer"] > 0


def test_an_endpoint_that_refuses_the_key_is_one_sentence(tmp_path, capsys):
    class Closed(ScriptedLlm):
        def handle(self, handler, body, key):
            from scripted_llm import send

            send(handler, 401, {"error": {"message": "Incorrect API key"}})

    source = write_folder(tmp_path / "source", *literature(4))
    with Closed() as server:
        assert main(command(source, tmp_path / "out", server)) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert (
        said.startswith("rnagpt: error: ")
        and "refused with status 401: " in said
        and "check the model's name and the API key" in said
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "no folder at nowhere"),
        (["rnacentral"], "give --contact"),
        (["rnacentral", "--contact", "a@b", "--ids", ""], "--ids takes a file of RNAcentral ids, or FASTA"),
        (["rnacentral", "--contact", "a@b", "--ids", "."], ". is a folder: --ids takes"),
        (["rnacentral", "--contact", "a@b", "--service", "ebix=http://x"], "--service takes NAME=URL with a NAME of"),
        (["rnacentral", "--contact", "a@b", "--service", "ebi"], "--service takes NAME=URL"),
        (["rnacentral", "--contact", "a@b", "--limit", "0"], "--limit must be at least 1, got 0"),
        (["rnacentral", "--contact", "a@b", "--facts", "LitSumm"], "facts come from litsumm, rfam, go; got LitSumm"),
        (["folder", "--facts", "go", "--limit", "3"], "--limit, --facts goes with rnacentral, and the folder folder"),
        (["nowhere", "--method", "magic"], "must be 'divide_and_conquer', 'ais' or 'extractive', got 'magic'"),
        (["nowhere", "--endpoint", "ftp://x"], "--endpoint must begin with http"),
        (["nowhere", "--topics", "many"], "topics are rule, coherence or a number"),
        (["nowhere", "--cap-papers", "0"], "key 'cap_papers' must be at least 1, got 0"),
        (["nowhere", "--budget-usd", "-1"], "key 'budget.usd' must be at least 0"),
        (["nowhere", "--budget-usd", "nan"], "key 'budget.usd' must be at least 0, got nan"),
        (["nowhere", "--price", "-1", "2"], "key 'model.prices.prompt' must be at least 0, got -1.0"),
        (["nowhere", "--price", "1", "nan"], "key 'model.prices.answer' must be at least 0, got nan"),
        (["nowhere", "--most-of-one-answer", "0.2"], "key 'most_of_one_answer' must be at least 0.5, got 0.2"),
        (["nowhere", "--method", "extractive"], "the method extractive goes with --llm none"),
        (
            ["nowhere", "--llm", "none", "--budget-usd", "1", "--batch-api"],
            "--batch-api, --budget-usd goes with a lang",
        ),
        ([__file__], "is a file: give the folder"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, capsys, monkeypatch, arguments, says):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    assert main(["build-dataset", *arguments, "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert says in said and said.startswith("rnagpt: error: ") and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_an_api_key_nothing_begins(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert main(["build-dataset", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert "no API key in the environment variable OPENAI_API_KEY" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_curated_facts_are_a_configuration_of_their_own(tmp_path, capsys):
    """Published with the RNA's split; not where they cite a paper that may lie in another split."""
    from datasets import get_dataset_config_names, load_dataset

    rnas, papers = literature(16)
    source = write_folder(tmp_path / "source", rnas, papers)
    own = [
        {"rna_id": row["rna_id"], "source": "Rfam", "text": "Matches let-7.", "accession": "RF00027", "pmids": pmids}
        for row in rnas
        for pmids in ([], row["pmids"][:1])
    ]
    own += [
        {"rna_id": rnas[0]["rna_id"], "source": "LitSumm", "text": "x", "pmids": [rnas[-1]["pmids"][0]]},
        {"rna_id": "unknown", "source": "Rfam", "text": "x"},
        {"rna_id": rnas[0]["rna_id"], "text": "x"},
        {"rna_id": rnas[0]["rna_id"], "source": "x", "text": "x", "pmids": "1"},
    ]
    (source / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    with ScriptedLlm() as server:
        assert main(command(source, tmp_path / "out", server, "--held-out", "0.2")) == 0
    folder = str(tmp_path / "out" / "dataset")
    assert sorted(get_dataset_config_names(folder)) == ["alignment", "facts", "qa"]
    splits = {row["rna_id"]: row["split"] for row in rows(tmp_path / "out", "alignment")}
    loaded = load_dataset(folder, "facts", cache_dir=str(tmp_path / "cache"))
    published = [(name, row) for name, part in loaded.items() for row in part]
    assert len(published) == 2 * len(splits) > 20 and all(splits[row["rna_id"]] == name for name, row in published)
    assert published[0][1]["text"] == "Matches let-7." and published[0][1]["length_nt"] >= 60
    counted = report(tmp_path / "out")
    assert counted["source: facts"] == {
        "kept": 33,
        "dropped: fact on an RNA that is not there": 1,
        "dropped: fact without a source or a text": 1,
        "dropped: pmids that are no list": 1,
    }
    assert counted["left out or repaired"]["publish: curated facts on papers that were not collected"] == 1
    assert "- `facts`: what others say of the RNAs" in (tmp_path / "out" / "dataset" / "README.md").read_text()


def test_a_mistyped_source_and_a_plan_do_not_bind_the_folder(tmp_path, capsys):
    source = write_folder(tmp_path / "source", *literature(6))
    with open(source / "rnas.jsonl", "a") as file:
        file.write('{"rna_id": "broken off')
    with ScriptedLlm() as server:
        assert main(command(tmp_path / "misspelled", tmp_path / "out", server, "--plan")) == 2
        assert main(["build-dataset", str(source), "--output", str(tmp_path / "out"), "--plan"]) == 0
        said = capsys.readouterr().err
        assert "rnas: dropped: line that is no JSON object (1)" in said
        assert f"{tmp_path / 'out' / 'left_out.tsv'} names the rows of the source that were left out (1)" in said
        table = (tmp_path / "out" / "left_out.tsv").read_text().splitlines()
        assert table == ["file\tline\trecord\treason", "rnas.jsonl\t7\t\tline that is no JSON object"]
        assert main(command(source, tmp_path / "out", server, "--answer-tokens", "900")) == 0
        assert server.paid and main(command(source, tmp_path / "out", server)) == 2  # not with answers made otherwise
    assert "was begun with other settings (answer_tokens 900)" in capsys.readouterr().err


def test_from_the_services_to_the_dataset(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "dataset_builder.sources.polite_client.RATES",
        dict.fromkeys(("ebi", "rnacentral", "export", "europe_pmc"), 1e9),
    )
    rnas, papers = literature(24)
    with ScriptedServices(rnas, papers) as services, ScriptedLlm() as server:
        addresses = [f"{name}={url}" for name, url in services.addresses.items()]
        more = ["--contact", "tests@example.org", "--service", *addresses]
        assert main(command("rnacentral", tmp_path / "out", server, *more)) == 0
        capsys.readouterr()
        for other in (["--facts", "rfam"], ["--limit", "3"], ["--ids", __file__]):  # of a collection that is finished
            assert main(command("rnacentral", tmp_path / "out", server, *more, *other)) == 2
            assert f"was begun with another {other[0][2:]}: use the same" in capsys.readouterr().err
    assert {row["rna_id"] for row in rows(tmp_path / "out", "alignment")} == {row["rna_id"] for row in rnas}
    assert "- Collected from RNAcentral, LitScan and" in (tmp_path / "out" / "dataset" / "README.md").read_text()
    statistics = json.loads((tmp_path / "out" / "dataset" / "statistics.json").read_text())
    assert (statistics["source"], statistics["annotation text"]) == ("rnacentral", "generated")


def test_without_a_language_model(tmp_path, capsys, monkeypatch):
    """Sentences of the abstracts and questions from curated statements: no key, no call, no price; resumed and bound
    to its settings as any other; an RNA without statements has its annotation alone."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    rnas, papers = literature(24)
    source, output = write_folder(tmp_path / "source", rnas, papers), tmp_path / "out"
    texts = {"Rfam": "Matches the Rfam family tRNA.", "GO": "Not enables binding.", "LitSumm": "It falls in glioma."}
    lines = (
        json.dumps({"rna_id": row["rna_id"], "source": name, "text": text, "pmids": row["pmids"][:1]}) + "\n"
        for row in rnas[:12]
        for name, text in texts.items()
    )
    (source / "facts.jsonl").write_text("".join(lines))
    arguments = ["build-dataset", str(source), "--output", str(output), "--llm", "none"]
    assert main([*arguments, "--plan"]) == 0
    assert "18 literature sets (24 RNAs): no language model, no calls and no price" in capsys.readouterr().err
    assert main(arguments) == 0
    abstracts = {row["pmid"]: row["abstract"] for row in papers}
    own = {row["rna_id"]: row["pmids"] for row in rnas}
    annotations, questions = rows(output, "alignment"), rows(output, "qa")
    assert {row["rna_id"] for row in annotations} == set(own)
    for row in annotations:
        assert (row["method"], row["model"], row["prompt_sha256"], row["faithfulness"]) == (
            "extractive",
            "none",
            "",
            1,
        )
        assert all(one["text"] in abstracts[one["pmids"][0]] for one in row["statements"])
        assert row["annotation"] == " ".join(one["text"] for one in row["statements"]) and row["pmids"]
    assert {row["rna_id"] for row in questions} == set(sorted(own)[:12])
    assert all(row["method"] == "extractive" and row["evidence_pmids"] == own[row["rna_id"]][:1] for row in questions)
    answers = {(row["question"], row["answer"]) for row in questions}
    assert {("Which Rfam family does this RNA match?", "tRNA"), ("Does this RNA enable binding?", "No")} <= answers
    assert ("What does LitSumm say about this RNA?", "It falls in glioma.") in answers
    assert report(output)["spent"]["calls"] == 0
    assert main(arguments) == 0 and (rows(output, "alignment"), rows(output, "qa")) == (annotations, questions)
    assert main([*arguments[:-1], "gpt", "--endpoint", "http://127.0.0.1:9/v1"]) == 2
    assert "was begun with other settings (methods ['extractive'], model none)" in capsys.readouterr().err
    (source / "facts.jsonl").unlink()  # nothing was paid: the source is read again
    assert main(arguments) == 0 and rows(output, "qa") == []
    assert "no RNA has curated statements, so there is no config qa: give facts" in capsys.readouterr().err


def test_a_folder_of_the_release_before_goes_on(tmp_path, capsys):
    """Its settings.json names what is gone; one that was begun with a model in process is refused."""
    source = write_folder(tmp_path / "source", *literature(3))
    path = tmp_path / "out" / "work" / "settings.json"
    with ScriptedLlm() as server:
        assert main(command(source, tmp_path / "out", server)) == 0
        row = json.loads(path.read_text())
        row["model"] |= {"kind": "endpoint", "batch": 8}
        row["limits"] |= {"question_tokens": None, "small": False, "fewest_questions": 5}
        row["units_per_rank"] = row.pop("sets_per_rank")
        path.write_text(json.dumps(row))
        calls = Counter(server.paid)
        assert main(command(source, tmp_path / "out", server, "--units-per-rank", "1000")) == 0
        assert server.paid == calls and "--units-per-rank is called --sets-per-rank now" in capsys.readouterr().err
        row["model"]["kind"] = "local"
        path.write_text(json.dumps(row))
        assert main(command(source, tmp_path / "out", server)) == 2
    assert "was begun with a language model in process, which is gone: give another" in capsys.readouterr().err


def test_facts_of_another_form_are_left_out_by_line(tmp_path):
    """No list is cut to its first text, no object published as Python would print it, and nothing stands twice."""
    rnas, papers = literature(3)
    fact = {"rna_id": rnas[0]["rna_id"], "source": "X", "text": "It is known.", "pmids": [int(rnas[0]["pmids"][0])]}
    wrong = {"text": [{"a": 1}, ["one", "two"]], "evidence": [{"by": "eye"}], "pmids": ["12", [None], ["<b>"]]}
    lines = [fact, fact, *({**fact, key: value} for key, values in wrong.items() for value in values)]
    source = write_folder(tmp_path / "source", rnas, papers)
    (source / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    store = Store(tmp_path / "library.sqlite")
    collect(source, store)
    kept = CuratedFact("X", "It is known.", pmids=(rnas[0]["pmids"][0],))
    assert store.curated(rnas[0]["rna_id"]) == [kept]
    shape = "fact with a list or an object where a text is expected"
    no_ids = "pmids that are no PMIDs or PMC ids"
    reasons = ["fact seen before", shape, shape, shape, "pmids that are no list", no_ids, no_ids]
    assert store.left_out() == [
        ("facts.jsonl", line, fact["rna_id"], reason) for line, reason in enumerate(reasons, start=2)
    ]


# --- killed


def python(arguments) -> subprocess.Popen:
    launch = [sys.executable, "-m", "rnagpt", *arguments]
    return subprocess.Popen(launch, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def killed_then_finished(source, output, server, kills, more, calls) -> int:
    """Run and SIGKILL the driver after some more of the `calls` (a random number, so on a slow machine too), `kills`
    times; then to the end. Its workers must go by themselves. -> kills that came before the end."""
    draw, struck = random.Random(0), 0
    for _ in range(kills):
        process = python(command(source, output, server, *more))
        until = sum(server.paid.values()) + draw.randint(1, max(1, calls // (kills + 2)))
        while process.poll() is None and sum(server.paid.values()) < until:
            time.sleep(0.005)
        struck += process.poll() is None
        process.kill()
        process.communicate()
    process = python(command(source, output, server, *more))
    said = process.communicate(timeout=400)[1]
    assert process.returncode == 0, said
    return struck


def compared(tmp_path, rnas, kills, more=(), faults=0.0) -> tuple[int, int, Counter]:
    """A run with kills against one without: the same rows. -> (kills, calls of the whole run, calls paid)."""
    source = write_folder(tmp_path / "source", *literature(rnas))
    more = ["--sets-per-rank", str(max(5, rnas // 8)), "--workers", "2", "--concurrency", "4", *more]
    with ScriptedLlm(faults=faults, off_schema=0.02, hang=1.0) as server:
        process = python(command(source, tmp_path / "whole", server, *more))
        said = process.communicate(timeout=400)[1]
        assert process.returncode == 0, said
        calls = len(server.paid)
    with ScriptedLlm(faults=faults, off_schema=0.02, delay=0.02, hang=1.0) as server:
        struck = killed_then_finished(source, tmp_path / "killed", server, kills, more, calls)
    for config in ("alignment", "qa"):
        assert rows(tmp_path / "killed", config) == rows(tmp_path / "whole", config)
    assert len(server.paid) == calls
    return struck, calls, server.paid


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_kills_give_the_same_dataset(tmp_path):
    struck, calls, paid = compared(tmp_path, 200, 10)
    again = sum(number - 1 for number in paid.values())
    print(f"{calls} calls; {struck} kills; {again} calls asked again")
    # a run that is over before its kill was not struck
    assert struck >= 8 and again == 0  # the workers store what is under way before they go


def test_two_kills_give_the_same_dataset(tmp_path):
    struck, _, paid = compared(tmp_path, 24, 2)
    assert struck == 2 and set(paid.values()) == {1}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_worker_is_replaced_and_a_killed_driver_leaves_none(tmp_path):
    source = write_folder(tmp_path / "source", *literature(60))
    with ScriptedLlm(delay=0.15) as server:
        more = ["--sets-per-rank", "6", "--workers", "2", "--concurrency", "2"]
        process = python(command(source, tmp_path / "out", server, *more))
        workers = wait_for(lambda: server.paid and workers_of(process.pid))
        os.kill(workers[0], signal.SIGKILL)
        fresh = wait_for(lambda: set(workers_of(process.pid)) - set(workers))
        assert fresh
        process.kill()
        process.communicate()
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in {*workers[1:], *fresh}))
        assert main(command(source, tmp_path / "out", server, *more)) == 0


def workers_of(driver: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(driver)], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "dataset_builder.building.executors" in line]


def wait_for(condition, seconds=240):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def test_two_builds_in_one_folder(tmp_path):
    source = write_folder(tmp_path / "source", *literature(20))
    with ScriptedLlm(delay=5.0) as server:
        first = python(command(source, tmp_path / "out", server))
        wait_for(lambda: server.events["none"])
        second = python(command(source, tmp_path / "out", server))
        said = second.communicate(timeout=240)[1]
        first.kill()
        first.communicate()
    assert second.returncode == 2 and "another build is running" in said


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_thousand_rnas_with_a_fault_in_ten(tmp_path):
    source = write_folder(tmp_path / "source", *literature(2000))
    with ScriptedLlm(faults=0.1, hang=2.0) as server:
        arguments = command(source, tmp_path / "out", server, "--workers", "2", "--sets-per-rank", "200")
        arguments[arguments.index("--timeout") + 1] = "1"
        assert main(arguments) == 0
    annotated = {row["rna_id"] for row in rows(tmp_path / "out", "alignment")}
    found = report(tmp_path / "out")
    lost = found["splits"].get("RNAs quarantined", 0)
    print(f"{len(annotated)} annotated, {lost} quarantined", found["quarantined"], found["spent"], server.events)
    assert (
        len(annotated) + lost + sum(n for key, n in found["source: splits"].items() if key.startswith("RNAs dropped"))
        == 2000
    )
    assert set(server.paid.values()) == {1}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_with_a_killed_worker_gives_the_same(tmp_path):
    source = write_folder(tmp_path / "source", *literature(60))
    ray = ["--sets-per-rank", "6", "--workers", "2", "--concurrency", "2", "--executor", "ray"]
    with ScriptedLlm() as server:
        assert main(command(source, tmp_path / "whole", server, "--sets-per-rank", "6")) == 0
    with ScriptedLlm(delay=0.1) as server:
        process = python(command(source, tmp_path / "ray", server, *ray))
        victim = wait_for(lambda: server.paid and ray_worker())
        os.kill(victim, signal.SIGKILL)
        said = process.communicate(timeout=400)[1]
        if process.returncode != 0:
            assert main(command(source, tmp_path / "ray", server, *ray[:-2])) == 0, said
    for config in ("alignment", "qa"):
        assert rows(tmp_path / "ray", config) == rows(tmp_path / "whole", config)
    print(len(server.paid), "calls", sum(server.paid.values()) - len(server.paid), "asked again")
    assert sum(number - 1 for number in server.paid.values()) <= 2


def ray_worker() -> int | None:
    listed = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True).stdout
    found = [int(line.split()[0]) for line in listed.splitlines() if "ray::RankWorker" in line]
    return found[0] if found else None
