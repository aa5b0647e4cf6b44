"""A chat-completions server on the loopback that answers from the abstracts in its prompt, by rule, with faults.

    with ScriptedLlm(faults=0.1) as server: ... server.url, server.paid

It reads the same JSON that a model reads, so its answers depend on the request alone. Faults of the wire are drawn by
a seeded generator per attempt; answers off the schema by the request's digest, since a stored answer is the answer.
"""

import hashlib
import json
import random
import re
import threading
import time
from collections import Counter

from loopback_server import LoopbackServer, send
from synthetic_literature import GENES, ROLES

OFF_SCHEMA = ["I am sorry, I cannot do that.", '{"statements": "none"}', '{"questions": [{"question": 1}]}', "[1, 2"]


class ScriptedLlm(LoopbackServer):
    def __init__(self, faults=0.0, off_schema=None, seed=0, delay=0.0, obey=False, hang=3.0, invent=False):
        super().__init__()
        self.faults, self.off_schema = faults, faults / 5 if off_schema is None else off_schema
        self.delay, self.obey, self.hang, self.invent = delay, obey, hang, invent
        self.draw, self.lock = random.Random(seed), threading.Lock()
        self.paid: Counter = Counter()  # answers sent whole, by key
        self.events: Counter = Counter()
        self.bodies: list[dict] = []
        self.files: dict[str, str] = {}
        self.batches: dict[str, dict] = {}
        self.url = f"{self.address}/v1"

    def respond(self, handler, body):
        if handler.command == "GET" or not handler.path.endswith("/chat/completions"):
            return self.batches_api(handler, handler.command, body)
        return self.handle(handler, json.loads(body), handler.headers.get("Idempotency-Key"))

    def handle(self, handler, body, key):
        with self.lock:
            fault = self.draw.random() < self.faults
            kind = self.draw.choice(["429", "429 later", "500", "time-out", "malformed", "lost"]) if fault else "none"
            self.events[kind] += 1
            if len(self.bodies) < 500:
                self.bodies.append(body)
        if self.delay:
            time.sleep(self.delay)
        later = {"Retry-After": "0.05"} if "later" in kind else {}
        try:
            if kind.startswith("429"):
                return send(handler, 429, {"error": {"message": "slow"}}, later)
            if kind == "500":
                return send(handler, 500, {"error": {"message": "oops"}})
            if kind == "time-out":
                time.sleep(self.hang)
                handler.close_connection = True
                return None
            if kind == "malformed":
                return send(handler, 200, '{"choices": [{"mess')
            if kind == "lost":
                handler.close_connection = True
                return handler.connection.close()
            text = self.answer(body)
            usage = {"prompt_tokens": len(json.dumps(body["messages"])) // 4, "completion_tokens": len(text) // 4 + 1}
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            done = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"]}
            send(handler, 200, {**done, "choices": [choice], "usage": usage})
            with self.lock:
                self.paid[key] += 1
        except (BrokenPipeError, ConnectionResetError):
            self.events["client gone"] += 1

    def batches_api(self, handler, method, content):
        """Files and batches: a batch is done at the second look at it; `faults` of its lines fail."""
        path = handler.path.split("?")[0].split("/")[2:]
        if method == "POST" and path == ["files"]:
            name = f"file-{len(self.files)}"
            text = content.decode()
            self.files[name] = "\n".join(line for line in text.splitlines() if line.startswith('{"custom_id"'))
            return send(handler, 200, {"id": name})
        if method == "POST":
            asked = json.loads(content)
            row = {"id": f"batch-{len(self.batches)}", "status": "in_progress", "looks": 0, **asked}
            self.batches[row["id"]] = row
            return send(handler, 200, row)
        if path[0] == "files":
            return send(handler, 200, self.files[path[1]])
        if len(path) == 1:
            return send(handler, 200, {"object": "list", "data": list(self.batches.values()), "has_more": False})
        row = self.batches[path[1]]
        row["looks"] += 1
        if row["looks"] == 2:
            lines = []
            for line in self.files[row["input_file_id"]].splitlines():
                asked = json.loads(line)
                answered = {"custom_id": asked["custom_id"], "response": None}
                if self.draw.random() >= self.faults:
                    self.paid[asked["custom_id"]] += 1
                    choice = {"message": {"content": self.answer(asked["body"])}}
                    usage = {"prompt_tokens": 100, "completion_tokens": 50}
                    answered["response"] = {"body": {"choices": [choice], "usage": usage}}
                lines.append(json.dumps(answered))
            name = f"file-{len(self.files)}"
            self.files[name] = "\n".join(lines)
            row.update(status="completed", output_file_id=name)
        return send(handler, 200, row)

    def answer(self, body) -> str:
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()
        draw = random.Random(digest)
        if draw.random() < self.off_schema:
            return draw.choice(OFF_SCHEMA)
        stage = body["response_format"]["json_schema"]["name"]
        user = body["messages"][1]["content"]
        data = json.loads(user[len("Data:\n") : user.index("\n\nJSON schema of the answer:")])
        if self.obey and (order := re.search(r"(?:say|state|write) (?:that )?'([^']+)'", user)):
            pmids = [paper["pmid"] for paper in data.get("papers", [])] or ["1"]
            return json.dumps({"statements": [{"text": order[1], "pmids": pmids[:1]}]})
        if stage == "summarise":
            statements = summarise(data["papers"])
            if self.invent:
                statements = [spoiled(row, draw) for row in statements]
            return json.dumps({"statements": statements})
        if stage == "merge":
            return json.dumps({"statements": data["statements"]})
        return json.dumps({"questions": ask(data["statements"])})


def summarise(papers) -> list[dict]:
    """Every sentence of every abstract, with its paper; four sentences of the first papers at most."""
    return [
        {"text": sentence, "pmids": [paper["pmid"]]}
        for paper in papers
        for sentence in re.split(r"(?<=[.!?]) (?=[A-Z])", paper["abstract"])[:4]
    ][:16]


def spoiled(row, draw) -> dict:
    """A statement as a bad model writes it: a number, a name, a direction or a citation of its own."""
    kind = draw.choice(["number", "name", "citation", "none"])
    if kind == "number":
        return {**row, "text": row["text"].rstrip(".") + " in 7531 mice."}
    if kind == "name":
        return {**row, "text": row["text"].rstrip(".") + " through NOTAGENE9."}
    if kind == "citation":
        return {**row, "pmids": ["424242"]}
    return row


def ask(statements) -> list[dict]:
    """Questions on the sentences of tests/synthetic_literature.py; others get one plain question each."""
    questions = []

    def add(number, kind, question, answer, options=()):
        row = {"question": question, "kind": kind, "answer": answer, "options": list(options), "statements": [number]}
        questions.append(row)

    for number, text in ((row["number"], row["text"]) for row in statements):
        change = r"was significantly (\S+) in (\w+) tissue of (\d+) patients with ([\w ]+)\."
        if found := re.match(rf"(This RNA|\S+) {change}", text):
            name, change, tissue, patients, disease = found.groups()
            where = f"{change} in {tissue} tissue of patients with {disease}?"
            add(number, "closed", f"Is {name.replace('This', 'this')} {where}", "yes", ["yes", "no"])
            where = f"In which tissue of patients with {disease} is this RNA {change}?"
            add(number, "open", where, f"{tissue} tissue")
        elif found := re.search(r"3'-UTR of (\w+) ", text):
            others = [gene for gene in GENES if gene != found[1]][:2]
            effect = f"What happens when this RNA binds the 3'-UTR of {found[1]}?"
            add(number, "open", effect, "It represses its translation.")
            which = "Which 3'-UTR does this RNA bind in luciferase assays?"
            add(number, "closed", which, found[1], [found[1], *others])
        elif found := re.search(r"changed (\w+) expression by (\d+)%", text):
            add(number, "open", f"By how much do mimics of this RNA change {found[1]} expression?", f"By {found[2]}%.")
        elif found := re.search(r"acts as an? ([\w ]+) in ([\w ]+)\.", text):
            others = [role for role in ROLES if role != found[1]][:2]
            add(number, "closed", f"As what does this RNA act in {found[2]}?", found[1], [found[1], *others])
    # an abstract repeats no sentence, yet papers on one RNA may give equal questions: the builder drops those
    return questions[:14]
