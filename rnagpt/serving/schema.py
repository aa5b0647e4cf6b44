"""What the server takes and gives: OpenAI's chat completions, with an `rna` part of a message's content."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rnagpt.serving.decoding import MAX_NEW_TOKENS, Sampling
from rnagpt.serving.rna_reading import read_rnas
from rnagpt_core.errors import UserError

MAX_MESSAGES = 256
MAX_TOKENS = 1 << 20
# asks for something that an answer in plain text is not; ignoring it would mislead
REFUSED = ("tools", "tool_choice", "functions", "function_call", "logprobs", "top_logprobs", "audio", "logit_bias")


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


class RnaPart(BaseModel):
    """An RNA: its letters, or FASTA text with one record."""

    type: Literal["rna"]
    rna: Annotated[str, Field(min_length=1)]


class Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[Annotated[TextPart | RnaPart, Field(discriminator="type")]], Field(min_length=1)]


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """A chat completion; fields of OpenAI's that are not named here are ignored, or refused where that would mislead.

    `confidence` is ours: how far to trust the answer comes with it (see `rnagpt.serving.confidence`). `weigh` is its
    old name, which goes with the next release.
    """

    model_config = ConfigDict(extra="allow")

    model: str
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    n: Literal[1] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=4)]
        | None
    ) = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    confidence: bool = False
    weigh: bool = False

    def sampling(self) -> Sampling:
        """How to sample; greedy unless a temperature is given."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return Sampling(
            self.max_completion_tokens or self.max_tokens or MAX_NEW_TOKENS,
            self.temperature or 0.0,
            self.top_p or 1.0,
            self.seed,
            stop,
        )

    def conversation(self) -> list[dict[str, Any]]:
        """Messages for `Engine.prepare`.

        Raises:
            UserError: what the schema alone cannot tell.
        """
        for name in REFUSED:
            if (self.model_extra or {}).get(name):
                raise UserError(f"{name} is not supported: leave it out")
        form = (self.model_extra or {}).get("response_format")
        if form and form != {"type": "text"}:
            raise UserError("response_format other than text is not supported: leave it out")
        if self.messages[-1].role != "user":
            last = self.messages[-1].role
            raise UserError(f"the last message is the {last}'s: the user's question must be the last")
        return [as_message(number, message) for number, message in enumerate(self.messages)]


def as_message(number: int, message: Message) -> dict[str, Any]:
    """One message for the processor; `number` names it in errors."""
    role = "system" if message.role == "developer" else message.role
    if isinstance(message.content, str):
        return {"role": role, "content": message.content}
    parts = []
    for part in message.content:
        if isinstance(part, TextPart):
            parts.append({"type": "text", "text": part.text})
            continue
        where = f"the RNA of message {number + 1}"
        if role != "user":
            raise UserError(f"{where} stands in a message of the {role}: an RNA belongs in the user's")
        records = read_rnas(part.rna, where, online=False)
        if len(records) > 1:
            raise UserError(f"{where} holds {len(records)} records: give each an `rna` part of its own")
        parts.append({"type": "rna", "rna": records[0].sequence})
    return {"role": role, "content": parts}
