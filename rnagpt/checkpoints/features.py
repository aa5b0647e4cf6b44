"""Encoder outputs computed once: the encoder is frozen, so what it says of an RNA never changes.

features = encode_features(encoder, rna_tokenizer, {"a": "GCGGAUUU..."}, [0, 2], 1, cache=FeatureCache(folder))
"""

import hashlib
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors import SafetensorError
from safetensors.torch import load, save
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from modeling_rnagpt.modeling_rnagpt import encode_and_pool
from processing_rnagpt.rna_sequences import EncodedRna, RnaReader, pad_kept, pad_mask, pad_tokens, window_lengths

PART = 512  # RNAs whose outputs are in memory at a time while a folder of them is filled
# what a configuration says beside the architecture: where it came from, and how it is run
NOT_ARCHITECTURE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures", "auto_map")


@torch.no_grad()
def encode_features(
    encoder: PreTrainedModel,
    rna_tokenizer: PreTrainedTokenizerBase,
    sequences: Mapping[str, str],
    drop_token_ids: list[int],
    pool_size: int,
    batch_tokens: int = 65_536,
    long_rna: str = "windows",
    overlap: float = 0.25,
    cache: "FeatureCache | None" = None,
    dtype: torch.dtype = torch.float32,
    weights: str | None = None,
) -> dict[str, torch.Tensor]:
    """rna_id -> pooled encoder output (slots, encoder hidden) on the CPU, before the projector.

    Args:
        sequences: rna_id -> RNA.
        drop_token_ids, pool_size: as in `RnaGptConfig` (`rna_drop_token_ids`, `rna_pool_size`).
        batch_tokens: encoder tokens of RNAs that are prepared together; RNAs of like length go together.
        long_rna, overlap: as in `RnaGptProcessor` (`long_rna`, `rna_window_overlap`).
        cache: where outputs are looked up first, and put.
        dtype: of the features returned and stored.
        weights: `weights_hash` of the encoder, for a caller that has it: it reads every weight.

    Raises:
        ValueError: an RNA cannot be read; the message names which one and where.
    """
    encoder.eval()
    reader = RnaReader(rna_tokenizer, drop_token_ids, long_rna, overlap)
    encoded = dict(zip(sequences, reader.read(list(sequences.values())), strict=True))
    features: dict[str, torch.Tensor] = {}
    keys: dict[str, str] = {}
    if cache is not None:
        weights = weights or weights_hash(encoder)
        keys = {rna_id: feature_key(weights, dtype, pool_size, rna) for rna_id, rna in encoded.items()}
        for rna_id, key in keys.items():
            known = cache.get(key)
            if known is not None:
                features[rna_id] = known
    missing = sorted(encoded.keys() - features.keys(), key=lambda rna_id: (tokens_of(encoded[rna_id]), rna_id))
    while missing:
        batch, size = [], 0
        while missing and (not batch or size + tokens_of(encoded[missing[-1]]) <= batch_tokens):
            batch.append(missing.pop())
            size += tokens_of(encoded[batch[-1]])
        parts = encode_batch(encoder, [encoded[rna_id] for rna_id in batch], rna_tokenizer.pad_token_id, pool_size)
        for rna_id, part in zip(batch, parts, strict=True):
            features[rna_id] = part.to("cpu", dtype).clone()
            if cache is not None:
                cache.put(keys[rna_id], features[rna_id])
    return {rna_id: features[rna_id] for rna_id in sequences}


def encode_rnas(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    sequences: Mapping[str, str],
    cache: "FeatureCache | None" = None,
    weights: str | None = None,
) -> dict[str, torch.Tensor]:
    """`encode_features` as an RNA-GPT model and its processor read RNAs: encoder, pooling, policy for long ones."""
    return encode_features(
        model.model.rna_encoder,
        processor.rna_tokenizer,
        sequences,
        model.config.rna_drop_token_ids,
        model.config.rna_pool_size,
        long_rna=processor.long_rna,
        overlap=processor.rna_window_overlap,
        cache=cache,
        weights=weights,
    )


class StoredFeatures(Mapping):
    """rna_id -> encoder output, read from a `FeatureCache` when it is asked for: memory holds one batch, not all RNAs.

    What the cache has given up for room is computed again.

    Args:
        model, processor: as of `encode_rnas`.
        sequences: rna_id -> RNA; those that the cache lacks are encoded here, in parts, each process its share.
    """

    def __init__(
        self, model: PreTrainedModel, processor: ProcessorMixin, sequences: Mapping[str, str], cache: "FeatureCache"
    ):
        self.model, self.processor, self.sequences, self.cache = model, processor, sequences, cache
        self.reader = RnaReader(
            processor.rna_tokenizer, model.config.rna_drop_token_ids, processor.long_rna, processor.rna_window_overlap
        )
        self.weights = weights_hash(model.model.rna_encoder)
        names = list(sequences)
        state = PartialState()
        for first in tqdm(range(0, len(names), PART), "encoding", disable=not state.is_local_main_process):
            with state.split_between_processes(names[first : first + PART]) as part:
                encode_rnas(model, processor, {name: sequences[name] for name in part}, cache, self.weights)
        state.wait_for_everyone()

    def __getitem__(self, rna_id: str) -> torch.Tensor:
        (encoded,) = self.reader.read([self.sequences[rna_id]])
        known = self.cache.get(feature_key(self.weights, torch.float32, self.model.config.rna_pool_size, encoded))
        if known is None:
            wanted = {rna_id: self.sequences[rna_id]}
            known = encode_rnas(self.model, self.processor, wanted, self.cache, self.weights)[rna_id]
        return known

    def __iter__(self):
        return iter(self.sequences)

    def __len__(self) -> int:
        return len(self.sequences)


def tokens_of(rna: EncodedRna) -> int:
    """Encoder tokens of an RNA over all its windows."""
    return int(window_lengths([rna]).sum())


def encode_batch(
    encoder: PreTrainedModel, rnas: list[EncodedRna], pad_token_id: int | None, pool_size: int
) -> tuple[torch.Tensor, ...]:
    """Pooled encoder output (slots, hidden) of each RNA."""
    arrays = pad_tokens(rnas, pad_token_id), pad_mask(rnas), pad_kept(rnas)
    ids, mask, kept = (torch.from_numpy(array).to(encoder.device) for array in arrays)
    number = torch.tensor([i for i, rna in enumerate(rnas) for _ in rna.spans], device=encoder.device)
    # the kept positions are decided already, by the reader
    index = torch.where(kept, number[:, None], -1)
    pooled, slots = encode_and_pool(encoder, ids, mask, [], pool_size, index)
    return pooled.split(slots.tolist())


def weights_hash(encoder: PreTrainedModel) -> str:
    """sha256 of an encoder's architecture and of every weight, bit by bit; its name and place do not count."""
    config = {key: value for key, value in encoder.config.to_diff_dict().items() if key not in NOT_ARCHITECTURE}
    digest = hashlib.sha256(repr(sorted(config.items())).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def feature_key(weights: str, dtype: torch.dtype, pool_size: int, rna: EncodedRna) -> str:
    """Address of an RNA's features: sha256 of all that they depend on.

    The RNA stands in it as the tokens of its windows, which is the normalised sequence as this encoder reads it.
    """
    digest = hashlib.sha256(f"{weights} {dtype} {pool_size}".encode())
    for window, kept in zip(rna.windows, rna.kept, strict=True):
        digest.update(f" {len(window)} ".encode())
        digest.update(window.astype("<i4").tobytes())
        digest.update(kept.tobytes())
    return digest.hexdigest()


class FeatureCache:
    """Tensors on disk by content address, the least recently used removed first.

    One safetensors file each, written under a temporary name and renamed, so any number of processes may read, write
    and remove at the same time: what one removes is a miss for the others.

    Args:
        folder: made when missing.
        max_bytes: of all files together; with n processes writing it may be exceeded by n/50 for a moment.
    """

    def __init__(self, folder: Path | str, max_bytes: int = 10_000_000_000):
        if max_bytes < 1:
            raise ValueError(f"the cache needs at least one byte, got max_bytes={max_bytes}")
        self.folder, self.max_bytes = Path(folder), max_bytes
        self.folder.mkdir(parents=True, exist_ok=True)
        self._size_seen: int | None = None  # at the last look at the folder
        self._written_since = 0

    def path(self, key: str) -> Path:
        """Where the tensor of a key is, if it is."""
        return self.folder / key[:2] / f"{key[2:]}.safetensors"

    def get(self, key: str) -> torch.Tensor | None:
        """The tensor, or None where there is none; a damaged file counts as none and is removed."""
        path = self.path(key)
        try:
            content = path.read_bytes()
            tensor = load(content)["features"]
            os.utime(path)  # used now
        except FileNotFoundError:
            return None
        except (SafetensorError, KeyError):
            path.unlink(missing_ok=True)
            return None
        return tensor

    def put(self, key: str, tensor: torch.Tensor) -> None:
        """Keep a tensor; one larger than the whole cache is not kept."""
        content = save({"features": tensor.contiguous()})
        if len(content) > self.max_bytes:
            return
        self._make_room(len(content))
        path = self.path(key)
        path.parent.mkdir(exist_ok=True)
        part = path.with_name(f"{path.name}.part-{secrets.token_hex(8)}")
        try:
            part.write_bytes(content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def size(self) -> int:
        """Bytes of all files."""
        return sum(stat.st_size for _, stat in self._files())

    def _make_room(self, wanted: int) -> None:
        """Look at the folder now and then, and remove the least recently used files down to nine tenths when full."""
        if self._size_seen is None or self._written_since + wanted > self.max_bytes / 50:
            self._size_seen, self._written_since = self.size(), 0
        self._written_since += wanted
        if self._size_seen + self._written_since <= self.max_bytes:
            return
        files = sorted(self._files(), key=lambda file: file[1].st_mtime_ns)
        size = sum(stat.st_size for _, stat in files)
        for path, stat in files:
            left_over = ".part-" in path.name and time.time() - stat.st_mtime > 3600  # of a process that was killed
            if left_over or (size + wanted > 0.9 * self.max_bytes and ".part-" not in path.name):
                path.unlink(missing_ok=True)
                size -= stat.st_size
        self._size_seen, self._written_since = size, wanted

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        found = []
        for path in self.folder.glob("??/*"):
            try:
                found.append((path, path.stat()))
            except FileNotFoundError:  # another process removed it meanwhile
                continue
        return found
