"""Preference tuning: unsupported answers, batches for DPO, and the stage on a tiny model."""

import copy
import json
import math

import pytest
import torch
import torch.nn.functional as F
import yaml
from test_training import recipe, train

from processing_rnagpt.collator import PreferenceCollator, SharedPrefixCollator
from rnagpt.checkpoints import checkpoint
from rnagpt.training.recipe import load_recipe, recipe_from
from rnagpt.training.training_rows import unsupported_answers
from rnagpt_core.errors import UserError


def test_an_unsupported_answer_is_another_rnas_to_the_most_similar_question():
    asked = [
        ("a", "Which gene does this RNA target?", "PTEN"),
        ("a", "In which tissue is it found?", "Liver"),
        ("b", "Which gene does it target?", "BCL2"),
        ("b", "In which tissue does it occur?", "liver."),
        ("c", "Which tissue is it found in?", "Heart"),
        ("c", "Unlike anything", "Yes"),
    ]
    # b's liver is a's own answer, spelled otherwise, so a's question about tissue takes c's
    assert unsupported_answers(asked) == ["BCL2", "Heart", "PTEN", "Heart", "Liver", None]
    assert unsupported_answers(asked[:1]) == [None]
    few = unsupported_answers(asked, candidates=3)
    assert few == unsupported_answers(asked, candidates=3) and len(few) == 6
    for one, answer in zip(asked, few, strict=True):
        assert answer is None or any(answer == other[2] and other[0] != one[0] for other in asked)


ROWS = [
    {"rna_id": name, "sequence": rna, "pairs": [{"question": "Type?", "answer": answer} for answer in both]}
    for name, rna, both in (("a", "ACGUACGU", ["A tRNA.", "An rRNA of a kind."]), ("b", "GGC", ["A snRNA.", "No."]))
]


@torch.no_grad()
@pytest.mark.parametrize("cached", [False, True])
def test_log_probabilities_are_those_of_each_conversation_alone(tiny_model, cached):
    from rnagpt.checkpoints.features import encode_features

    model, processor = copy.deepcopy(tiny_model[0]).double(), tiny_model[1]
    sequences = {row["rna_id"]: row["sequence"] for row in ROWS}
    features = encode_features(model.model.rna_encoder, processor.rna_reader, sequences) if cached else None
    batch = PreferenceCollator(processor, features)(ROWS)
    completion = batch.pop("completion_mask")
    logits = model(**batch, use_cache=False).logits[:, :-1]
    targets = batch["input_ids"][:, 1:].masked_fill(completion[:, 1:] == 0, 0)
    taken = F.log_softmax(logits, -1).gather(-1, targets[..., None])[..., 0]
    together = (taken * completion[:, 1:]).sum(1)
    assert together.shape == (4,)
    alone = []
    for side in (0, 1):
        for row in ROWS:
            single = SharedPrefixCollator(processor)([{**row, "pairs": [row["pairs"][side]]}])
            labels, _ = single.pop("labels")[:, 1:], single.pop("loss_weights")
            single["attention_mask"] = single["attention_mask"].double()
            logits = model(**single, use_cache=False).logits[:, :-1]
            answers = labels != -100
            alone.append(-F.cross_entropy(logits[answers], labels[answers], reduction="sum"))
    assert (together - torch.stack(alone)).abs().max() < 1e-5


@pytest.fixture(scope="module")
def instructed(tiny_parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("instructed")
    content = recipe(tiny_parts, folder / "two", "instruction")
    return train(content, folder / "recipe.yaml")


def test_the_stage_prefers_the_right_answers_and_resumes(tiny_parts, instructed, tmp_path, monkeypatch):
    from rnagpt.training import trainer as training

    content = recipe(tiny_parts, tmp_path / "three", "preference", start_from=str(instructed))
    content["sft"] |= {
        "num_train_epochs": 4,
        "learning_rate": 1e-3,
        "beta": 0.5,
        "save_steps": 9,
        "logging_steps": 1,
        "eval_steps": 12,
    }
    whole = train(content, tmp_path / "recipe.yaml")
    curve = [json.loads(line) for line in (whole / "curve.jsonl").read_text().splitlines()]
    held_out = [row["eval_true_loss"] for row in curve if "eval_true_loss" in row]
    losses = [row["loss"] for row in curve if "loss" in row]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4)  # the reference is where it begins
    assert sum(losses[-6:]) / 6 < losses[0] - 0.05 and held_out
    model, processor = checkpoint.load(whole)
    assert model(**processor("<RNAHere>Type?", rna="ACGU")).logits.isfinite().all()
    assert sorted(path.name for path in whole.iterdir()) == sorted(path.name for path in instructed.iterdir())

    # interrupted after a checkpoint, it goes on to the same weights
    content["output"] = str(tmp_path / "again")
    step = training.RnaGptPreferenceTrainer.training_step

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == 11:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(training.RnaGptPreferenceTrainer, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(content, tmp_path / "again.yaml")
    monkeypatch.setattr(training.RnaGptPreferenceTrainer, "training_step", step)
    again = train(content, tmp_path / "again.yaml")
    assert (again / "adapter_model.safetensors").read_bytes() == (whole / "adapter_model.safetensors").read_bytes()


def test_rna_qa_gives_pairs(tiny_parts, tmp_path):
    from rnagpt.training.training_rows import load_rows

    records = [
        {"rna_id": f"rna{i}", "sequence": "ACGGU" * 2, "question": f"What does it {verb}?", "answer": f"{verb} {i}"}
        for i in range(4)
        for verb in ("bind", "cut")
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "README.md").write_text(
        "---\n" + yaml.safe_dump({"configs": [{"config_name": "qa", "data_files": "train.jsonl"}]}) + "---\n"
    )
    content = recipe(tiny_parts, tmp_path / "out", "preference", start_from="x")
    content["data"] = {"sources": [{"path": str(tmp_path)}]}
    rows = load_rows(recipe_from(content)).train
    assert len(rows) == 8
    for row in rows:
        preferred, given_up = row["pairs"]
        verb, number = preferred["answer"].split()
        assert given_up["answer"].startswith(verb) and given_up["answer"] != preferred["answer"]
        assert row["rna_id"] == f"rna{number}" and preferred["question"] == given_up["question"]


def test_what_does_not_suit_the_stage_is_refused(tiny_parts, tmp_path):
    content = recipe(tiny_parts, tmp_path / "out", "preference")
    with pytest.raises(UserError, match="start_from is missing"):
        recipe_from(content)
    with pytest.raises(UserError, match="pack is not for the preference stage"):
        recipe_from({**content, "start_from": "x", "pack": True})
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "parts.json").write_text("{}")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**content, "start_from": str(tmp_path / "one")}))
    import train_sft

    with pytest.raises(UserError, match="holds no adapter"):
        train_sft.train(load_recipe(path))
    path.write_text(yaml.safe_dump({**content, "start_from": str(tmp_path / "one"), "sft": {"betta": 1.0}}))
    with pytest.raises(UserError, match="sft.betta is no argument of trl.DPOConfig: did you mean beta"):
        train_sft.train(load_recipe(path))
