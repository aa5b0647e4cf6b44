"""What a recipe trains on: RNA-QA folders, conversations without RNA, mixes of them."""

import json
from collections import Counter

import pytest
import yaml
from test_training import recipe, train

from rnagpt.training.recipe import check_sft, load_recipe
from rnagpt_core.errors import UserError

TYPES = ("tRNA", "5S_rRNA", "miRNA")


@pytest.fixture(scope="module")
def rna_qa(tmp_path_factory):
    """A folder in RNA-QA's form, as load_dataset reads it: two configurations, two splits."""
    folder = tmp_path_factory.mktemp("data") / "rna-qa"
    configs = []
    for config in ("alignment", "qa"):
        files = []
        for split, n in (("train", 12), ("validation", 6)):
            records = []
            for i in range(n):
                rna = {"rna_id": f"{split}{i}", "sequence": "ACGU" * (3 + i), "rna_type": TYPES[i % 3]}
                if config == "alignment":
                    records.append(rna | {"annotation": f"It is a {rna['rna_type']}."})
                else:
                    asked = [{"question": f"Question {k}?", "answer": f"Answer {i} {k}."} for k in range(5)]
                    records += [rna | pair for pair in asked]
            path = folder / config / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(record) + "\n" for record in records))
            files.append({"split": split, "path": f"{config}/{split}.jsonl"})
        configs.append({"config_name": config, "data_files": files})
    (folder / "README.md").write_text("---\n" + yaml.safe_dump({"configs": configs}) + "---\n")
    return folder


@pytest.fixture(scope="module")
def conversations(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    turns = [("Hello?", "Hello."), ("And again?", "Again.")]
    messages = [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    (folder / "train.jsonl").write_text(8 * (json.dumps({"messages": messages}) + "\n"))
    return folder


def rows_of(tmp_path, tiny_parts, stage, sources, **changes):
    from rnagpt.training.training_rows import load_rows

    content = recipe(tiny_parts, tmp_path / "out", stage, **changes)
    content["data"] = {"sources": sources, "pairs_per_sample": 3, "validation_rnas": 6}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_rows(load_recipe(path))


def test_questions_of_an_rna_stay_together_and_none_is_lost(tmp_path, tiny_parts, rna_qa):
    rows = rows_of(tmp_path, tiny_parts, "instruction", [{"path": str(rna_qa), "validation_split": "validation"}])
    asked = [(row["rna_id"], pair["question"], pair["answer"]) for row in rows.train for pair in row["pairs"]]
    assert sorted(asked) == sorted(
        (f"train{i}", f"Question {k}?", f"Answer {i} {k}.") for i in range(12) for k in range(5)
    )
    assert Counter(len(row["pairs"]) for row in rows.train) == {3: 12, 2: 12}
    assert rows.sequences == {row["rna_id"]: row["sequence"] for part in (rows.train, rows.held_out) for row in part}
    assert [row["rna_id"] for row in rows.held_out] == [f"validation{i}" for i in range(6)]
    types = {f"validation{i}": TYPES[i % 3] for i in range(6)}
    for true, swapped in zip(rows.held_out, rows.swapped, strict=True):
        assert true["pairs"] == swapped["pairs"] and types[true["rna_id"]] != types[swapped["rna_id"]]


def test_alignment_rows_ask_nothing_and_answer_with_the_annotation(tmp_path, tiny_parts, rna_qa):
    rows = rows_of(tmp_path, tiny_parts, "alignment", [{"path": str(rna_qa)}], projector_start="ridge")
    assert [row["pairs"][0]["question"] for row in rows.train] == [""] * 12
    assert rows.annotations["train1"] == "It is a 5S_rRNA." and len(rows.annotations) == 12
    assert len(rows.held_out) == len(rows.swapped) == 0


def test_sources_are_mixed_by_weight(tmp_path, tiny_parts, rna_qa, conversations):
    sources = [{"path": str(rna_qa)}, {"path": str(conversations), "text": True, "weight": 0.25}]
    rows = rows_of(tmp_path, tiny_parts, "instruction", sources)
    text = [row for row in rows.train if not row["sequence"]]
    assert all(row["pairs"][0]["turns"][1] == {"question": "And again?", "answer": "Again."} for row in text)
    assert 0.05 < len(text) / len(rows.train) < 0.4
    assert {row["rna_id"] for row in rows.train if row["sequence"]} == {f"train{i}" for i in range(12)}


def test_a_mix_trains_to_the_end(tmp_path, tiny_parts, rna_qa, conversations):
    content = recipe(tiny_parts, tmp_path / "out", "instruction", pack=True)
    content["data"] = {
        "sources": [
            {"path": str(rna_qa), "validation_split": "validation"},
            {"path": str(conversations), "text": True, "weight": 0.5},
        ],
        "validation_rnas": 6,
    }
    output = train(content, tmp_path / "recipe.yaml")
    curve = [json.loads(line) for line in (output / "curve.jsonl").read_text().splitlines()]
    assert any("loss" in line for line in curve) and any("eval_swapped_loss" in line for line in curve)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"path": "no/such/folder/here"}, "no data set at no/such/folder/here"),
        ({"config": "facts"}, "facts"),
        ({"config": "qa"}, "lacks the columns annotation"),
        ({"text": True, "config": "qa"}, "lacks the columns messages"),
    ],
)
def test_a_source_that_cannot_be_read_is_named(tmp_path, tiny_parts, rna_qa, source, message):
    with pytest.raises(UserError, match=message):
        rows_of(tmp_path, tiny_parts, "alignment", [{"path": str(rna_qa)} | source])


def test_messages_that_are_no_conversation_are_named_with_their_number(tmp_path, tiny_parts):
    good, bad = ([{"role": role, "content": "x"} for role in roles] for roles in (("user", "assistant"), ("user",)))
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps({"messages": m}) + "\n" for m in (good, bad)))
    with pytest.raises(UserError, match="record 1: the messages' roles are user, expected user and assistant"):
        rows_of(tmp_path, tiny_parts, "instruction", [{"path": str(folder), "text": True}])


@pytest.mark.parametrize(
    ("sft", "message"),
    [
        ({"learning_rat": 1e-3}, "sft.learning_rat is no argument of trl.SFTConfig: did you mean learning_rate"),
        ({"learning_rate": "1e-3"}, "sft.learning_rate must be float or int, got '1e-3' .YAML reads 1e-3 as text"),
        ({"logging_steps": True}, "sft.logging_steps must be"),
        ({"output_dir": "x"}, "sft.output_dir is not for a recipe: give the recipe key `output`"),
        ({"packing": True}, "sft.packing is not for a recipe: give the recipe key `pack`"),
    ],
)
def test_a_wrong_argument_of_the_trainer_is_refused_by_name(sft, message):
    with pytest.raises(UserError, match=message):
        check_sft(sft)


def test_arguments_that_do_not_go_together_are_refused_before_anything_loads(tmp_path, tiny_parts):
    content = recipe(tiny_parts, tmp_path / "out")
    content["model"]["llm"] = "no/such/model"  # never reached
    content["sft"] |= {"load_best_model_at_end": True, "eval_strategy": "no"}
    with pytest.raises(UserError, match="sft or lora arguments do not go together"):
        train(content, tmp_path / "recipe.yaml")


def test_a_folder_named_like_a_format_is_a_folder(tiny_parts, tmp_path, monkeypatch):
    from rnagpt.training.recipe import SourceRecipe
    from rnagpt.training.training_rows import source_rows

    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").mkdir()
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}]
    (tmp_path / "text" / "train.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    (row,) = source_rows(SourceRecipe("text", config="default", text=True), "train", "instruction", 1)
    assert row["pairs"][0]["turns"][0]["answer"] == "Hi."


@pytest.mark.parametrize(
    ("config", "message"),
    [("default", r"plain \(default, train\) has no rows|no data set at plain"), (None, "config: default")],
)
def test_a_folder_of_plain_files_is_told_what_it_needs(tmp_path, monkeypatch, config, message):
    from rnagpt.training.recipe import SourceRecipe
    from rnagpt.training.training_rows import source_rows

    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "train.jsonl").write_text("" if config else '{"rna_id": "a"}\n')
    with pytest.raises(UserError, match=message):
        list(source_rows(SourceRecipe("plain", config=config), "train", "instruction", 1))
