"""Keys and values of the LLM's attention: rows of a batch put together and taken apart, and those kept between turns.

A row may have gaps (padding) anywhere; its mask tells them, and positions are counted without them, so rows of any
length are decoded together.
"""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import pad
from transformers import DynamicCache

Layers = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass
class KeyValues:
    """Keys and values of several rows.

    Attributes:
        cache: the form in which transformers' models take and grow it, one for as long as the same rows are decoded;
            per layer keys and values, (rows, heads, columns, head size); no layers where nothing is held yet.
        mask: (rows, columns) bool, True where a row has a token.
    """

    cache: DynamicCache
    mask: torch.Tensor

    @classmethod
    def of(cls, layers: Layers, device: torch.device) -> "KeyValues":
        """One row without gaps."""
        return cls(cache_of(layers), torch.ones(1, layers[0][0].shape[2] if layers else 0, dtype=bool, device=device))

    @property
    def layers(self) -> Layers:
        return [(layer.keys, layer.values) for layer in self.cache.layers]

    def row(self, i: int) -> Layers:
        """A copy of row i without gaps, (1, heads, length, head size)."""
        columns = self.mask[i].nonzero()[:, 0]
        return [(keys[i : i + 1, :, columns], values[i : i + 1, :, columns]) for keys, values in self.layers]

    def keep(self, rows: list[int]) -> "KeyValues":
        """These rows only, without the columns in which none of them has a token."""
        mask = self.mask[rows]
        columns = mask.any(dim=0).nonzero()[:, 0]
        kept = [(keys[rows][:, :, columns], values[rows][:, :, columns]) for keys, values in self.layers]
        return KeyValues(cache_of(kept), mask[:, columns])


def cache_of(layers: Layers) -> DynamicCache:
    """A cache that holds these keys and values."""
    cache = DynamicCache()
    for i, (keys, values) in enumerate(layers):
        cache.update(keys, values, i)
    return cache


def stacked(parts: list[KeyValues]) -> KeyValues:
    """The rows of all parts, padded on the left to the same number of columns: the newest token of every row stands
    last, where the next one is appended."""
    if len(parts) == 1:
        return parts[0]
    width = max(part.mask.shape[1] for part in parts)
    gaps = [width - part.mask.shape[1] for part in parts]
    layers = []
    for i, like in enumerate(next((part.layers for part in parts if part.layers), [])):
        pairs = []
        for part, gap in zip(parts, gaps, strict=True):
            # a part that holds nothing yet has no layers: rows of gaps
            empty = [tensor.new_zeros(len(part.mask), tensor.shape[1], 0, tensor.shape[3]) for tensor in like]
            pairs.append([pad(tensor, (0, 0, gap, 0)) for tensor in (part.layers[i] if part.layers else empty)])
        layers.append(tuple(torch.cat(tensors) for tensors in zip(*pairs, strict=True)))
    masks = [pad(part.mask, (gap, 0)) for part, gap in zip(parts, gaps, strict=True)]
    return KeyValues(cache_of(layers), torch.cat(masks))


class PrefixCache:
    """Keys and values of prompts and answers gone by, so that the next turn computes only what is new.

    A prompt is known by its tokens, an RNA's placeholders replaced by numbers that stand for this very RNA. The ones
    used longest ago are dropped when the whole grows over `max_bytes`.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes, self.bytes = max_bytes, 0
        self.entries: OrderedDict[bytes, Layers] = OrderedDict()

    def longest(self, tokens: np.ndarray) -> tuple[int, Layers]:
        """Number of leading `tokens` (length,) int64 that are held, and their keys and values."""
        best, found = 0, None
        for name in self.entries:
            common = common_length(np.frombuffer(name, dtype=np.int64), tokens)
            if common > best:
                best, found = common, name
        if found is None:
            return 0, []
        self.entries.move_to_end(found)
        return best, [(keys[:, :, :best], values[:, :, :best]) for keys, values in self.entries[found]]

    def put(self, tokens: np.ndarray, layers: Layers) -> None:
        """Hold the keys and values of `tokens`; what they begin with need not be held on its own any more."""
        size = bytes_of(layers)
        if not layers or size > self.max_bytes:
            return
        name = tokens.astype(np.int64).tobytes()
        for held in [held for held in self.entries if name.startswith(held)]:
            self.bytes -= bytes_of(self.entries.pop(held))
        self.entries[name] = layers
        self.bytes += size
        while self.bytes > self.max_bytes:
            self.bytes -= bytes_of(self.entries.popitem(last=False)[1])


def common_length(one: np.ndarray, other: np.ndarray) -> int:
    """How many leading elements are equal.

    >>> common_length(np.array([1, 2, 3]), np.array([1, 2, 4, 5]))
    2
    """
    length = min(len(one), len(other))
    differing = np.flatnonzero(one[:length] != other[:length])
    return int(differing[0]) if len(differing) else length


def bytes_of(layers: Layers) -> int:
    """Memory that keys and values take."""
    return sum(tensor.numel() * tensor.element_size() for pair in layers for tensor in pair)
