"""The one client of OpenAI-compatible endpoints, against a server on the loopback that fails in many ways."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rnagpt_core import endpoint as module
from rnagpt_core.endpoint import Endpoint, api_key
from rnagpt_core.errors import UserError


@pytest.fixture
def server(monkeypatch):
    """(base URL, script, requests): `script` is a list of (status, headers, body) that is answered from first to last,
    then an echo."""
    script, requests = [], []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                requests.append((self.path, dict(self.headers), body))
                status, headers, answer = script.pop(0) if script else (200, {}, None)
            if answer is None and "input" in body:
                data = [
                    {"index": i, "embedding": [float(i)], "object": "embedding"} for i in range(len(body["input"]))
                ]
                answer = {"data": data[::-1], "model": "m", "object": "list"}
            elif answer is None:
                text = body["messages"][-1]["content"]
                answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    monkeypatch.setattr(module, "backoff", lambda attempt, wish, random: float(wish or 0) / 1000)
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}/v1", script, requests
    httpd.shutdown()
    httpd.server_close()


def bodies(count):
    return [{"messages": [{"role": "user", "content": f"say {i}"}], "max_tokens": 5} for i in range(count)]


def test_replies_stand_in_the_bodies_order_and_are_counted(server):
    url, _, requests = server
    replies = Endpoint(url, "m", "secret").chat_all(bodies(20), parallel=4)
    assert [reply.text for reply in replies] == [f"say {i}" for i in range(20)]
    assert all(reply.prompt_tokens > 0 and reply.answer_tokens > 0 for reply in replies)
    assert {path for path, _, _ in requests} == {"/v1/chat/completions"}
    assert {body["model"] for _, _, body in requests} == {"m"}
    assert Endpoint(url, "m").embeddings(["a", "b", "c"]) == [[0.0], [1.0], [2.0]]


@pytest.mark.parametrize(
    "fault",
    [
        (429, {"Retry-After": "1"}, {"error": {"message": "slow"}}),
        (503, {}, b"<html>busy</html>"),
        (408, {}, {}),
        (200, {}, b"no json"),
        (200, {}, {"choices": []}),
        (200, {}, {"choices": [{"index": 0, "message": {"role": "assistant", "content": None}}]}),
    ],
)
def test_what_may_work_the_next_time_is_asked_again(server, fault):
    url, script, requests = server
    script += [fault, fault]
    assert Endpoint(url, "m").chat_all(bodies(1))[0].text == "say 0"
    assert len(requests) == 3


def test_what_never_works_ends_after_its_tries(server):
    url, script, requests = server
    script += [(500, {}, {})] * 50
    with pytest.raises(UserError, match=r"did not answer in 8 tries.*status 500"):
        Endpoint(url, "m").chat_all(bodies(1))
    assert len(requests) == module.TRIES


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ((401, {}, {"error": {"message": "bad key"}}), "refused with status 401: .*bad key"),
        ((404, {}, {"error": {"message": "no such model"}}), "no such model"),
        ((400, {}, {"error": {"message": "too long"}}), "refused a request .*too long"),
        ((429, {}, {"error": {"message": "pay", "code": "insufficient_quota"}}), "quota is used up"),
    ],
)
def test_what_cannot_work_is_asked_once_and_no_key_is_told(server, fault, expected):
    url, script, requests = server
    script += [fault]
    with pytest.raises(UserError, match=expected) as found:
        Endpoint(url, "m", "sk-secret").chat_all(bodies(1))
    assert len(requests) == 1 and "sk-secret" not in str(found.value)


def test_a_key_is_asked_for_only_where_the_endpoint_is_elsewhere(monkeypatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    assert api_key("SOME_KEY", "http://127.0.0.1:8000/v1") == "none"
    with pytest.raises(UserError, match="SOME_KEY"):
        api_key("SOME_KEY", "https://api.example.org/v1")
    monkeypatch.setenv("SOME_KEY", "k")
    assert api_key("SOME_KEY", "https://api.example.org/v1") == "k"
