"""RNAcentral ids, against a server on this machine that answers in the API's form.

pytest tests/chat/test_chat_rnacentral.py
"""

import json
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from loopback_server import LoopbackServer, send

from rnagpt.known_rnas.rnacentral_ids import fetch, is_rnacentral_id
from rnagpt_core.errors import UserError
from rnagpt_core.sequences import Record

# the fields of /api/v1/rna/{URS}/{taxid} that matter here
FOUND = {
    "rnacentral_id": "URS000047C79B_9606",
    "sequence": "GGCTGGTCCGAGTGCAGTGGTGTTTACAACTAATTGATCACAACCAGTTACAGATTTCTT",
    "length": 60,
    "description": "Homo sapiens (human)\nRNY4",
}


@pytest.fixture
def api():
    """(address, answers): answers is path -> (status, body); requests asks what came."""

    answers: dict[str, tuple[int, bytes]] = {}

    class Api(LoopbackServer):
        def respond(self, handler, body):
            send(handler, *answers.get(handler.path, (404, b"{}")))

    with Api() as server:
        yield f"{server.address}/api/v1", answers


def test_an_id_becomes_a_record(api):
    address, answers = api
    answers["/api/v1/rna/URS000047C79B/9606/?format=json"] = (200, json.dumps(FOUND).encode())
    expected = Record("URS000047C79B_9606", "Homo sapiens (human) RNY4", FOUND["sequence"].replace("T", "U"))
    assert fetch(" urs000047c79b_9606", address) == expected
    answers["/api/v1/rna/URS000047C79B/?format=json"] = (200, json.dumps(FOUND).encode())
    assert fetch("URS000047C79B", address).sequence == expected.sequence


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((404, b""), "RNAcentral has no RNA URS000047C79B_9606"),
        ((503, b"busy"), "RNAcentral answered 503"),
        ((200, b"<html>"), "answer for URS000047C79B_9606 cannot be read"),
        ((200, b"[1]"), "cannot be read"),
        ((200, b'{"sequence": 5}'), "cannot be read"),
        ((200, b'{"sequence": "MALW"}'), "RNAcentral's URS000047C79B_9606: 'L' at position 3 is no nucleotide"),
        ((200, b'"' + b"A" * 5_000_001 + b'"'), "cannot be read"),
    ],
)
def test_what_is_no_rna(api, answer, sentence):
    address, answers = api
    answers["/api/v1/rna/URS000047C79B/9606/?format=json"] = answer
    with pytest.raises(UserError) as error:
        fetch("URS000047C79B_9606", address)
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_offline_is_told_in_a_sentence_with_a_way_out():
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        port = server.server_port
    with pytest.raises(UserError, match=r"could not be reached .*this needs the internet; connect, or give the seq"):
        fetch("URS000047C79B_9606", f"http://127.0.0.1:{port}")


def test_the_form_of_an_id():
    assert is_rnacentral_id("URS000047C79B_9606\n") and is_rnacentral_id("urs000047c79b")
    assert not any(map(is_rnacentral_id, ["URS000047C79B_", "URS000047C79_9606", "URS00/../etc", "ACGU", ""]))
    with pytest.raises(UserError, match="is no RNAcentral id"):
        fetch("URS1", "http://127.0.0.1:1")
