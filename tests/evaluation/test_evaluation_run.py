"""A whole evaluation of planted systems and of a tiny RNA-GPT: what it finds out, what it leaves, how it goes on."""

import csv
import json
import random
import re
from dataclasses import replace

import pytest
import yaml
from loopback_server import LoopbackServer, send

from rnagpt.cli import main
from rnagpt.evaluation.asking.answers import EndpointAnswers, FileAnswers, collect
from rnagpt.evaluation.asking.controls import input_rnas
from rnagpt.evaluation.asking.items import ItemWriter, read_items
from rnagpt.evaluation.asking.qa_items import qa_items, read_qa, sampled
from rnagpt.evaluation.evaluation_recipe import load_evaluation
from rnagpt.evaluation.run import evaluate
from rnagpt.evaluation.scoring.measures import MeasureWriter, read_measures
from rnagpt.evaluation.scoring.text_scores import write_text_scores
from rnagpt_core.errors import UserError

TYPES = ("tRNA", "miRNA", "snoRNA")
PARTNERS = ("Dicer", "Hfq", "Drosha", "fibrillarin", "Argonaute", "nucleolin", "exportin", "synthetase")


def qa_rows(prefix, count, seed, shared=()):
    """RNA-QA rows of `count` RNAs: open, yes-or-no and with options; each RNA has its own papers."""
    rng, rows = random.Random(seed), []
    for number in range(count):
        rna_type = TYPES[number % 3]
        sequence = "".join(rng.choices("ACGU", k=rng.randint(60, 90)))
        about = {
            "rna_id": f"{prefix}{number}",
            "sequence": sequence,
            "rna_type": rna_type,
            "name": f"{prefix}-R{number}",
            "evidence_pmids": [f"{seed}{number:04d}", *shared],
            "method": "ais",
        }
        partner = rng.choice(PARTNERS)
        binding = f"This {rna_type} binds {partner} in vivo [{seed}{number:04d}]."
        for kind, question, options, answer in (
            ("open", "Which protein does this RNA bind?", None, binding),
            ("closed", "Is this RNA a tRNA?", None, "Yes." if rna_type == "tRNA" else "No."),
            ("closed", "What type of RNA is it?", list(TYPES), f"A {rna_type}."),
        ):
            rows.append(about | {"kind": kind, "question": question, "options": options, "answer": answer})
    return rows


def write_rows(path, rows):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.fixture(scope="module")
def rna_qa(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rna-qa")
    write_rows(folder / "qa" / "train-00000-of-00001.parquet", qa_rows("train", 30, 1))
    write_rows(folder / "qa" / "test.parquet", qa_rows("test", 24, 2))
    return folder


def recipe_file(folder, rna_qa, systems, **more):
    path = folder / "evaluation.yaml"
    path.write_text(yaml.safe_dump({"data": {"source": str(rna_qa)}, "systems": systems} | more))
    return path


# --- RNA-QA becomes items


def test_rna_qa_is_read_and_labelled(rna_qa):
    rnas = read_qa(rna_qa, "test")
    items = qa_items(rnas)
    assert len(rnas) == 24 and len(items) == 72
    first = {item.question: item for item in items if item.rna_id == "test0"}
    assert first["Is this RNA a tRNA?"].gold == "yes" and first["Is this RNA a tRNA?"].options == ("yes", "no")
    assert first["What type of RNA is it?"].gold == "tRNA" and first["What type of RNA is it?"].kind == "closed"
    free = first["Which protein does this RNA bind?"]
    assert free.free_text and free.kind == "open" and free.method == "ais" and free.evidence_pmids == ("20000",)
    assert len({item.cluster for item in items}) == 24
    assert sampled(rnas, 5, 0) == sampled(rnas, 9, 0)[:5] != sampled(rnas, 5, 1)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda folder: None, "holds no split 'test'"),
        (lambda folder: (folder / "test.jsonl").write_text('{"rna_id": "a"}\n'), "lacks sequence, question, answer"),
        (lambda folder: (folder / "test.jsonl").write_text("{\n"), "line 1 of .* is no JSON"),
        (lambda folder: write_rows(folder / "test.parquet", [{"rna_id": "a"}]), "lacks sequence"),
    ],
)
def test_what_is_no_rna_qa_is_named(tmp_path, spoil, message):
    spoil(tmp_path)
    with pytest.raises(UserError, match=message):
        read_qa(tmp_path, "test")
    with pytest.raises(UserError, match="no RNA-QA at"):
        read_qa(tmp_path / "nowhere", "test")


# --- planted systems: one reads the RNA, one does not


class Planted:
    """Answers from what it is shown (an oracle that reads), or from the question's own RNA whatever it is shown."""

    batch_size = 7

    def __init__(self, items, rnas, reads):
        by_sequence = {rna.sequence: rna.rna_id for rna in rnas}
        self.by_key = {(item.rna_id, item.question): item.reference for item in items}
        self.read = (lambda item, sequence: by_sequence.get(sequence)) if reads else None
        self.constant = {item.question: item.reference for item in items}

    def prompt(self, item, sequence):
        seen = self.read(item, sequence) if self.read else None
        return json.dumps([seen, item.question])

    def answer(self, asked):
        return [
            self.by_key.get((seen, question)) or self.constant[question] for seen, question in map(json.loads, asked)
        ]


def planted_run(rna_qa, folder, reads):
    rnas = read_qa(rna_qa, "test")
    items = qa_items(rnas)
    with ItemWriter(folder / "evaluation" / "items.jsonl") as writer:
        for control in ("true", "swapped", "shuffled", "no_rna"):
            key = "stage2" if control == "true" else f"stage2_{control}"
            collect(Planted(items, rnas, reads), items, key, input_rnas(control, rnas), writer)
    write_text_scores(read_items(folder / "evaluation" / "items.jsonl"), [], folder / "evaluation")
    rng = random.Random(0)
    with MeasureWriter(folder / "evaluation" / "likelihoods.jsonl") as writer:
        for item in read_items(folder / "evaluation" / "items.jsonl"):
            informed = reads and item.system == "stage2"
            writer.write(item.system, item.key, {"reference_logprob": rng.gauss(-1 if informed else -2, 0.3)})
    assert main(["evaluate", str(folder)]) == 0
    return json.loads((folder / "evaluation" / "summary.json").read_text())


@pytest.mark.parametrize("reads", [True, False])
def test_an_oracle_has_a_grounding_gap_and_a_system_that_ignores_the_rna_has_none(rna_qa, tmp_path, capsys, reads):
    summary = planted_run(rna_qa, tmp_path, reads)
    gaps = {(row["control"], row["measure"]): row for row in summary["grounding"]}
    assert {measure for _, measure in gaps} == {"label", "likelihood", "rougeL"} and len(gaps) == 9
    for (control, measure), gap in gaps.items():
        assert (gap["low"] > 0 and gap["p_holm"] < 0.05) == reads, (control, measure)
        assert gap["low"] <= 0 <= gap["high"] or reads
    page = (tmp_path / "report.html").read_text()
    assert ("RNA-GPT reads the RNA" in page) == reads and ("not shown to read the RNA" in page) != reads
    assert "Does it read the RNA?" in page and "Answers as texts" in page


def test_the_papers_tables_stand_beside_its_own_values(rna_qa, tmp_path):
    summary = planted_run(rna_qa, tmp_path, reads=True)
    (table,) = summary["text"]
    assert table["method"] == "ais" and table["n_rna"] == 24 and table["n_questions"] == 72
    rouge = list(csv.reader((tmp_path / "tables" / "paper_rouge_ais.csv").open()))
    cells = dict(zip(*rouge, strict=True))
    assert cells["RNA-GPT (stage 2): Rouge-1"] == "1.0000 (0.5031)"
    assert cells["LLM, RNA as text: Rouge-L"] == "- (0.2037)"
    similarity = list(csv.reader((tmp_path / "tables" / "paper_similarity_ais.csv").open()))
    assert [row[0] for row in similarity] == ["Metric", "Precision", "Recall", "F1 Score"]
    assert similarity[3][similarity[0].index("RNA-GPT (stage 2): S_GPT")] == "- (0.7700)"
    markdown = (tmp_path / "tables" / "paper_rouge_ais.md").read_text()
    assert markdown.startswith("Table 2: RNA-QA (AIS), 24 RNAs") and "| 1.0000 (0.5031) |" in markdown
    index = yaml.safe_load((tmp_path / "model_index.yaml").read_text())["model-index"][0]
    found = [metric for result in index["results"] for metric in result["metrics"]]
    assert {"type": "rouge", "value": 1, "name": "rouge1 F1, paper mode, ais (Stage 2)"} in found
    assert any("another RNA" in metric["name"] for metric in found)
    assert {path.name for path in (tmp_path / "figures").iterdir()} >= {
        "accuracy.svg",
        "similarity.svg",
        "type_by_system.svg",
    }
    cited = summary["citations"]["stage2"]  # the closed answers cite nothing
    assert cited["precision"]["value"] == 1 and cited["recall"]["value"] == pytest.approx(1 / 3)
    assert summary["citations"]["stage2_swapped"]["precision"]["value"] == 0


def test_every_figure_is_computed_again_without_a_model(rna_qa, tmp_path):
    summary = planted_run(rna_qa, tmp_path, reads=True)
    page = (tmp_path / "report.html").read_text()
    for name in ("report.html", "model_index.yaml"):
        (tmp_path / name).unlink()
    assert main(["evaluate", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "evaluation" / "summary.json").read_text()) == summary
    assert (tmp_path / "report.html").read_text() == page


# --- a whole run


@pytest.fixture(scope="module")
def finished(rna_qa, tiny_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    recipe = recipe_file(
        folder,
        rna_qa,
        [
            {
                "name": "stage2",
                "kind": "rna",
                "model": str(tiny_checkpoint),
                "max_new_tokens": 3,
                "controls": ["swapped", "swapped_same", "shuffled", "no_rna"],
            },
            {"name": "llm_text", "kind": "llm_text", "model": str(tiny_checkpoint), "max_new_tokens": 3},
        ],
        data={"source": str(rna_qa), "rnas": 6},
    )
    assert main(["evaluate", str(folder), "--recipe", str(recipe)]) == 0
    return folder, recipe


CONTROLLED = ["stage2_swapped", "stage2_swapped_same", "stage2_shuffled", "stage2_no_rna"]
SYSTEMS = {"majority", "question_only", "nearest_train", "nearest_identity", "llm_text", "stage2", *CONTROLLED}


def test_every_system_answers_every_question(finished):
    items = read_items(finished[0] / "evaluation" / "items.jsonl")
    asked = {system: {item.key for item in items if item.system == system} for system in SYSTEMS}
    assert {item.system for item in items} == SYSTEMS
    type_of = {item.rna_id: item.rna_type for item in items}
    with_another = {key for key in asked["stage2"] if list(type_of.values()).count(type_of[key[0]]) > 1}
    assert asked.pop("stage2_swapped_same") == with_another
    assert all(keys == asked["majority"] for keys in asked.values()) and len(asked["stage2"]) == 18
    same = [item for item in items if item.system == "stage2_swapped_same"]
    assert all(item.shown_rna_id != item.rna_id for item in same)
    assert all(type_of[item.shown_rna_id] == item.rna_type for item in same)
    assert all(0 < item.train_identity < 0.8 for item in items)


def test_likelihoods_are_those_of_the_model_run_alone(finished, tiny_model):
    """Batched and padded, they equal one unpadded forward pass each."""
    import torch

    from rnagpt.evaluation.scoring.likelihood import option_wordings

    model, processor = tiny_model
    items = [
        item for item in read_items(finished[0] / "evaluation" / "items.jsonl") if item.system == "stage2_swapped"
    ]
    measures = read_measures(finished[0] / "evaluation" / "likelihoods.jsonl")["stage2_swapped"]
    source = yaml.safe_load(finished[1].read_text())["data"]["source"]
    rnas = {rna.rna_id: rna.sequence for rna in read_qa(source, "test")}
    wordings = option_wordings(
        [item for item in read_items(finished[0] / "evaluation" / "items.jsonl") if item.system == "stage2"]
    )
    for item in items[:6]:
        prompt = processor(
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "rna", "rna": rnas[item.shown_rna_id]},
                        {"type": "text", "text": item.question},
                    ],
                }
            ]
        )

        def alone(text, prompt=prompt):
            """Log-probabilities of a text's tokens after the prompt."""
            answer = processor.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
            ids = torch.cat([prompt["input_ids"], answer], dim=1)
            with torch.no_grad():
                logits = model(**prompt | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}).logits
            shares = logits[0, -answer.shape[1] - 1 : -1].log_softmax(-1)
            return shares.gather(1, answer[0][:, None])

        found = measures[item.key]
        assert found["reference_logprob"] == pytest.approx(float(alone(item.reference).mean()), abs=1e-4)
        expected = [float(alone(wordings[item.topic].get(label, label)).sum()) for label in item.options]
        assert found.get("option_logprobs", []) == pytest.approx(expected, abs=1e-3)
    assert any(len(item.options) == 3 for item in items[:6]) and any(len(item.options) == 2 for item in items[:6])


def test_a_finished_run_answers_nothing_again(finished, monkeypatch):
    folder, recipe = finished
    from rnagpt.evaluation import run

    monkeypatch.setattr(run, "open_source", lambda part: pytest.fail("a model was loaded"))
    before = (folder / "evaluation" / "items.jsonl").read_bytes()
    assert main(["evaluate", str(folder), "--recipe", str(recipe)]) == 0
    assert (folder / "evaluation" / "items.jsonl").read_bytes() == before


def test_a_stopped_run_goes_on_where_it_stopped(finished, tmp_path):
    import shutil

    folder, recipe = finished
    shutil.copytree(folder / "evaluation", tmp_path / "evaluation")
    shutil.copy(folder / "evaluation.json", tmp_path)
    for name in ("items.jsonl", "likelihoods.jsonl", "scores.jsonl"):
        content = (tmp_path / "evaluation" / name).read_bytes()
        (tmp_path / "evaluation" / name).write_bytes(content[: len(content) * 2 // 3])  # in the middle of a line
    assert main(["evaluate", str(tmp_path), "--recipe", str(recipe)]) == 0
    for name, read in (
        ("items.jsonl", lambda path: {(i.system, i.key): i for i in read_items(path)}),
        ("scores.jsonl", read_measures),
    ):
        assert read(tmp_path / "evaluation" / name) == read(folder / "evaluation" / name)


def test_the_plan_answers_nothing(finished, tmp_path, capsys):
    assert main(["evaluate", str(tmp_path / "new"), "--recipe", str(finished[1]), "--estimate"]) == 0
    said = capsys.readouterr().err
    assert "--estimate is called --plan now" in said
    assert "6 RNAs, 18 questions" in said and "on this machine" in said
    assert re.search(r"stage2 +\d+ answers +about \d+ s, their likelihoods \d+ s", said)
    assert not (tmp_path / "new" / "report.html").exists()
    assert not read_items(tmp_path / "new" / "evaluation" / "items.jsonl")
    none = recipe_file(
        tmp_path,
        yaml.safe_load(finished[1].read_text())["data"]["source"],
        [],
        data=yaml.safe_load(finished[1].read_text())["data"],
    )
    evaluate(load_evaluation(none), tmp_path / "new")  # the same folder, now in earnest, is no other run's
    assert (tmp_path / "new" / "evaluation.json").is_file()


def test_another_evaluation_in_the_same_folder_is_refused(finished, capsys):
    folder, recipe = finished
    other = folder / "other.yaml"
    other.write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text()) | {"seed": 9}))
    assert main(["evaluate", str(folder), "--recipe", str(other)]) == 2
    assert "another evaluation (different: seed)" in capsys.readouterr().err


def test_leaked_splits_are_refused_with_the_counts(tmp_path, capsys):
    rows = qa_rows("train", 12, 1)
    leaked = [row | {"rna_id": f"new{i}", "evidence_pmids": ["9"]} for i, row in enumerate(rows[:9])]
    leaked = [row | {"rna_id": f"new{i // 3}"} for i, row in enumerate(leaked)]
    edited = [
        row | {"rna_id": "edited", "sequence": rows[9]["sequence"][:-3] + "CCC", "evidence_pmids": ["8"]}
        for row in rows[9:12]
    ]
    write_rows(tmp_path / "data" / "train.parquet", rows)
    write_rows(tmp_path / "data" / "test.parquet", leaked + edited)
    recipe = recipe_file(tmp_path, tmp_path / "data", [])
    assert main(["evaluate", str(tmp_path / "run"), "--recipe", str(recipe)]) == 2
    assert "the splits leak: of 4 test RNAs 3 share the same sequence" in capsys.readouterr().err
    write_rows(tmp_path / "data" / "test.parquet", edited)
    assert main(["evaluate", str(tmp_path / "run"), "--recipe", str(recipe)]) == 2
    assert "of 1 test RNAs 1 share 80% of their sequence" in capsys.readouterr().err
    write_rows(tmp_path / "data" / "test.parquet", qa_rows("test", 3, 2, shared=["10003"]))
    assert main(["evaluate", str(tmp_path / "run"), "--recipe", str(recipe)]) == 2
    assert "of 3 test RNAs 3 share the same paper" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["evaluate_facts", "evaluate_paper"])
def test_the_packaged_recipes_are_whole(name):
    from importlib import resources

    recipe = load_evaluation(str(resources.files("rnagpt") / "recipes" / f"{name}.yaml"))
    assert recipe.systems


# --- other systems


class ChatServer(LoopbackServer):
    """Speaks OpenAI's chat API: an answer is `say` of what it was asked, by default the number of its letters."""

    def __init__(self):
        super().__init__()
        self.url, self.asked, self.say = f"{self.address}/v1", [], lambda text: str(len(text))

    def respond(self, handler, body):
        self.asked.append(body := json.loads(body))
        message = {"role": "assistant", "content": self.say(body["messages"][-1]["content"])}
        send(handler, 200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


@pytest.fixture
def endpoint():
    with ChatServer() as server:
        yield server.url, server.asked, server


def test_an_endpoint_reads_the_letters(endpoint, rna_qa, tmp_path):
    url, asked, _ = endpoint
    rnas = read_qa(rna_qa, "test")[:3]
    items = qa_items(rnas)
    source = EndpointAnswers("some-model", url, parallel=2)
    with ItemWriter(tmp_path / "items.jsonl") as writer:
        collect(source, items, "gpt", input_rnas("true", rnas), writer)
        collect(source, items, "gpt_no_rna", input_rnas("no_rna", rnas), writer)
    answers = read_items(tmp_path / "items.jsonl")
    sequences = {rna.rna_id: rna.sequence for rna in rnas}
    for item in answers:
        letters = f"RNA sequence: {sequences[item.rna_id]}\n" if item.system == "gpt" else ""
        assert item.answer == str(len(letters + item.question))
    assert len(asked) == 9 + 3  # without the RNA, the three questions are the same for every RNA
    assert all(body["temperature"] == 0 and body["model"] == "some-model" for body in asked)


def test_an_endpoints_price_is_estimated_and_limited(endpoint, rna_qa, tmp_path, capsys):
    url, asked, _ = endpoint
    recipe = recipe_file(
        tmp_path,
        rna_qa,
        [{"name": "gpt", "kind": "endpoint", "model": "some-model", "base_url": url, "usd_per_million_in": 1000.0}],
    )
    assert main(["evaluate", str(tmp_path / "run"), "--recipe", str(recipe)]) == 2
    said = capsys.readouterr().err
    assert "72 answers" in said and "more than the recipe's usd_limit of 1.00" in said and not asked


def test_answers_from_a_file(rna_qa, tmp_path):
    items = qa_items(read_qa(rna_qa, "test")[:2])
    path = tmp_path / "answers.jsonl"
    rows = [{"rna_id": item.rna_id, "question": item.question, "answer": item.reference} for item in items]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = FileAnswers(path)
    asked = [source.prompt(item, "ACGU") for item in items]
    assert source.answer(asked) == [item.reference for item in items]
    assert source.passed_over(asked) == 0 and source.passed_over(asked[1:]) == 1
    path.write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(UserError, match="lacks answers to 5 of the questions"):
        FileAnswers(path).answer([source.prompt(item, None) for item in items])
    path.write_text('{"rna_id": "x"}\n')
    with pytest.raises(UserError, match="line 1 of"):
        FileAnswers(path)


# --- the judge


def test_the_judge_is_blind_mixed_and_measured(endpoint, rna_qa, tmp_path):
    from rnagpt.evaluation.asking.items import to_line
    from rnagpt.evaluation.reporting.summary import summarise
    from rnagpt.evaluation.reporting.tables import all_tables
    from rnagpt.evaluation.scoring.judge import agreement_with_labels, judge, judged

    url, asked, server = endpoint

    def grade(text):  # a judge that is right, except that it does not believe in snoRNAs
        lines = {line.split(":")[0]: line.split(": ", 1)[-1] for line in text.splitlines()}
        same = lines["Reference"] == lines["Answer"] and "snoRNA" not in lines["Answer"]
        return "Correct." if same else "wrong"

    server.say = grade
    items = qa_items(read_qa(rna_qa, "test"))
    right = [
        replace(item, system="a", answer=item.reference, parsed=item.gold or None, correct=bool(item.gold))
        for item in items
    ]
    wrong = [replace(item, system="b", answer="I don't know.", parsed=None) for item in items]
    verdicts = judge(right + wrong, "grader-2024-07-18", url, tmp_path / "judge.jsonl")
    texts = [body["messages"][-1]["content"] for body in asked]
    assert len(set(texts)) == len(texts) < 2 * len(items)  # equal answers to a question are judged once
    assert not any("system" in text.lower() for text in texts)
    of_b = ["I don't know." in text for text in texts]
    assert sorted(of_b) not in (of_b, of_b[::-1])  # the two systems' answers are mixed
    labelled = [item for item in right + wrong if item.gold]
    missed = sum(item.gold == "snoRNA" for item in right)
    found = agreement_with_labels(right + wrong, verdicts)
    assert found["n"] == len(labelled) and found["agreement"] == 1 - missed / len(labelled) and 0 < found["kappa"] < 1
    before = len(asked)
    assert judge(right + wrong, "grader-2024-07-18", url, tmp_path / "judge.jsonl") == verdicts
    assert len(asked) == before
    scores = judged(right + wrong, verdicts)["systems"]
    assert scores["b"]["value"] == 0 < scores["a"]["low"]
    (tmp_path / "items.jsonl").write_text("".join(map(to_line, right + wrong)))
    title, table = all_tables(summarise(tmp_path / "items.jsonl"))["judge"]
    assert f"in {100 * found['agreement']:.0f}% of {len(labelled)} answers" in title
    assert [row[0] for row in table] == ["system", "a", "b"] and table[2][1].startswith("0.000 [")
    with pytest.raises(UserError, match="may change under its name: give a dated name such as .*, or name@commit"):
        judge(items, "gpt-4o-mini", url, tmp_path / "other.jsonl")


# --- the metric module


def test_the_metric_module_loads_and_adds_batches(tmp_path, monkeypatch):
    from pathlib import Path

    import evaluate as hugging_face

    from rnagpt.evaluation.scoring.text_scores import corpus_scores

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = Path(__file__).parents[2] / "metrics" / "rna_answers"
    metric = hugging_face.load(str(folder), cache_dir=str(tmp_path))
    references, answers, rnas = ["a tRNA", "from yeast", "x"], ["a tRNA", "from mouse", "y z"], ["1", "1", "2"]
    metric.add_batch(predictions=answers[:2], references=references[:2], rna_ids=rnas[:2])
    metric.add_batch(predictions=answers[2:], references=references[2:], rna_ids=rnas[2:])
    got = metric.compute(mode="paper")
    expected = corpus_scores(rnas, references, answers, mode="paper")
    assert got["rouge1_f1"] == expected["rouge1"].f1 == pytest.approx(0.375) and set(got) == {
        f"{name}_{part}" for name in ("rouge1", "rouge2", "rougeL") for part in ("precision", "recall", "f1")
    }


def test_a_checkpoint_trained_again_in_its_place_is_refused(rna_qa, tiny_checkpoint, tmp_path, capsys):
    import os
    import shutil

    from safetensors.torch import load_file, save_file

    model, run = tmp_path / "model", tmp_path / "run"
    shutil.copytree(tiny_checkpoint, model)
    recipe = recipe_file(
        tmp_path,
        rna_qa,
        [{"name": "mine", "kind": "rna", "model": str(model), "max_new_tokens": 2, "likelihood": False}],
        data={"source": str(rna_qa), "rnas": 3},
    )
    assert main(["evaluate", str(run), "--recipe", str(recipe)]) == 0
    (weights,) = model.glob("*.safetensors")
    os.utime(weights)  # touched, and the same
    assert main(["evaluate", str(run), "--recipe", str(recipe)]) == 0
    state = load_file(weights)
    state = {name: tensor + 1 if "projector" in name else tensor for name, tensor in state.items()}
    save_file(state, weights, {"format": "pt"})
    capsys.readouterr()
    assert main(["evaluate", str(run), "--recipe", str(recipe)]) == 2
    assert "the weights of mine have changed in their place" in capsys.readouterr().err
