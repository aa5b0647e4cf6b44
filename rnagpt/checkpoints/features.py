"""Encoder outputs computed once: the encoder is frozen, so what it says of an RNA never changes.

features = encode_features(model.model.rna_encoder, processor.rna_reader, {"a": "GCGG..."}, FeatureCache(folder))
"""

import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors import SafetensorError
from safetensors.torch import load, save
from tqdm import tqdm
from transformers import PreTrainedModel

from modeling_rnagpt.modeling_rnagpt import encode_and_pool
from processing_rnagpt.rna_sequences import RnaInput, RnaReader, encoder_inputs
from rnagpt_core.files import new_file

PART = 512  # RNAs whose outputs are in memory at a time while a folder of them is filled
# what a configuration says beside the architecture: where it came from, and how it is run
NOT_ARCHITECTURE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures", "auto_map")


@torch.no_grad()
def encode_features(
    encoder: PreTrainedModel,
    reader: RnaReader,
    sequences: Mapping[str, str],
    cache: "FeatureCache | None" = None,
    weights: str | None = None,
    batch_tokens: int = 65_536,
) -> dict[str, torch.Tensor]:
    """rna_id -> pooled encoder output (slots, encoder hidden) fp32 on the CPU, before the projector.

    Args:
        reader: how RNAs are read for this encoder: pooling, policy for long ones (see `RnaGptProcessor.rna_reader`).
        sequences: rna_id -> RNA.
        cache: where outputs are looked up first, and put.
        weights: `weights_hash` of the encoder, for a caller that has it: it reads every weight.
        batch_tokens: encoder tokens of RNAs that are prepared together; RNAs of like length go together.

    Raises:
        ValueError: an RNA cannot be read; the message names which one and where.
    """
    encoder.eval()
    rnas = dict(zip(sequences, reader.read(list(sequences.values())), strict=True))
    keys: dict[str, str] = {}
    if cache is not None:
        weights = weights or weights_hash(encoder)
        for rna_id, rna in rnas.items():
            keys[rna_id] = feature_key(weights, rna)
            rna.features = cache.get(keys[rna_id])
    sizes = {rna_id: sum(map(len, rna.windows)) for rna_id, rna in rnas.items() if rna.features is None}
    missing = sorted(sizes, key=lambda rna_id: (sizes[rna_id], rna_id))
    while missing:
        batch = [missing.pop()]
        size = sizes[batch[0]]
        while missing and size + sizes[missing[-1]] <= batch_tokens:
            size += sizes[missing[-1]]
            batch.append(missing.pop())
        inputs = encoder_inputs([[rnas[rna_id] for rna_id in batch]], reader.tokenizer.pad_token_id)
        tensors = {name: tensor[0].to(encoder.device) for name, tensor in inputs.items()}
        ids, mask, index = map(tensors.get, ("rna_input_ids", "rna_attention_mask", "rna_index"))
        pooled, slots = encode_and_pool(encoder, ids, mask, reader.drop_token_ids, reader.pool_size, index)
        for rna_id, features in zip(batch, pooled.split(slots.tolist()), strict=True):
            rnas[rna_id].features = features.to("cpu", torch.float32).clone()
            if cache is not None:
                cache.put(keys[rna_id], rnas[rna_id].features)
    return {rna_id: rna.features for rna_id, rna in rnas.items()}


class StoredFeatures(Mapping):
    """rna_id -> encoder output, read from a `FeatureCache` when it is asked for: memory holds one batch, not all RNAs.

    What the cache has given up for room is computed again. Arguments as of `encode_features`; RNAs that the cache
    lacks are encoded when it is made, in parts, each process its share.
    """

    def __init__(
        self, encoder: PreTrainedModel, reader: RnaReader, sequences: Mapping[str, str], cache: "FeatureCache"
    ):
        self.encoder, self.reader, self.sequences, self.cache = encoder, reader, sequences, cache
        self.weights = weights_hash(encoder)
        names, state = list(sequences), PartialState()
        for first in tqdm(range(0, len(names), PART), "encoding", disable=not state.is_local_main_process):
            with state.split_between_processes(names[first : first + PART]) as part:
                self._read(part)
        state.wait_for_everyone()

    def _read(self, names: list[str]) -> dict[str, torch.Tensor]:
        some = {name: self.sequences[name] for name in names}
        return encode_features(self.encoder, self.reader, some, self.cache, self.weights)

    def __getitem__(self, rna_id: str) -> torch.Tensor:
        return self._read([rna_id])[rna_id]

    def __iter__(self):
        return iter(self.sequences)

    def __len__(self) -> int:
        return len(self.sequences)


def weights_hash(encoder: PreTrainedModel) -> str:
    """sha256 of an encoder's architecture and of every weight, bit by bit; its name and place do not count."""
    config = {key: value for key, value in encoder.config.to_diff_dict().items() if key not in NOT_ARCHITECTURE}
    digest = hashlib.sha256(repr(sorted(config.items())).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def feature_key(weights: str, rna: RnaInput) -> str:
    """Address of an RNA's features: sha256 of all that they depend on.

    The RNA stands in it as the tokens of its windows, which is the normalised sequence as this encoder reads it.
    """
    digest = hashlib.sha256(f"{weights} {torch.float32} {rna.pool_size}".encode())
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

    def __init__(self, folder: Path | str, max_bytes: int = 100_000_000_000):
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
            tensor = load(path.read_bytes())["features"]
            os.utime(path)  # used now
            return tensor
        except FileNotFoundError:
            pass
        except (SafetensorError, KeyError):
            path.unlink(missing_ok=True)
        return None

    def put(self, key: str, tensor: torch.Tensor) -> None:
        """Keep a tensor; one larger than the whole cache is not kept."""
        content = save({"features": tensor.contiguous()})
        if len(content) > self.max_bytes:
            return
        self._make_room(len(content))
        with new_file(self.path(key), "wb", sync=False) as file:  # a torn file counts as none
            file.write(content)

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
            unfinished = path.suffix == ".tmp"
            left_over = unfinished and time.time() - stat.st_mtime > 3600  # of a process that was killed
            if left_over or (size + wanted > 0.9 * self.max_bytes and not unfinished):
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
