"""A thread that runs the engine for many askers: the web page's visitors, the server's clients.

with Worker(engine) as worker:
    worker.submit(engine.prepare(messages, when_done=...))
"""

import threading
from collections import deque
from typing import Self

from rnagpt.serving.engine import Answer, Engine


class Worker:
    """Runs the engine while there is anything to answer.

    An error in a step ends the answers under way, each with `finish_reason` "error", and the thread goes on.
    """

    def __init__(self, engine: Engine):
        self.engine = engine
        self._inbox: deque[Answer] = deque()
        self._wake = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="rnagpt engine", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        """End after what is under way; what is submitted from now on is not answered."""
        with self._wake:
            self._ending = True
            self._wake.notify()
        self._thread.join()

    def submit(self, answer: Answer) -> None:
        """Answer it; `stream_to` and `when_done` are called by the worker's thread."""
        with self._wake:
            self._inbox.append(answer)
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._inbox or self._ending or self.engine.busy):
                    self._wake.wait()
                while self._inbox:
                    self.engine.start(self._inbox.popleft())
            if not self.engine.busy:
                return  # ending, and nothing is left
            try:
                self.engine.step()
            except Exception as error:
                # Whatever it is, the askers must not wait for ever, and the thread must not die: nobody would start
                # another. The engine is as new after `give_up`, so the next request is answered as if nothing was.
                for answer in self.engine.give_up(error):
                    if answer.when_done is not None:
                        answer.when_done(answer)
