"""The server through a real socket: OpenAI's own client, and what goes wrong.

pytest tests/serving/test_serve.py
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest
import uvicorn
from test_chat import LET7, TRNA, TYPE, YEAST, said_directly, user_turn

from rnagpt import cli
from rnagpt.serving.app import Limits, build_app
from rnagpt.serving.engine import Engine
from rnagpt_core.safe_text import printable

ROOT = Path(__file__).parents[2]
PATH = "/v1/chat/completions"


@contextmanager
def serving(engine, **options):
    """The address of a server on this machine."""
    app = build_app(engine, "tiny", **options)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=30)


@pytest.fixture(scope="module")
def address(tiny_model):
    with serving(Engine(*tiny_model)) as address:
        yield address


@pytest.fixture(scope="module")
def client(address):
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


def request(messages, **more) -> dict:
    return {"model": "tiny", "messages": messages, "max_tokens": 12, **more}


# --- OpenAI's client, unchanged


def test_an_answer_is_the_models_own(tiny_model, client):
    found = client.chat.completions.create(**request([user_turn(TYPE, TRNA)]))
    assert found.choices[0].message.content == printable(said_directly(tiny_model, [user_turn(TYPE, TRNA)], 12))
    assert found.choices[0].finish_reason == "length" and found.choices[0].message.role == "assistant"
    assert found.usage.completion_tokens == 12 and found.usage.prompt_tokens > len(TRNA)
    assert [model.id for model in client.models.list()] == ["tiny"]


def test_a_streamed_answer_adds_up_to_the_same(client):
    whole = client.chat.completions.create(**request([user_turn(TYPE, LET7)]))
    chunks = list(
        client.chat.completions.create(
            **request([user_turn(TYPE, LET7)], stream=True, stream_options={"include_usage": True})
        )
    )
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert "".join(piece or "" for piece in pieces) == whole.choices[0].message.content and len(pieces) > 5
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage.completion_tokens == 12 and chunks[-1].usage.total_tokens == whole.usage.total_tokens
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_conversation_with_several_turns_reuses_what_was_computed(tiny_model, client):
    turns = [user_turn(TYPE, TRNA), {"role": "assistant", "content": "A tRNA."}, user_turn(YEAST)]
    expected = said_directly(tiny_model, turns, 12)
    found = client.chat.completions.create(**request(turns))
    assert found.choices[0].message.content == printable(expected)
    again = client.chat.completions.create(**request(turns))
    assert again.choices[0].message.content == printable(expected)
    assert again.usage.prompt_tokens_details.cached_tokens == again.usage.prompt_tokens - 1


def test_settings_reach_the_engine(client):
    def said(**settings):
        return client.chat.completions.create(**request([user_turn(TYPE, TRNA)], **settings)).choices[0]

    greedy = said().message.content
    assert said(temperature=1.0, seed=3).message.content == said(temperature=1.0, seed=3).message.content != greedy
    stop = greedy[4:6]
    stopped = said(stop=[stop])
    assert stopped.message.content == greedy[: greedy.index(stop)].rstrip() and stopped.finish_reason == "stop"
    body = request([user_turn(TYPE, TRNA)], extra_body={"confidence": True})
    answered = client.chat.completions.create(**body)
    assert 0 <= answered.rnagpt["confidence"] <= 1 and answered.rnagpt["source"].startswith("from ")


def test_fasta_text_in_an_rna_part(client):
    part = {"type": "rna", "rna": f">tRNA\n{TRNA.sequence}\n"}
    message = {"role": "user", "content": [part, {"type": "text", "text": TYPE}]}
    found = client.chat.completions.create(**request([message]))
    plain = client.chat.completions.create(**request([user_turn(TYPE, TRNA)]))
    assert found.choices[0].message.content == plain.choices[0].message.content


def test_concurrent_requests_get_the_answers_they_get_alone(tiny_model, client):
    conversations = [[user_turn(f"{TYPE} {i}", rna)] for i in range(4) for rna in (TRNA, LET7, None)]
    expected = [printable(said_directly(tiny_model, turns, 12)) for turns in conversations]

    def ask(turns):
        return client.chat.completions.create(**request(turns)).choices[0].message.content

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(ask, conversations)) == expected


# --- what a client gets wrong


@pytest.mark.parametrize(
    ("change", "status", "sentence"),
    [
        ({"model": "gpt-4"}, 404, "there is no model 'gpt-4' here, only 'tiny'"),
        ({"messages": []}, 400, "messages: List should have at least 1 item"),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, 400, "the user's question must be the last"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "'text', 'rna'"),
        ({"messages": [{"role": "user", "content": [{"type": "rna"}]}]}, 400, "messages.0.content.0.rna.rna: Field"),
        ({"messages": [user_turn(TYPE, type(TRNA)("x", "", "MALW"))]}, 400, "message 1: 'L' at position 3"),
        ({"messages": [user_turn(TYPE, type(TRNA)("x", "", "A" * 9999))]}, 400, "rna1 has 9,999 nt, which take"),
        ({"messages": [user_turn(TYPE, type(TRNA)("x", "", ">a\nAC\n>b\nGU"))]}, 400, "holds 2 records"),
        ({"messages": [{"role": "user", "content": "very long " * 400}]}, 400, "leaves no room for an answer"),
        ({"temperature": -1}, 400, "temperature: Input should be greater than or equal to 0"),
        ({"n": 2}, 400, "n: Input should be 1"),
        ({"tools": [{"type": "function"}]}, 400, "tools is not supported"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"stop": [""]}, 400, "stop"),
    ],
)
def test_a_wrong_request_is_told_in_openais_form(client, change, status, sentence):
    with pytest.raises(openai.APIStatusError) as error:
        client.chat.completions.create(**{**request([user_turn(TYPE, TRNA)]), **change})
    assert error.value.status_code == status
    assert sentence in error.value.body["message"] and error.value.body["code"] == status


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"model": "\\ud800", "messages": NaN}', b"[" * 100_000])
def test_a_body_that_is_no_json(address, body):
    found = httpx.post(f"{address}{PATH}", content=body, headers={"Content-Type": "application/json"})
    assert found.status_code == 400 and found.json()["error"]["message"]
    if body in (b"", b"{", b"[]"):
        assert "the body is no JSON object" in found.json()["error"]["message"]


def test_a_body_without_its_header_and_a_wrong_method(address):
    found = httpx.post(f"{address}{PATH}", content=b'{"model": "tiny"}', headers={"Content-Type": "text/plain"})
    assert found.status_code == 400 and "Content-Type: application/json" in found.json()["error"]["message"]
    found = httpx.get(f"{address}{PATH}")
    assert (found.status_code, found.json()["error"]["type"]) == (405, "invalid_request_error")


def test_a_body_over_the_limit(address):
    big = b" " * 1_000_001

    def pieces():  # without a Content-Length
        for _ in range(1001):
            yield b" " * 1000

    for content in (big, pieces()):
        found = httpx.post(f"{address}{PATH}", content=content, headers={"Content-Type": "application/json"})
        assert found.status_code == 413 and "larger than 1,000,000 bytes" in found.json()["error"]["message"]


def test_a_page_elsewhere_cannot_use_it(address):
    assert httpx.get(f"{address}/v1/models", headers={"Host": "evil.example"}).status_code == 400
    body = json.dumps(request([user_turn(TYPE, TRNA)]))
    found = httpx.post(f"{address}{PATH}", content=body, headers={"Content-Type": "text/plain"})
    assert found.status_code == 400 and "access-control-allow-origin" not in found.headers


def test_health_and_metrics(address, client):
    client.chat.completions.create(**request([user_turn(TYPE, TRNA)]))
    assert httpx.get(f"{address}/health").json()["status"] == "ok"
    text = httpx.get(f"{address}/metrics").text
    assert 'rnagpt_requests_total{status="200"}' in text and 'rnagpt_tokens_total{kind="answer"}' in text


# --- limits


def test_a_key_is_asked_for(tiny_model):
    with serving(Engine(*tiny_model), api_key="s3cret") as address:
        assert httpx.get(f"{address}/health").status_code == 200
        for key, status in ((None, 401), ("wrong", 401), ("clé", 401), ("s3cret", 200)):
            headers = {"Authorization": f"Bearer {key}".encode()} if key else {}
            assert httpx.get(f"{address}/v1/models", headers=headers).status_code == status
            assert httpx.get(f"{address}/metrics", headers=headers).status_code == status
        good = openai.OpenAI(base_url=f"{address}/v1", api_key="s3cret")
        assert good.chat.completions.create(**request([user_turn(TYPE, TRNA)])).choices


def gated(engine) -> threading.Event:
    """Has the engine's steps wait until the event is set: what happens meanwhile can be looked at."""
    opened, step = threading.Event(), engine.step
    engine.step = lambda: opened.wait(timeout=60) and step()
    return opened


def test_a_full_queue_says_when_to_come_back(tiny_model):
    engine = Engine(*tiny_model, max_answers=2)
    gate = gated(engine)
    with serving(engine, limits=Limits(max_waiting=1)) as address, ThreadPoolExecutor(3) as pool:
        body = request([user_turn(TYPE, TRNA)])
        taken = [pool.submit(httpx.post, f"{address}{PATH}", json=body, timeout=60) for _ in range(3)]
        while httpx.get(f"{address}/health").json()["waiting"] + len(engine.active) < 1:
            time.sleep(0.01)
        deadline = time.monotonic() + 30
        while (found := httpx.post(f"{address}{PATH}", json=body, timeout=60)).status_code != 429:
            assert time.monotonic() < deadline
        assert int(found.headers["Retry-After"]) >= 1 and found.json()["error"]["type"] == "rate_limit_error"
        gate.set()
        assert [future.result().status_code for future in taken] == [200] * 3
        assert httpx.post(f"{address}{PATH}", json=body, timeout=60).status_code == 200  # places are given back


def test_a_request_has_its_time(tiny_model):
    engine = Engine(*tiny_model)
    gate = gated(engine)
    threading.Timer(0.6, gate.set).start()
    with serving(engine, limits=Limits(timeout=0.2)) as address:
        found = httpx.post(f"{address}{PATH}", json=request([user_turn(TYPE, TRNA)]), timeout=60)
        assert found.status_code == 504 and "not finished within 0.2 s" in found.json()["error"]["message"]
        gate.clear()
        threading.Timer(0.6, gate.set).start()
        body = request([user_turn(TYPE, TRNA)], stream=True)
        text = httpx.post(f"{address}{PATH}", json=body, timeout=60).text
        assert "not finished within 0.2 s" in text and text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_frees_its_place(tiny_model, stream):
    engine = Engine(*tiny_model)
    gate = gated(engine)
    with serving(engine) as address:
        app_metrics = f"{address}/metrics"
        body = request([user_turn(TYPE, TRNA)], stream=stream)
        with pytest.raises(httpx.ReadTimeout):
            if stream:
                with httpx.stream("POST", f"{address}{PATH}", json=body, timeout=0.5) as found:
                    list(found.iter_text())
            else:
                httpx.post(f"{address}{PATH}", json=body, timeout=0.5)
        deadline = time.monotonic() + 30
        while 'rnagpt_answers_total{reason="cancelled"} 1.0' not in httpx.get(app_metrics).text:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        gate.set()
        assert httpx.post(f"{address}{PATH}", json={**body, "stream": False}, timeout=60).status_code == 200
        assert not engine.busy


def test_an_error_while_answering_is_a_500_and_the_server_goes_on(tiny_model, monkeypatch):
    engine = Engine(*tiny_model)
    with serving(engine) as address:
        with monkeypatch.context() as patch:
            patch.setattr(engine, "forward", lambda *_: 1 / 0)
            found = httpx.post(f"{address}{PATH}", json=request([user_turn(TYPE, TRNA)]), timeout=60)
            assert found.status_code == 500 and "ZeroDivision" not in found.text
        found = httpx.post(f"{address}{PATH}", json=request([user_turn(TYPE, TRNA)]), timeout=60)
        assert found.status_code == 200


# --- the command


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give either a CHECKPOINT"),
        (["CHECKPOINT", "--host", "0.0.0.0"], "--host 0.0.0.0 lets other machines in: set $RNAGPT_API_KEY"),
        (["CHECKPOINT", "--port", "70000"], "--port must be 0 to 65535"),
        (["CHECKPOINT", "--cache-mb", "-1"], "--cache-mb must be 0, for none, or above"),
        (["CHECKPOINT", "--timeout", "nan"], "--timeout must be above 0"),
        (["CHECKPOINT", "--api-key-file", os.devnull], "is empty: expected an API key"),
    ],
)
def test_mistakes(monkeypatch, capsys, tiny_checkpoint, arguments, sentence):
    monkeypatch.delenv("RNAGPT_API_KEY", raising=False)
    arguments = [str(tiny_checkpoint) if word == "CHECKPOINT" else word for word in arguments]
    assert cli.main(["serve", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and sentence in err and err.count("\n") == 1


def test_the_command_serves_and_drains_on_sigterm(tiny_checkpoint):
    arguments = ["serve", str(tiny_checkpoint), "--port", "0", "--name", "tiny"]
    child = subprocess.Popen([sys.executable, "-m", "rnagpt", *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        said = ""
        while "serving tiny at " not in said:
            said = child.stderr.readline()
            assert said, "it ended"
        address = said.split()[3].removesuffix("/v1")
        body = request([user_turn(TYPE, TRNA)], stream=True) | {"max_tokens": 300}
        with httpx.stream("POST", f"{address}{PATH}", json=body, timeout=240) as found:
            pieces = found.iter_lines()
            next(pieces)
            child.send_signal(signal.SIGTERM)  # in the middle of an answer
            rest = list(pieces)
        assert rest[-2:] == ["data: [DONE]", ""]
        last = json.loads(rest[-4].removeprefix("data: "))
        assert last["choices"][0]["finish_reason"] in ("stop", "length")
        assert child.wait(timeout=60) == 0
        assert "Traceback" not in child.stderr.read()
    finally:
        child.kill()
        child.wait()
