"""Ask a public web service as its keepers wish: slowly, by name, with patience, and believing nothing unchecked.

A pace of its own per host, a User-Agent with the user's address, at most `TRIES` tries of 429, 5xx, time-outs, lost
connections and bodies that are no JSON, waiting as Retry-After says or with jittered backoff. 400 and 404 are not
tried again. A body is checked even at status 200: Europe PMC reports errors that way.
"""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from rnagpt_core.endpoint import backoff
from rnagpt_core.errors import UserError

TRIES = 6
# requests per minute, below each service's limit (rnacentral.org: 20 per second, Europe PMC: 10 per second, 500 per
# minute)
RATES = {"rnacentral": 900, "export": 60, "ebi": 450, "europe_pmc": 450}
BATCH = 256  # items whose answers are in memory


class NotThere(Exception):
    """The service says that the thing asked for does not exist (404) or cannot be asked for (400)."""


class Pace:
    """Requests evenly spaced, at most `per_minute`, whatever thread they come from."""

    def __init__(self, per_minute: float, now=time.monotonic, sleep=time.sleep):
        self.gap, self.following = 60 / per_minute, 0.0  # seconds; when the next may be made
        self.now, self.sleep, self.lock = now, sleep, threading.Lock()

    def take(self) -> None:
        """Wait for a turn.

        >>> clock = [0.0]
        >>> pace = Pace(120, lambda: clock[0], lambda s: clock.__setitem__(0, clock[0] + s))
        >>> for _ in range(5): pace.take()
        >>> round(clock[0], 6)
        2.0
        """
        with self.lock:
            self.sleep(max(0.0, self.following - self.now()))
            self.following = self.now() + self.gap


class PoliteClient:
    """JSON over HTTP from the services in `addresses` ({name: base URL}), with events counted."""

    def __init__(self, addresses: dict[str, str], contact: str, timeout: float = 60.0, rates: dict | None = None):
        if "@" not in contact:
            raise UserError("the services ask for a way to reach you: give --contact YOUR@ADDRESS")
        self.addresses, self.timeout = addresses, timeout
        self.paces = {name: Pace((rates or RATES)[name]) for name in addresses}
        self.agent = f"rnagpt-dataset-builder (mailto:{contact})"
        self.events: Counter = Counter()
        self.random = random.Random()
        self.local = threading.local()

    def ask(self, service: str, path: str, check: Callable[[object], None], params=None, body=None, form=None):
        """The checked JSON of one request.

        Args:
            check: raises ValueError for a body that is not what the service promises.

        Raises:
            NotThere: 400 or 404, as a status or in the body.
            UserError: it failed `TRIES` times.
        """
        import requests

        if not hasattr(self.local, "session"):
            self.local.session = requests.Session()
            self.local.session.headers["User-Agent"] = self.agent
        url = self.addresses[service].rstrip("/") + "/" + path
        reason = ""
        for attempt in range(1, TRIES + 1):
            self.paces[service].take()
            retry_after = None
            try:
                method = "GET" if body is None and form is None else "POST"
                answer = self.local.session.request(
                    method, url, params=params, json=body, data=form, timeout=self.timeout
                )
                if answer.status_code in (400, 404):
                    raise NotThere(f"status {answer.status_code} from {urlsplit(url).netloc}/{path}")
                if answer.status_code == 200:
                    value = json.loads(answer.content)
                    error = value.get("errCode") if isinstance(value, dict) else None
                    if error in (400, 404):
                        raise NotThere(f"{urlsplit(url).netloc}/{path} says: {value.get('errMsg')}")
                    if error is None:
                        check(value)
                        return value
                    reason = f"error {error} in a body with status 200"
                elif answer.status_code in (408, 425, 429) or answer.status_code >= 500:
                    reason, retry_after = f"status {answer.status_code}", answer.headers.get("Retry-After")
                else:
                    raise UserError(f"{urlsplit(url).netloc}/{path} refused with status {answer.status_code}")
            except requests.Timeout:
                reason = "time-out"
            except requests.RequestException:
                reason = "connection lost"
            except ValueError as error:
                reason = "body that is no JSON" if isinstance(error, json.JSONDecodeError) else f"body with {error}"
            self.events[f"{service} tried again: {reason}"] += 1
            if attempt < TRIES:
                time.sleep(backoff(attempt, retry_after, self.random))
        raise UserError(
            f"{urlsplit(url).netloc}/{path} did not answer in {TRIES} tries, the last time: {reason}; run the same "
            "command to go on where it stopped"
        )

    def many(self, work: Callable, items: list) -> Iterator[tuple]:
        """(item, work(item)) in order, a few at a time."""
        with ThreadPoolExecutor(8) as pool:
            for start in range(0, len(items), BATCH):
                batch = items[start : start + BATCH]
                yield from zip(batch, pool.map(work, batch), strict=True)


def has_keys(**types) -> Callable[[object], None]:
    """A check: the body is an object that has these keys, of these types.

    >>> has_keys(hitCount=int)({"hitCount": "3"})
    Traceback (most recent call last):
        ...
    ValueError: hitCount that is no int
    """

    def check(value) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{type(value).__name__} where an object was expected")
        for key, kind in types.items():
            if not isinstance(value.get(key), kind):
                raise ValueError(f"{key} that is no {kind.__name__}")

    return check
