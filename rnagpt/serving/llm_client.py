"""Answers about RNAs from a server that runs the language model alone: vLLM's, by its prompt embeddings.

`rnagpt export-llm` writes this file beside the client's weights, as client.py; it needs torch and transformers alone.

    python client.py --server http://127.0.0.1:8000/v1 --rna GCGGAUUUAGC... --question "What type of RNA is this?"

    content = [{"type": "rna", "rna": "GCGG..."}, {"type": "text", "text": "What type of RNA is this?"}]
    RnaClient(folder).ask([{"role": "user", "content": content}], "http://127.0.0.1:8000/v1")

The client holds the RNA encoder, the projector, the LLM's embedding table and the processor, and sends the server no
tokens but embeddings. The key that the server may ask for is read from the environment, VLLM_API_KEY.
"""

import argparse
import base64
import io
import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

import torch
from transformers import AutoModel, AutoProcessor

SETTINGS = "client.json"  # what a request must say of this model: where answers end, which token is never sampled
MAX_TOKENS = 256
TIMEOUT = 300  # seconds
MAX_ANSWER = 10_000_000  # bytes
ADVICE = "start it by `vllm serve FOLDER --enable-prompt-embeds` and give its address by --server"


class ClientError(Exception):
    """What the server said instead of an answer, or why it could not be asked; one sentence."""


class RnaClient:
    """Encoder, projector and embedding table, and questions to the LLM's server.

    Args:
        folder: as `rnagpt export-llm` wrote it.
    """

    def __init__(self, folder: str | Path = Path(__file__).parent):
        self.processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
        self.model = AutoModel.from_pretrained(folder, dtype="auto", trust_remote_code=True).eval()
        self.settings = json.loads((Path(folder) / SETTINGS).read_text(encoding="utf-8"))

    @torch.inference_mode()
    def embed(self, messages: list[dict]) -> torch.Tensor:
        """Embeddings of a conversation, the assistant's turn opened, (tokens, LLM hidden size), in the LLM's dtype.

        Control tokens in the messages are read as the plain text they are.

        Args:
            messages: {"role", "content"}, the content a string or parts {"type": "rna", "rna"}, {"type": "text",
                "text"}.

        Raises:
            ValueError: an RNA cannot be read.
        """
        batch = self.processor(messages, sanitize_control_tokens=True)
        # a batch of one needs no mask
        return self.model.embed(**{name: batch[name] for name in batch if name != "attention_mask"})[0]

    def request(
        self, messages: list[dict], model: str, max_tokens: int = MAX_TOKENS, temperature: float = 0.0, **more
    ) -> dict:
        """Body of a request to /v1/completions, in the form that vLLM documents for prompt embeddings.

        Args:
            model: the server's name for the LLM.
            more: further fields, such as seed, top_p or stream.
        """
        file = io.BytesIO()
        # a copy: of a part of a larger tensor, torch.save would write all
        torch.save(self.embed(messages).cpu().clone(), file)
        embeds = base64.b64encode(file.getvalue()).decode("ascii")
        sampling = {"max_tokens": max_tokens, "temperature": temperature}
        return {"model": model, "prompt_embeds": embeds, **sampling, **self.settings, **more}

    def ask(self, messages: list[dict], server: str, model: str | None = None, **sampling) -> str:
        """The answer of the LLM at `server` (its address, with /v1).

        Args:
            model: see `request`; by default the first that the server names.
            sampling: further arguments of `request`.

        Raises:
            ClientError: no server there, or no answer.
        """
        model = model or send(f"{server}/models")["data"][0]["id"]
        answer = send(f"{server}/completions", self.request(messages, model, **sampling))
        return answer["choices"][0]["text"].strip()


def send(address: str, body: dict | None = None) -> dict:
    """JSON from the server: GET, or POST with a body."""
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("VLLM_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(address, data, headers), timeout=TIMEOUT) as answer:
            return json.loads(answer.read(MAX_ANSWER))
    except urllib.error.HTTPError as error:
        sentence = " ".join(error.read(2000).decode("utf-8", "replace").split())
        raise ClientError(f"{address} answered {error.code}: {sentence}") from None
    except OSError as error:  # URLError and time-outs are OSErrors
        raise ClientError(f"{address} could not be reached ({getattr(error, 'reason', error)}): {ADVICE}") from None
    except ValueError:
        raise ClientError(f"{address} answered no JSON: {ADVICE}") from None


def main(arguments: list[str] | None = None) -> int:
    """One question about one RNA."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="http://127.0.0.1:8000/v1", help="(default: http://127.0.0.1:8000/v1)")
    parser.add_argument("--model", help="the server's name for the LLM (default: the first that it names)")
    parser.add_argument("--rna", required=True, metavar="SEQUENCE")
    parser.add_argument("--question", required=True, metavar="TEXT")
    parser.add_argument("--max-tokens", type=int, default=MAX_TOKENS, metavar="N")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T")
    args = parser.parse_args(arguments)
    content = [{"type": "rna", "rna": args.rna}, {"type": "text", "text": args.question}]
    messages = [{"role": "user", "content": content}]
    sampling = {"max_tokens": args.max_tokens, "temperature": args.temperature}
    try:
        print(RnaClient().ask(messages, args.server.rstrip("/"), args.model, **sampling))
    except (ClientError, ValueError) as error:
        print(f"client: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
