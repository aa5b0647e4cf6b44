"""From planted answers to the page: the figures say what was planted, and the page is safe and stands alone."""

import io
import json
import re
import subprocess
import sys
from argparse import ArgumentParser
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from rnagpt.evaluation.asking.items import Item, labelled, to_line
from rnagpt.evaluation.evaluate_command import add_arguments, run
from rnagpt.evaluation.reporting.figures import draw_figures, learning_curves
from rnagpt.evaluation.reporting.prose import headline
from rnagpt.evaluation.reporting.report import render_report
from rnagpt.evaluation.reporting.summary import summarise
from rnagpt.evaluation.reporting.tables import print_table
from rnagpt.training.curves import read_learning_curves
from rnagpt_core.errors import UserError

TYPES = ("miRNA", "snRNA", "tRNA", "riboswitch")
CURVES = [
    {
        "stage": stage,
        "step": step,
        "seconds": 2.0 * step,
        "loss": 3 / step,
        "eval_loss": 4 / step,
    }
    for stage in ("stage1", "stage2")
    for step in range(1, 6)
]


def planted_items(per_type=10):
    items = []
    for number in range(per_type * len(TYPES)):
        rna_type = TYPES[number % len(TYPES)]
        about = {
            "rna_id": f"{rna_type}-{number}",
            "cluster": number // 2,
            "rna_type": rna_type,
            "true_length": 70,
            "name": f"RNA {number}",
        }
        items.append(
            Item(
                **about,
                topic="rna_type",
                kind="open",
                question="What type of RNA is this?",
                options=TYPES,
                gold=rna_type,
                reference=f"A {rna_type}.",
            )
        )
        items.append(
            Item(
                **about,
                topic="is_type",
                kind="closed",
                question="Is this a tRNA?",
                options=("yes", "no"),
                gold="yes" if rna_type == "tRNA" else "no",
                reference="Yes or no.",
            )
        )
    return items


def planted_answers(reads_rna, knows=True):
    """stage2 and its swapped control: a system that looks at the RNA, one that cannot, or one that sees a leak."""
    items = planted_items()
    type_of = {item.rna_id: item.rna_type for item in items}
    ids = sorted(type_of, key=lambda rna_id: int(rna_id.split("-")[1]))
    other = {rna_id: ids[(place + 1) % len(ids)] for place, rna_id in enumerate(ids)}  # the next one's type differs

    def answer(item, system, shown):
        seen = type_of[shown] if reads_rna else item.rna_type
        label = (seen if knows else "tRNA") if item.topic == "rna_type" else ("yes" if seen == "tRNA" else "no")
        return labelled(item, system, label, shown, f"It is {label}.")

    answers = [answer(item, "stage2", item.rna_id) for item in items]
    answers += [answer(item, "stage2_swapped", other[item.rna_id]) for item in items]
    return answers + [labelled(item, "majority", item.options[0], None) for item in items]


def summary_of(answers, folder):
    path = folder / "evaluation" / "items.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(map(to_line, answers)))
    return summarise(path)


def row_of(summary, system):
    return next(row for row in summary["systems"] if row["system"] == system)


# --- what the figures say


def test_an_oracle_that_reads_the_rna_is_seen_to(tmp_path):
    summary = summary_of(planted_answers(reads_rna=True), tmp_path)
    assert row_of(summary, "stage2")["rna_type"]["value"] == 1
    assert row_of(summary, "stage2_swapped")["rna_type"]["value"] == 0
    assert summary["follows_shown_rna"]["stage2_swapped"]["value"] == 1
    assert "stage2" not in summary["follows_shown_rna"]
    assert summary["chance"]["rna_type"] == 0.25 and summary["chance"]["closed"] == 0.5
    assert summary["confusion"]["counts"] == [[10 * (row == column) for column in range(5)] for row in range(4)]
    said = headline(summary)
    assert said["title"].startswith("RNA-GPT reads the RNA: it names the type of 100% of 40 RNAs")
    assert "in 0% of cases and the swapped-in RNA's type in 100%" in said["points"][0]


def test_an_oracle_that_knows_without_the_rna_is_found_out(tmp_path):
    summary = summary_of(planted_answers(reads_rna=False), tmp_path)
    assert row_of(summary, "stage2_swapped")["rna_type"]["value"] == 1
    assert "but not by reading the RNA" in headline(summary)["title"]


@pytest.mark.parametrize("more", [True, False])
def test_another_rna_of_its_type_tells_whether_more_than_the_type_is_read(tmp_path, more):
    answers = planted_answers(reads_rna=True)
    for item in [item for item in answers if item.system == "stage2"]:
        label = item.options[item.options[0] == item.gold] if more and item.topic == "is_type" else item.gold
        answers.append(labelled(item, "stage2_swapped_same", label, "another"))
    said = " ".join(headline(summary_of(answers, tmp_path))["points"])
    assert ("so it reads more of the RNA than its type" in said) == more
    assert ("nothing says that it reads more" in said) != more


def test_a_constant_answer_is_called_what_it_is(tmp_path):
    summary = summary_of(planted_answers(reads_rna=True, knows=False), tmp_path)
    assert row_of(summary, "stage2")["rna_type"]["value"] == 0.25
    assert headline(summary)["title"].startswith("RNA-GPT cannot tell RNA types apart yet")


def test_without_a_control_the_headline_says_so(tmp_path):
    answers = [item for item in planted_answers(reads_rna=True) if item.system == "stage2"]
    assert "no swapped RNA was shown" in headline(summary_of(answers, tmp_path))["title"]


def test_baselines_alone_make_a_summary_too(tmp_path):
    answers = [item for item in planted_answers(reads_rna=True) if item.system == "majority"]
    summary = summary_of(answers, tmp_path)
    assert summary["main"] is None and headline(summary)["title"].startswith("No answers of RNA-GPT")


def test_unparseable_answers_count_as_wrong_and_are_counted(tmp_path):
    answers = planted_answers(reads_rna=True)
    answers[0] = replace(answers[0], parsed=None, correct=False, answer="RNA RNA RNA")
    row = row_of(summary_of(answers, tmp_path), "stage2")
    assert row["unparseable"] == 1 and row["rna_type"]["value"] == 39 / 40 and row["rna_type"]["unparseable"] == 1


def test_comparisons_use_only_the_questions_both_answered(tmp_path):
    answers = [
        item for item in planted_answers(reads_rna=True) if item.system != "majority" or item.rna_type == "miRNA"
    ]
    comparison = next(
        row
        for row in summary_of(answers, tmp_path)["comparisons"]
        if row["other"] == "majority" and row["measure"] == "rna_type"
    )
    assert comparison["n_items"] == 10 and comparison["value"] == 0  # "miRNA" is right for these


def test_examples_are_twelve_and_always_the_same(tmp_path):
    answers = planted_answers(reads_rna=True)
    for place in range(0, 40, 4):  # some wrong ones among stage 2's
        wrong = next(option for option in answers[place].options if option != answers[place].gold)
        answers[place] = replace(answers[place], parsed=wrong, correct=False)
    summary = summary_of(answers, tmp_path)
    outcomes = [example["outcome"] for example in summary["examples"]]
    assert outcomes == ["right"] * 4 + ["wrong"] * 4 + ["swapped"] * 4
    assert len({example["rna_id"] for example in summary["examples"][:4]}) == 4
    assert summary_of(list(reversed(answers)), tmp_path)["examples"] == summary["examples"]


def test_the_same_answer_twice_is_a_user_error(tmp_path):
    answers = planted_answers(reads_rna=True)
    with pytest.raises(UserError, match="two answers of stage2"):
        summary_of([*answers, answers[0]], tmp_path)


def test_the_table_is_aligned_and_complete(tmp_path):
    summary, out = summary_of(planted_answers(reads_rna=True), tmp_path), io.StringIO()
    print_table(summary, out)
    lines = out.getvalue().splitlines()
    assert lines[0] == "40 held-out RNAs in 20 clusters, 80 questions"
    places = {line.index("[") for line in lines[1:] if "Stage" in line}
    assert len(places) == 1 and max(map(len, lines)) <= 100
    assert any(line.startswith("  Majority answer") and "25.0% [" in line for line in lines)


# --- the page


class Page(HTMLParser):
    """Tags with their attributes, text, and whether everything opened was closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "path", "use", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in ("path", "use", "rect"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    attack = "<script>alert(1)</script>\"'&"
    answers = [
        replace(item, name=attack, answer=attack, reference=attack, question=item.question + attack)
        for item in planted_answers(reads_rna=True)
    ]
    answers += [replace(item, system=f"mine {attack}") for item in answers if item.system == "majority"]
    facts = {"Seed": 0, attack: attack, "Versions": {"torch": attack}}
    curves = [*CURVES, {"stage": attack, "step": 1, "seconds": 0.5, "loss": 2.0}]
    summary = summary_of(answers, folder)
    return render_report(summary, draw_figures(summary, curves), curves, facts)


def test_nothing_of_the_data_becomes_markup(page):
    parsed = Page(page)
    assert not parsed.open
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert page.count("<script") == 0 and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not any(name.startswith("on") for _, attributes in parsed.tags for name in attributes)


def test_the_page_needs_nothing_from_outside(page):
    parsed = Page(page)
    assert not {"link", "img", "iframe", "object", "embed", "script", "image"} & {tag for tag, _ in parsed.tags}
    assert not re.search(r"(?i)https?:|//[a-z0-9-]+\.|@import|\bsrc=|url\((?!#)|data:", page)
    links = [attributes["href"] for _, attributes in parsed.tags if "href" in attributes]
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link.removeprefix("#") for link in links} <= set(ids)


def test_the_page_can_be_read_without_seeing_it(page):
    tags = Page(page).tags
    ids = {attributes["id"] for _, attributes in tags if "id" in attributes}
    assert ("html", {"lang": "en"}) in tags
    assert all("scope" in attributes for tag, attributes in tags if tag == "th")
    assert all(attributes["aria-labelledby"] in ids for _, attributes in tags if "aria-labelledby" in attributes)
    figures = [attributes for _, attributes in tags if attributes.get("role") == "img"]
    assert len(figures) == 4 and all(len(figure["aria-label"]) > 30 for figure in figures)
    assert sum(tag == "figure" for tag, _ in tags) == sum(tag == "figcaption" for tag, _ in tags) == 4
    assert sum(tag == "h1" for tag, _ in tags) == 1


def test_the_page_says_what_was_planted(page):
    text = " ".join(" ".join(Page(page).text).split())
    assert "RNA-GPT reads the RNA" in text and "40 held-out RNAs" in text
    assert "Stage 1: loss from 3.00 to 0.60 in 5 steps and 10 seconds." in text


def test_a_page_without_curves_facts_or_model_stands(tmp_path):
    answers = [item for item in planted_answers(reads_rna=True) if item.system == "majority"]
    summary = summary_of(answers, tmp_path)
    text = render_report(summary, draw_figures(summary))
    assert not Page(text).open and "How it learned" not in text and "This run" not in text


# --- the curves


def test_curves_come_from_a_csv(tmp_path):
    (tmp_path / "learning_curves.csv").write_text("stage,step,seconds,loss,eval_loss\nstage1,5,1.5,2.25,\n")
    assert read_learning_curves(tmp_path) == [{"stage": "stage1", "step": 5, "seconds": 1.5, "loss": 2.25}]
    (tmp_path / "learning_curves.csv").write_text("step,loss\n1,2\n")
    with pytest.raises(UserError, match="columns stage and step"):
        read_learning_curves(tmp_path)


def test_curves_come_from_what_training_leaves_in_each_stage(tmp_path):
    for stage in ("stage1", "stage2"):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "curve.jsonl").write_text(
            json.dumps({"stage": stage, "step": 5, "seconds": 1.5, "loss": 2.25}) + "\n{"
        )
    assert [(row["stage"], row["loss"]) for row in read_learning_curves(tmp_path)] == [
        ("stage1", 2.25),
        ("stage2", 2.25),
    ]


def test_a_loss_that_is_no_number_is_left_out(tmp_path):
    (tmp_path / "learning_curves.csv").write_text("stage,step,loss\na,1,nan\na,2,3\na,3,none\n")
    assert [row.get("loss") for row in read_learning_curves(tmp_path)] == [None, 3, None]


# --- the command


def evaluate(*arguments):
    parser = ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(argument) for argument in arguments]))


def test_the_command_recomputes_the_summary_and_the_report(tmp_path, capsys):
    summary = summary_of(planted_answers(reads_rna=True), tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"Seed": 7}))
    assert evaluate(tmp_path) == 0
    assert "Stage 2" in capsys.readouterr().out
    assert json.loads((tmp_path / "evaluation" / "summary.json").read_text()) == summary
    first = (tmp_path / "report.html").read_text()
    assert {path.name for path in (tmp_path / "figures").iterdir()} >= {"accuracy.svg", "confusion.svg"}
    assert evaluate(tmp_path, "--json") == 0
    assert json.loads(capsys.readouterr().out) == summary
    assert (tmp_path / "report.html").read_text() == first  # to the last character


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda folder: (folder / "evaluation" / "items.jsonl").unlink(), "holds no evaluation/items.jsonl"),
        (lambda folder: (folder / "evaluation" / "items.jsonl").write_text(""), "holds no answers"),
        (lambda folder: (folder / "run.json").write_text("[]"), "one JSON object"),
        (lambda folder: (folder / "run.json").write_text("{"), "not valid JSON"),
    ],
)
def test_a_users_mistake_is_one_sentence(tmp_path, spoil, message):
    summary_of(planted_answers(reads_rna=True), tmp_path)
    spoil(tmp_path)
    with pytest.raises(UserError, match=message):
        evaluate(tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        evaluate(tmp_path / "nowhere")


def test_the_command_is_cheap_to_import():
    script = (
        "import sys, rnagpt.evaluation.evaluate_command\n"
        "print([name for name in ('torch', 'transformers', 'sklearn', 'scipy', 'matplotlib', 'numpy', 'jinja2') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_loss_panel_shows_where_true_and_swapped_losses_part():
    rows = [{"stage": "instruction", "step": 5.0, "loss": 1.0}, {"stage": "instruction", "step": 10.0, "loss": 0.5}]
    assert "another RNA" not in learning_curves(rows)
    rows.append({"stage": "instruction", "step": 10.0, "eval_true_loss": 0.2})
    rows.append({"stage": "instruction", "step": 10.0, "eval_swapped_loss": 0.4})
    drawn = learning_curves(rows)
    assert "validation, true RNA" in drawn and "validation, another RNA" in drawn
