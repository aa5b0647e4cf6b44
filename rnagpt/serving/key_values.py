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
        layers: per layer keys and values, each (rows, heads, columns, head size); empty where nothing is held yet.
        mask: (rows, columns) bool, True where a row has a token.
    """

    layers: Layers
    mask: torch.Tensor

    @classmethod
    def of(cls, cache: DynamicCache, mask: torch.Tensor) -> "KeyValues":
        """What `cache` holds after a forward pass."""
        return cls([(layer.keys, layer.values) for layer in cache.layers], mask)

    def cache(self) -> DynamicCache:
        """The form in which transformers' models take and grow it."""
        cache = DynamicCache()
        for i, (keys, values) in enumerate(self.layers):
            cache.update(keys, values, i)
        return cache

    def row(self, i: int, length: int | None = None) -> Layers:
        """A copy of row i without gaps, (1, heads, length, head size), its first `length` tokens."""
        columns = self.mask[i].nonzero()[:length, 0]
        return [(keys[i : i + 1, :, columns], values[i : i + 1, :, columns]) for keys, values in self.layers]

    def keep(self, rows: list[int]) -> "KeyValues":
        """These rows only, without the columns in which none of them has a token."""
        mask = self.mask[rows]
        columns = mask.any(dim=0).nonzero()[:, 0]
        return KeyValues(
            [(keys[rows][:, :, columns], values[rows][:, :, columns]) for keys, values in self.layers],
            mask[:, columns],
        )


def stacked(parts: list[KeyValues]) -> KeyValues:
    """The rows of all parts, padded on the left to the same number of columns."""
    width = max(part.mask.shape[1] for part in parts)
    gaps = [width - part.mask.shape[1] for part in parts]
    like = next((part.layers for part in parts if part.layers), [])
    layers = []
    for i, (first_keys, _) in enumerate(like):
        pairs = []
        for part, gap in zip(parts, gaps, strict=True):
            shape = (part.mask.shape[0], first_keys.shape[1], 0, first_keys.shape[3])
            nothing = first_keys.new_zeros(shape)
            keys, values = part.layers[i] if part.layers else (nothing, nothing)
            pairs.append((pad(keys, (0, 0, gap, 0)), pad(values, (0, 0, gap, 0))))
        layers.append(tuple(torch.cat(tensors) for tensors in zip(*pairs, strict=True)))
    return KeyValues(layers, torch.cat([pad(part.mask, (gap, 0)) for part, gap in zip(parts, gaps, strict=True)]))


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
