"""Two thousand requests made by schemathesis from the server's own OpenAPI description: never a 500.

pytest tests/serving/test_serve_fuzz.py
"""

from collections import Counter

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from test_chat import TRNA, TYPE, user_turn
from test_serve import PATH, request, serving

from rnagpt.serving.app import Limits
from rnagpt.serving.engine import Engine

BODIES = {"negative": 1500, "positive": 500}


def within_reach(body) -> None:
    """Let a well-formed body come as far as the model: its name, readable RNAs, short answers."""
    body |= {"model": "tiny", "max_tokens": 2, "max_completion_tokens": 2}
    for message in body.get("messages", []):
        for part in message["content"] if isinstance(message["content"], list) else []:
            if "rna" in part and len(part["rna"]) % 2:
                part["rna"] = TRNA.sequence


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", BODIES)
def test_no_body_is_a_500(tiny_model, mode):
    statuses = Counter()
    with serving(Engine(*tiny_model), limits=Limits(timeout=60)) as address, requests.Session() as session:
        operation = schemathesis.openapi.from_url(f"{address}/openapi.json")[PATH]["POST"]

        @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
        @settings(
            max_examples=BODIES[mode],
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        def send(case):
            if mode == "positive":
                within_reach(case.body)
            found = case.call(base_url=address, session=session, timeout=60)
            statuses[found.status_code] += 1
            assert found.status_code < 500, (case.body, found.text)

        send()
        # and it still answers
        found = session.post(f"{address}{PATH}", json=request([user_turn(TYPE, TRNA)]), timeout=60)
        assert found.status_code == 200
    print(mode, dict(statuses))
    assert sum(statuses.values()) >= BODIES[mode]
    if mode == "positive":
        assert statuses[200] > 20  # the model was reached
