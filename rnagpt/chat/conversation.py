"""One conversation about RNAs: the turns so far, and asking the next question.

conversation = Conversation(Engine(model, processor))
conversation.read(Record("tRNA-Phe", "", "GCGGAUUU..."))
conversation.ask("What type of RNA is this?", stream_to=print)
"""

from collections.abc import Callable

from rnagpt.serving.decoding import Sampling
from rnagpt.serving.engine import Answer, Engine
from rnagpt.serving.rna_reading import check_lengths
from rnagpt_core.errors import UserError
from rnagpt_core.sequences import Record


class Conversation:
    """The turns so far, the RNAs they are about, and the engine that answers.

    Attributes:
        rnas: the RNAs that stand in the first user turn; none until `read`.
        messages: finished turns, {"role": "user" | "assistant", "content": text}; the RNAs are added on rendering.
        last: the last answer, with its likelihoods and why it ended.
    """

    def __init__(self, engine: Engine):
        self.engine = engine
        self.rnas: list[Record] = []
        self.messages: list[dict[str, str]] = []
        self.last: Answer | None = None

    @property
    def rna(self) -> Record | None:
        """The first RNA, or None."""
        return self.rnas[0] if self.rnas else None

    @property
    def cut_off(self) -> bool:
        """Whether the last answer ended at its token limit, not by itself."""
        return self.last is not None and self.last.finish_reason == "length"

    def read(self, *rnas: Record) -> None:
        """Take one RNA, or several to be compared, and forget the turns about earlier ones.

        Raises:
            UserError: they are longer than the model reads; the conversation stays as it was.
        """
        check_lengths(rnas, self.engine.processor, self.engine.context)
        self.rnas, self.messages = list(rnas), []

    def forget(self) -> None:
        """Forget the turns; the RNAs stay."""
        self.messages = []

    def ask(
        self,
        question: str,
        sampling: Sampling | None = None,
        stream_to: Callable[[str], None] | None = None,
        confidence: bool = False,
    ) -> str:
        """Answer a question in the light of the earlier turns; question and answer become turns themselves.

        Whatever the question holds is text: control tokens in it (`<|im_end|>`, `<RNAHere>`) have no effect. When
        anything is raised, also KeyboardInterrupt or by `stream_to`, the conversation stays as it was before.

        Args:
            stream_to: called with each new piece of the answer; the pieces add up to the answer returned.
            confidence: compute what `rnagpt.serving.confidence` needs, too.

        Raises:
            UserError: no RNA, no question, or a prompt that fills the LLM's context.
        """
        turns, answer = self.prepare(question, sampling, stream_to=stream_to, confidence=confidence)
        self.engine.run([answer])
        self.add(turns, answer)
        return answer.text

    def prepare(
        self, question: str, sampling: Sampling | None = None, **options
    ) -> tuple[list[dict[str, str]], Answer]:
        """The turns with this question as the last, and its answer, ready for the engine.

        Args:
            options: further arguments of `Engine.prepare`.
        """
        if not self.rnas:
            raise UserError("there is no RNA to ask about yet: give one first")
        question = question.encode("utf-8", "replace").decode().strip()
        if not question:
            raise UserError("the question is empty: write one")
        turns = [*self.messages, {"role": "user", "content": question}]
        return turns, self.engine.prepare(with_rnas(turns, self.rnas), sampling, **options)

    def add(self, turns: list[dict[str, str]], answer: Answer) -> None:
        """Make a finished answer the last turn."""
        self.last = answer
        self.messages = [*turns, {"role": "assistant", "content": answer.text}]


def with_rnas(turns: list[dict[str, str]], rnas: list[Record]) -> list[dict]:
    """The turns with the RNAs in the first one, before its question; several are numbered.

    Names are left out: "tRNA-Phe" would answer for the RNA.

    >>> with_rnas([{"role": "user", "content": "Which is longer?"}], [Record("x", "", "AC"), Record("y", "", "G")])
    [{'role': 'user', 'content': [{'type': 'text', 'text': 'RNA 1:'}, {'type': 'rna', 'rna': 'AC'},
    {'type': 'text', 'text': 'RNA 2:'}, {'type': 'rna', 'rna': 'G'}, {'type': 'text', 'text': 'Which is longer?'}]}]
    """
    content = []
    for number, rna in enumerate(rnas, start=1):
        if len(rnas) > 1:
            content.append({"type": "text", "text": f"RNA {number}:"})
        content.append({"type": "rna", "rna": rna.sequence})
    first, *rest = turns
    return [{**first, "content": [*content, {"type": "text", "text": first["content"]}]}, *rest]
