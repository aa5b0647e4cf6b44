"""Measures the chat: turns, concurrent clients, a minute of load, and what confidence is worth.

    python benchmarks/chat.py turns     time to the first token of turn 1 and turn 5 for an RNA of 1,000 nt
    python benchmarks/chat.py clients   8 concurrent clients against one after another, same answers
    python benchmarks/chat.py load      200 clients for a minute, memory, then SIGTERM
    python benchmarks/chat.py confidence     on held-out RNAs: is a confident answer more often right?

Each starts what it measures itself, on the shipped demo unless --checkpoint names another, and prints one JSON object.
"""

import argparse
import json
import math
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import psutil

QUESTIONS = [
    "What type of RNA is this?",
    "Which organism group is it from?",
    "What does this RNA do?",
    "Is it a tRNA?",
    "How long is it?",
]


def loaded(checkpoint: str | None, pool: int | None = None):
    """Model and processor; with `pool` an untrained model of the demo's parts with so many nt per soft token."""
    from rnagpt.checkpoints.kept_demo import DEMO
    from rnagpt.checkpoints.opening import share_processors

    share_processors()  # as the commands do
    from rnagpt.checkpoints import checkpoint as checkpoints

    if pool is not None:
        return checkpoints.build("smollm2-135m-instruct", "packaged", rna_pool_size=pool, template="chatml")
    return checkpoints.load(checkpoint or str(DEMO))


def random_rna(length: int, seed: int) -> str:
    return "".join(random.Random(seed).choices("ACGU", k=length))


# --- turns


def turns(args) -> dict:
    """Seconds to the first token, medians over five conversations, each about an RNA never seen before.

    A cold start is turn 5 on an engine that has seen nothing: the RNA is encoded and the whole conversation computed.
    """
    from rnagpt.chat.conversation import Conversation
    from rnagpt.serving.engine import Engine
    from rnagpt_core.sequences import Record

    began = time.perf_counter()
    model, processor = loaded(args.checkpoint, args.pool)
    load_s = time.perf_counter() - began
    seconds: dict[str, list[float]] = {"turn_1": [], "turn_5": [], "cold_start": []}
    first_after_load = None
    for seed in range(6):
        engine = Engine(model, processor)
        conversation = Conversation(engine)
        conversation.read(Record("random", "", random_rna(1000, seed)))
        for turn, question in enumerate(QUESTIONS, start=1):
            waited = first_token(conversation, question, on=engine)
            first_after_load = first_after_load or waited
            if seed and turn in (1, 5):  # the first conversation warms torch up
                seconds[f"turn_{turn}"].append(waited)
            if seed and turn == 5:
                conversation.messages = conversation.messages[:-2]
                seconds["cold_start"].append(first_token(conversation, question, on=Engine(model, processor)))
    found = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "rna_nt": 1000,
        "nt_per_soft_token": processor.rna_pool_size,
        "load_s": round(load_s, 2),
        "first_token_after_load_s": round(first_after_load, 3),
        **{f"{name}_s": round(value, 3) for name, value in found.items()},
        "turn_5_share_of_turn_1": round(found["turn_5"] / found["turn_1"], 3),
        "turn_5_share_of_cold_start": round(found["turn_5"] / found["cold_start"], 3),
    }


def first_token(conversation, question: str, on) -> float:
    """Seconds from the question to the answer's first token on this engine; then 15 more, and it is a turn."""
    from rnagpt.serving.decoding import Sampling

    conversation.engine = on
    began = time.perf_counter()
    turns, answer = conversation.prepare(question, Sampling(16))
    on.start(answer)
    while not answer.token_ids:
        on.step()
    waited = time.perf_counter() - began
    while on.busy:
        on.step()
    conversation.add(turns, answer)
    return waited


# --- the server


@contextmanager
def server(args, *switches: str):
    """(process, base address) of `rnagpt serve` on the checkpoint."""
    what = [args.checkpoint] if args.checkpoint else ["--demo"]
    command = [sys.executable, "-m", "rnagpt", "serve", *what, "--port", "0", "--name", "model", *switches]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    said = ""
    while "serving model at " not in said:
        said = process.stderr.readline()
        if not said:
            raise SystemExit("the server ended before it was ready")
    threading.Thread(target=lambda: [sys.stderr.write(line) for line in process.stderr], daemon=True).start()
    try:
        yield process, said.split()[3]
    finally:
        process.kill()
        process.wait()


def body(rna: str, question: str, max_tokens: int, **more) -> dict:
    content = [{"type": "rna", "rna": rna}, {"type": "text", "text": question}]
    return {"model": "model", "messages": [{"role": "user", "content": content}], "max_tokens": max_tokens, **more}


def held_out(n: int):
    """RNAs of the test split, spread over the scored types."""
    from dataset_builder.facts_table.facts import scored_subset

    facts = scored_subset("test", per_type=-(-n // 8), seed=0)
    random.Random(0).shuffle(facts)
    return facts[:n]


def clients(args) -> dict:
    """The same 32 questions, one after another and from 8 clients; a fresh server each, so nothing is kept between."""
    facts = held_out(32)
    found = {}
    for name, workers in (("one_after_another", 1), ("eight_clients", 8)):
        with server(args) as (_, address), httpx.Client(timeout=600) as http:

            def ask(fact, http=http, address=address):
                wanted = body(fact.sequence, QUESTIONS[0], args.max_tokens)
                answer = http.post(f"{address}/chat/completions", json=wanted).json()
                return answer["choices"][0]["message"]["content"], answer["usage"]["completion_tokens"]

            http.post(f"{address}/chat/completions", json=body("ACGU", "Warm up.", 8))
            began = time.perf_counter()
            with ThreadPoolExecutor(workers) as pool:
                answers = list(pool.map(ask, facts))
            seconds = time.perf_counter() - began
            found[name] = {
                "seconds": seconds,
                "answers": [text for text, _ in answers],
                "tokens": sum(tokens for _, tokens in answers),
            }
    one, eight = found["one_after_another"], found["eight_clients"]
    return {
        "questions": len(facts),
        "tokens": one["tokens"],
        "one_after_another_s": round(one["seconds"], 2),
        "eight_clients_s": round(eight["seconds"], 2),
        "times": round(one["seconds"] / eight["seconds"], 2),
        "same_answers": sum(a == b for a, b in zip(one["answers"], eight["answers"], strict=True)),
    }


def load(args) -> dict:
    """200 clients that ask again and again; one in ten streams, one in twenty goes away early.

    What is kept between turns may take 128 MB here, so that it is full long before the end and memory can be flat.
    """
    statuses, rss, seconds = Counter(), [], []
    with server(args, "--timeout", "30", "--drain", "60", "--cache-mb", "128") as (process, address):
        watched = psutil.Process(process.pid)
        ending = time.monotonic() + args.seconds

        def client(number: int) -> None:
            rng = random.Random(number)
            with httpx.Client(timeout=90) as http:
                while time.monotonic() < ending:
                    wanted = body(random_rna(rng.randint(20, 400), rng.random()), rng.choice(QUESTIONS), 24)
                    began, kind = time.monotonic(), rng.random()
                    try:
                        if kind < 0.05:
                            http.post(f"{address}/chat/completions", json=wanted, timeout=0.3)
                            statuses["200"] += 1
                            continue
                        if kind < 0.15:
                            wanted["stream"] = True
                            with http.stream("POST", f"{address}/chat/completions", json=wanted) as r:
                                text = "".join(r.iter_text())
                            whole = "[DONE]" in text or r.status_code != 200
                            statuses[str(r.status_code) if whole else "broken stream"] += 1
                        else:
                            r = http.post(f"{address}/chat/completions", json=wanted)
                            statuses[str(r.status_code)] += 1
                    except httpx.ReadTimeout:
                        statuses["left early" if kind < 0.05 else "no answer"] += 1
                        continue
                    except httpx.HTTPError as error:
                        statuses[type(error).__name__] += 1
                        continue
                    seconds.append(time.monotonic() - began)
                    if r.status_code == 429:
                        time.sleep(min(float(r.headers["Retry-After"]), 5) * rng.uniform(0.5, 1))

        threads = [threading.Thread(target=client, args=(number,)) for number in range(args.clients)]
        for thread in threads:
            thread.start()
        while time.monotonic() < ending:
            rss.append(watched.memory_info().rss / 1e6)
            time.sleep(1)
        for thread in threads:
            thread.join()
        rss.append(watched.memory_info().rss / 1e6)

        def ask_late():
            status = httpx.post(f"{address}/chat/completions", json=body("ACGU", "Hm?", 64)).status_code
            statuses.update([f"while draining {status}"])

        late = threading.Thread(target=ask_late)
        late.start()
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=90)
        late.join()
    half = len(rss) // 2
    return {
        "clients": args.clients,
        "seconds": args.seconds,
        "statuses": dict(statuses),
        "median_s": round(statistics.median(seconds), 2),
        "slowest_s": round(max(seconds), 2),
        "rss_mb": {
            "start": round(rss[0]),
            "quarter": round(rss[half // 2]),
            "half": round(rss[half]),
            "most": round(max(rss)),
            "end": round(rss[-1]),
        },
        "exit_code_after_sigterm": code,
    }


# --- what confidence is worth


def confidence(args) -> dict:
    """Type questions about held-out RNAs: how well each measure of confidence tells right answers from wrong ones."""
    from sklearn.metrics import roc_auc_score

    from dataset_builder.facts_table.fact_answers import parse_answer
    from dataset_builder.facts_table.fact_questions import questions
    from rnagpt.serving.confidence import confidence_of
    from rnagpt.serving.decoding import Sampling
    from rnagpt.serving.engine import Engine

    engine = Engine(*loaded(args.checkpoint))
    facts, answers, asked = held_out(args.rnas), [], []
    for fact in facts:
        question = next(q for q in questions(fact, seed=0) if q.topic == "rna_type")
        content = [{"type": "rna", "rna": fact.sequence}, {"type": "text", "text": question.question}]
        answers.append(engine.prepare([{"role": "user", "content": content}], Sampling(24), confidence=True))
        asked.append(question)
    engine.run(answers)
    right = [
        parse_answer(a.text, "rna_type") == parse_answer(q.answer, "rna_type")
        for a, q in zip(answers, asked, strict=True)
    ]
    measures = {
        "least_certain_token": [min(a.logprobs) for a in answers],
        "mean_of_tokens": [statistics.mean(a.logprobs) for a in answers],
        "whole_answer": [sum(a.logprobs) for a in answers],
        "gain": [sum(a.logprobs) - sum(a.plain_logprobs) for a in answers],
    }
    confidences = [confidence_of(answer) for answer in answers]
    kept = [ok for ok, found in zip(right, confidences, strict=True) if not found.abstains]
    general = ["What is a tRNA?", "What is the capital of France?", "Name three kinds of RNA.", "What is an exon?"]
    others = [
        engine.prepare(
            [{"role": "user", "content": [{"type": "rna", "rna": fact.sequence}, {"type": "text", "text": question}]}],
            Sampling(24),
            confidence=True,
        )
        for fact, question in zip(facts, general * len(facts), strict=False)
    ]
    engine.run(others)
    from_sequence = [confidence_of(answer).source == "from the sequence" for answer in others]
    return {
        "rnas": len(facts),
        "right": round(statistics.mean(right), 3),
        "auroc": {name: round(roc_auc_score(right, values), 3) for name, values in measures.items()},
        "answered_at_threshold": round(len(kept) / len(right), 3),
        "right_when_answered": round(statistics.mean(kept), 3) if kept else None,
        "type_answers_called_from_the_sequence": round(
            statistics.mean(found.source == "from the sequence" for found in confidences), 3
        ),
        "general_answers_called_from_the_sequence": round(statistics.mean(from_sequence), 3),
        "the_same_by_gain_alone": [  # nats of the likelihood, not of the odds
            round(statistics.mean(confidence_of(answer).gain >= math.log(20) for answer in some), 3)
            for some in (answers, others)
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["turns", "clients", "load", "confidence"])
    parser.add_argument("--checkpoint", help="a checkpoint instead of the demo")
    parser.add_argument("--pool", type=int, help="turns: an untrained model with so many nt per soft token (paper: 1)")
    parser.add_argument("--max-tokens", type=int, default=24, help="clients: most tokens of an answer")
    parser.add_argument("--clients", type=int, default=200, help="load: concurrent clients")
    parser.add_argument("--seconds", type=int, default=60, help="load: how long")
    parser.add_argument("--rnas", type=int, default=104, help="confidence: held-out RNAs")
    args = parser.parse_args()
    run = {"turns": turns, "clients": clients, "load": load, "confidence": confidence}[args.what]
    print(json.dumps(run(args)))


if __name__ == "__main__":
    main()
