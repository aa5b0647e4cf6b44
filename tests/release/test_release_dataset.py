"""`rnagpt release dataset` and `metric` against a Hub on loopback: what loads afterwards, and what is refused.

pytest tests/release/test_release_dataset.py
"""

import hashlib
import json
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from checkout import ROOT
from huggingface_hub import HfApi
from test_auto_classes import clean
from test_release_model import hub  # noqa: F401  (a fixture)

from dataset_builder.storage.records import Paper, published_schemas
from dataset_builder.storage.store import Store
from rnagpt.cli import main
from rnagpt.release import dataset

# no two of them are neighbours: three compositions
SEQUENCES = {
    "train": "GCGGAUUUAGCUCAGUUGGGAGAGCGCC",
    "validation": "AAAAUUAAAUAAAUUUAAAAUAAUAAUU",
    "test": "CCCCCGCC" * 4,
}
ABSTRACT = " ".join(f"word{n}" for n in range(90))


def row(split: str, config: str) -> dict:
    """One row with the public columns."""
    sequence = SEQUENCES[split]
    made = {"method": "ais", "model": "scripted", "prompt_sha256": "0" * 64}
    rna = {
        "rna_id": f"{split}-1",
        "sequence": sequence,
        "length_nt": len(sequence),
        "rna_type": "tRNA",
        "species": "",
        "taxid": 4932,
        "name": f"{split} RNA",
        "md5": hashlib.md5(sequence.encode()).hexdigest(),
        "release": "25",
    }
    pmid = {"train": "1", "validation": "2", "test": "3"}[split]
    if config == "facts":
        return rna | {
            "source": "Rfam",
            "text": "Matches tRNA.",
            "accession": "RF00005",
            "evidence": "",
            "pmids": [pmid],
        }
    if config == "alignment":
        said = f"An RNA of the {split} split is there."
        return (
            rna
            | made
            | {
                "annotation": said,
                "pmids": [pmid],
                "topics": [["rna", "split"]],
                "faithfulness": 1.0,
                "statements": [{"text": said, "pmids": [pmid], "topic": 0}],
            }
        )
    return (
        rna
        | made
        | {
            "qa_id": f"{split}-1/ais/0",
            "question": "Is it a tRNA?",
            "answer": "Yes",
            "kind": "closed",
            "options": ["Yes", "No"],
            "evidence_pmids": [pmid],
            "names_the_rna": False,
        }
    )


def write(folder, change=lambda config, split, rows: rows, schemas=None):
    """A published dataset in `folder`/dataset, as `rnagpt build-dataset` leaves it, small."""
    output = folder / "dataset"
    configs = []
    for config, schema in (schemas or published_schemas()).items():
        (output / config).mkdir(parents=True)
        for split in SEQUENCES:
            rows = change(config, split, [row(split, config)])
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), output / config / f"{split}-00000-abc.parquet")
        files = [{"split": split, "path": f"{config}/{split}-*.parquet"} for split in SEQUENCES]
        configs.append({"config_name": config, "data_files": files} | ({"default": True} if config == "qa" else {}))
    head = {"pretty_name": "RNA-QA", "tags": ["rna"], "configs": configs}
    (output / "README.md").write_text(f"---\n{yaml.safe_dump(head)}---\n# RNA-QA\n\nThe builder's words.\n")
    told = {"RNA types": {"tRNA": 3}, "yes and no": {"Yes": 3}, "annotation text": "generated", "source": "folder"}
    (output / "statistics.json").write_text(json.dumps(told))
    return output


STREAMED = """
import json
from datasets import get_dataset_config_names, load_dataset
out, = sys.argv[1:]
found = {"configs": get_dataset_config_names("owner/rna-qa", revision="v1")}
found["default"] = list(load_dataset("owner/rna-qa", split="train", streaming=True, revision="v1"))
found["qa"] = list(load_dataset("owner/rna-qa", "qa", split="test", streaming=True, revision="v1"))
found["whole"] = {name: part.num_rows for name, part in load_dataset("owner/rna-qa", "qa").items()}
json.dump(found, open(out, "w"))
"""


def test_a_released_dataset_streams_by_repo_id(hub, tmp_path, capsys):  # noqa: F811
    output = write(tmp_path)
    command = ["release", "dataset", str(output), "--repo", "owner/rna-qa"]
    assert main([*command, "--dry-run"]) == 0 and not hub.repos
    assert main([*command, "--collected", "2026-11-01"]) == 0
    said = capsys.readouterr().out
    assert "released" in said and "private" in said
    api = HfApi(endpoint=hub.url, token=hub.token)
    assert "statistics.json" in api.list_repo_files("owner/rna-qa", repo_type="dataset")
    clean(STREAMED, str(tmp_path / "out.json"), folder=tmp_path / "empty", environment=hub.environment(tmp_path / "h"))
    found = json.loads((tmp_path / "out.json").read_text())
    assert sorted(found["configs"]) == ["alignment", "facts", "qa"]
    assert found["default"] == [row("train", "alignment")]
    assert found["qa"] == [row("test", "qa")]
    assert found["whole"] == {"train": 1, "validation": 1, "test": 1}


def test_the_card(tmp_path):
    dataset.stage(write(tmp_path), tmp_path / "staged", "owner/rna-qa", "cc-by-4.0", "2026-11-01")
    text = (tmp_path / "staged" / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["license"] == "cc-by-4.0" and {"rna-qa", "rna"} <= set(head["tags"])
    assert [config["config_name"] for config in head["configs"] if config.get("default")] == ["alignment"]
    for said in ("The builder's words.", "Collected: 2026-11-01", "tRNA 100%", "3 yes, 0 no", "Known biases", "CC0"):
        assert said in text


def change_of(**values):
    """Rows of the test split with other values; RNAcentral ids for those of train too, of another species."""

    def change(config, split, rows):
        inside = {name: value for name, value in values.items() if name in rows[0]}
        if split == "train" and "rna_id" in values:
            return [found | {"rna_id": "URS0000012D5F_10090"} for found in rows]
        return [found | inside for found in rows] if split == "test" else rows

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (change_of(rna_id="URS0000012D5F_9606"), "1 RNA ids in both train and test"),
        (change_of(sequence=SEQUENCES["train"]), "1 sequences in both train and test"),
        (change_of(sequence=SEQUENCES["train"][:-1] + "G"), "1 sequences of test with an 80% neighbour in train"),
        (change_of(pmids=["3", "1"]), "1 papers in both train and test"),
        (change_of(evidence_pmids=["2"]), "1 papers in both validation and test"),
    ],
)
def test_splits_that_leak_are_refused(tmp_path, capsys, change, says):
    output = write(tmp_path, change)
    assert main(["release", "dataset", str(output), "--repo", "owner/rna-qa", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert "the splits leak" in error and says in error and error.count("\n") == 1


def schemas_with(change) -> dict:
    return {config: change(schema) for config, schema in published_schemas().items()}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.remove(s.get_field_index("md5")), "missing: md5"),
        (lambda s: s.append(pa.field("note", pa.string())), "new: note"),
        (lambda s: s.set(s.get_field_index("taxid"), pa.field("taxid", pa.int32())), "of another type: taxid"),
        (lambda s: pa.schema(list(s)[::-1]), "in another order"),
        (lambda s: s.append(pa.field("abstract", pa.string())), "holds raw abstracts"),
    ],
)
def test_other_columns_are_refused(tmp_path, capsys, change, says):
    output = write(tmp_path, schemas=schemas_with(change))
    assert main(["release", "dataset", str(output), "--repo", "owner/rna-qa", "--dry-run"]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("licence", "words", "refused"),
    [("", 80, True), ("CC BY", 80, False), ("CC BY-NC", 80, True), ("", 40, False)],
)
def test_copied_abstracts_need_a_licence(tmp_path, capsys, licence, words, refused):
    copied = "It is said: " + " ".join(ABSTRACT.split()[5 : 5 + words])
    output = write(
        tmp_path,
        lambda config, split, rows: [
            found | ({"annotation": copied} if split == "train" and config == "alignment" else {}) for found in rows
        ],
    )
    (tmp_path / "work").mkdir()
    library = Store(tmp_path / "work" / "library.sqlite")
    with library.writing():
        for pmid in "123":
            library.add_paper(Paper(pmid, "A title", ABSTRACT, licence=licence))
    library.close()
    code = main(["release", "dataset", str(output), "--repo", "owner/rna-qa", "--dry-run"])
    assert code == (2 if refused else 0)
    assert ("without an open licence" in capsys.readouterr().err) == refused


def test_the_library_of_another_dataset_proves_nothing(tmp_path, capsys):
    output = write(tmp_path)
    (tmp_path / "work").mkdir()
    library = Store(tmp_path / "work" / "library.sqlite")
    with library.writing():
        library.add_paper(Paper("777", "A title", ABSTRACT))
    library.close()
    assert main(["release", "dataset", str(output), "--repo", "owner/rna-qa", "--dry-run"]) == 2
    assert "collected for another dataset" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--collected", "yesterday"], "--collected takes a date as YYYY-MM-DD, got 'yesterday'"),
        (["--collected", "20261101"], "--collected takes a date"),
        (["--licence", "CC BY 4.0"], "such as cc-by-4.0, got 'CC BY 4.0'"),
    ],
)
def test_words_that_the_card_cannot_take(tmp_path, capsys, arguments, says):
    assert main(["release", "dataset", str(write(tmp_path)), "--repo", "owner/rna-qa", "--dry-run", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_copies_that_were_not_looked_for_are_told(tmp_path, capsys):
    """The dataset was moved away from the library that holds the abstracts."""
    dataset.stage(write(tmp_path), tmp_path / "staged", "owner/rna-qa", "cc-by-4.0")
    assert "not checked: passages copied from abstracts" in capsys.readouterr().out
    assert "was not looked through" in (tmp_path / "staged" / "README.md").read_text()


@pytest.mark.parametrize(
    ("text", "says", "on_the_card"),
    [
        (
            "extractive",
            "cc-by-4.0 is not ours to give them: give --licence other",
            "each keeps the licence of its paper",
        ),
        (None, "does not say whether the annotations are sentences of the abstracts", "(not recorded here) keep the"),
    ],
)
def test_sentences_of_abstracts_get_no_licence_of_ours(tmp_path, capsys, text, says, on_the_card):
    """Nor may those of a dataset whose builder did not write which they are."""
    output = write(tmp_path)
    (output / "statistics.json").write_text(json.dumps({"annotation text": text} if text else {}))
    command = ["release", "dataset", str(output), "--repo", "owner/rna-qa", "--dry-run", "--out", str(tmp_path / "up")]
    assert main(command) == 2
    assert says in capsys.readouterr().err
    assert main([*command, "--licence", "other"]) == 0
    card = (tmp_path / "up" / "README.md").read_text()
    assert "license: other" in card and on_the_card in card and "own texts" not in card


@pytest.mark.parametrize(("release", "says"), [("25", "RNAcentral (release 25)"), ("", "0 of its 3 ids are RNAc")])
def test_the_card_claims_no_source_that_the_rows_do_not_have(tmp_path, release, says):
    output = write(tmp_path, lambda config, split, rows: [found | {"release": release} for found in rows])
    dataset.stage(output, tmp_path / "staged", "owner/rna-qa", "cc-by-4.0")
    card = (tmp_path / "staged" / "README.md").read_text()
    assert says in card and ("LitScan" in card) == bool(release)
    statistics = json.loads((output / "statistics.json").read_text())
    (output / "statistics.json").write_text(json.dumps(statistics | {"source": "rnacentral"}))
    dataset.stage(output, tmp_path / "collected", "owner/rna-qa", "cc-by-4.0")
    card = (tmp_path / "collected" / "README.md").read_text()
    assert f"RNAcentral (release {release or 'not stated'})" in card and "the folder that it was built" not in card


def test_facts_keep_the_terms_of_their_sources(tmp_path):
    dataset.stage(write(tmp_path), tmp_path / "staged", "owner/rna-qa", "cc-by-4.0")
    card = (tmp_path / "staged" / "README.md").read_text()
    assert "Each row of `facts` keeps the terms of its `source` (Gene Ontology: CC BY 4.0;" in card


def test_what_is_no_dataset_or_holds_a_stray(tmp_path, capsys):
    assert main(["release", "dataset", str(tmp_path), "--repo", "owner/rna-qa", "--dry-run"]) == 2
    assert "is no published RNA-QA" in capsys.readouterr().err
    output = write(tmp_path)
    (output / "notes.txt").write_text("")
    assert main(["release", "dataset", str(output), "--repo", "owner/rna-qa", "--dry-run"]) == 2
    assert "notes.txt: a stray file" in capsys.readouterr().err
    (output / "notes.txt").unlink()
    shutil.copy(output / "README.md", output / "qa" / "test-00000-abc.parquet")
    assert main(["release", "dataset", str(output), "--repo", "owner/rna-qa", "--dry-run"]) == 2
    assert "is no Parquet file" in capsys.readouterr().err


def test_edits_on_the_hub_are_told_before_they_are_replaced(hub, capsys):  # noqa: F811
    command = ["release", "metric", "--repo", "owner/rna_answers"]
    assert main(command) == 0 and main(command) == 0
    assert not capsys.readouterr().err
    api = HfApi(endpoint=hub.url, token=hub.token)
    where = {"repo_id": "owner/rna_answers", "repo_type": "space"}
    api.upload_file(**where, path_or_fileobj=b"---\ntags: [rna-gpt]\n---\nMy own words.", path_in_repo="README.md")
    edited = api.repo_info(**where).sha
    assert main(command) == 0
    assert (
        f"was edited on the Hub since its last release: this one takes the place of all its files, and the edits "
        f"stay in its history (commit {edited[:8]})" in capsys.readouterr().err
    )
    assert main(command) == 0 and not capsys.readouterr().err


def test_the_metric_as_a_space(hub, tmp_path):  # noqa: F811
    import evaluate

    assert main(["release", "metric", "--repo", "owner/rna_answers", "--public"]) == 0
    assert main(["release", "metric", "--repo", "owner/rna-answers", "--dry-run"]) == 2
    api = HfApi(endpoint=hub.url, token=hub.token)
    assert {"rna_answers.py", "requirements.txt", "app.py", "README.md"} <= set(
        api.list_repo_files("owner/rna_answers", repo_type="space")
    )
    pulled = api.snapshot_download("owner/rna_answers", repo_type="space", local_dir=tmp_path / "pulled")
    metric = evaluate.load(f"{pulled}/rna_answers.py", cache_dir=str(tmp_path / "cache"))
    # by repo id: a Space's module is called as the Space is, in snake case
    code = "import evaluate; m = evaluate.load('owner/rna_answers'); print(m.compute(predictions=['a tRNA'], "
    code += "references=['a tRNA'], rna_ids=['x'], mode='paper')['rouge1_f1'])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=hub.environment(tmp_path / "home"), capture_output=True, text=True
    )
    assert done.stdout.strip() == "1.0", done.stderr[-800:]
    scores = metric.compute(predictions=["a tRNA"], references=["a tRNA"], rna_ids=["x"], mode="aligned")
    assert scores["rouge1_f1"] == 1.0
