"""Encoder outputs for training: exact, in any batching and for any length; and the cache of them on disk."""

import copy
import multiprocessing
import random

import pytest
import torch

from rnagpt.checkpoints.features import (
    FeatureCache,
    StoredFeatures,
    encode_features,
    feature_key,
    weights_hash,
)

RNAS = {
    "a": "ACGUACGUACGGGUUUAC",
    "b": "GGCUAGCUCAAUCGGUAGAGC",
    "c": "ACG",
    "long": "ACGUUGCA" * 40,
    "same": "acgt-acgu ACGG GUUUAC",
}


def features_of(tiny_model, sequences=RNAS, **kwargs):
    model, processor = tiny_model
    return encode_features(model.model.rna_encoder, processor.rna_reader, sequences, **kwargs)


@torch.no_grad()
@pytest.mark.parametrize("pool_size", [1, 5])
@pytest.mark.parametrize("batch_tokens", [1, 100, 10_000])
def test_features_equal_the_models_own(tiny_model, pool_size, batch_tokens):
    model, processor = copy.deepcopy(tiny_model[0]), copy.deepcopy(tiny_model[1])
    model.config.rna_pool_size = processor.rna_pool_size = pool_size
    got = features_of((model, processor), batch_tokens=batch_tokens)
    assert list(got) == list(RNAS)
    for rna_id, rna in RNAS.items():
        inputs = processor.rna_batch([[processor.rna_input(rna)]])
        assert (got[rna_id] - model.model.encode_rna(**inputs)[0]).abs().max() < 1e-5


def test_the_same_rna_written_otherwise_has_the_same_features(tiny_model):
    features = features_of(tiny_model)
    assert torch.allclose(features["same"], features["a"], atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("policy, slots", [("windows", 320), ("truncate", 120)])
def test_long_rnas_are_read_as_the_processor_reads_them(tiny_model, policy, slots):
    model, processor = tiny_model[0], copy.deepcopy(tiny_model[1])
    processor.long_rna = policy
    got = features_of((model, processor), {"long": RNAS["long"]})["long"]
    inputs = processor.rna_batch([[processor.rna_input(RNAS["long"])]])
    assert len(got) == slots and (got - model.model.encode_rna(**inputs)[0]).abs().max() < 1e-5


def test_what_was_computed_once_is_read_from_disk(tiny_model, tmp_path):
    cache = FeatureCache(tmp_path / "cache")
    first = features_of(tiny_model, cache=cache)
    # four files: "a" and "same" are one RNA
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 4

    model = copy.deepcopy(tiny_model[0])
    model.model.rna_encoder.forward = None  # it cannot run
    again = features_of((model, tiny_model[1]), cache=FeatureCache(tmp_path / "cache"))
    assert all(torch.equal(first[rna_id], again[rna_id]) for rna_id in ("a", "b", "c", "long"))
    with pytest.raises(TypeError):
        features_of((model, tiny_model[1]), {"new": "GGGG"}, cache=cache)


def test_other_weights_pools_and_windows_have_other_addresses(tiny_model, tmp_path):
    model, processor = tiny_model
    encoder = model.model.rna_encoder
    changed = copy.deepcopy(encoder)
    with torch.no_grad():
        changed.encoder.layer[0].attention.self.query.weight[0, 0].add_(1e-6)
    eps = copy.deepcopy(encoder)
    eps.config.layer_norm_eps = 1e-12
    reader, halved, pooled = processor.rna_reader, copy.deepcopy(processor), copy.deepcopy(processor)
    halved.rna_window_overlap, pooled.rna_pool_size = 0.5, 2
    rna, weights = processor.rna_input(RNAS["long"]), weights_hash(encoder)
    others = [
        (weights_hash(changed), rna),
        (weights_hash(eps), rna),
        (weights_hash(copy.deepcopy(encoder).half()), rna),
        (weights, pooled.rna_input(RNAS["long"])),
        (weights, halved.rna_input(RNAS["long"])),
        (weights, reader.read([RNAS["long"][:-1] + "G"])[0]),
    ]
    keys = [feature_key(*parts) for parts in ((weights, rna), *others)]
    assert len(set(keys)) == len(keys)
    assert feature_key(weights_hash(copy.deepcopy(encoder)), rna) == keys[0]


def key_of(number: int) -> str:
    return f"{number * 2654435761 % 2**32:08x}" * 8


def test_the_cache_is_bounded_and_forgets_the_least_recently_used(tmp_path):
    cache = FeatureCache(tmp_path, max_bytes=25_000)
    for number in range(80):  # 1,000 bytes and a header each
        cache.put(key_of(number), torch.full((250,), float(number)))
        assert cache.get(key_of(0)) is not None  # in use all the time
        assert cache.size() <= 25_000
    kept = [number for number in range(80) if cache.get(key_of(number)) is not None]
    assert kept[0] == 0 and kept[1:] == list(range(80 - len(kept) + 1, 80))
    assert len(kept) > 15
    cache.put("f" * 64, torch.zeros(20_000))
    assert cache.get("f" * 64) is None and cache.get(key_of(79)) is not None


def test_a_damaged_file_is_a_miss(tiny_model, tmp_path):
    cache = FeatureCache(tmp_path)
    first = features_of(tiny_model, cache=cache)
    for path in tmp_path.rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-5])
    assert all(torch.equal(first[rna_id], other) for rna_id, other in features_of(tiny_model, cache=cache).items())
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_limit_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one byte"):
        FeatureCache(tmp_path, max_bytes=0)


def read_and_write(folder: str, seed: int) -> int:
    """Reads and writes 100 times; returns how many reads gave something else than what belongs there."""
    cache, wrong, draw = FeatureCache(folder, max_bytes=20_000), 0, random.Random(seed)
    for _ in range(100):
        number = draw.randrange(40)
        found = cache.get(key_of(number))
        if found is None:
            cache.put(key_of(number), torch.full((250,), float(number)))
        else:
            wrong += not torch.equal(found, torch.full((250,), float(number)))
    return wrong


def test_several_processes_share_a_cache_that_is_always_full(tmp_path):
    """40 tensors of 1 kB in 20 kB: each process removes what the others read."""
    with multiprocessing.get_context("fork").Pool(4) as pool:
        wrong = pool.starmap(read_and_write, [(str(tmp_path), seed) for seed in range(4)])
    assert wrong == [0, 0, 0, 0]
    assert FeatureCache(tmp_path).size() <= 20_000 * (1 + 4 / 50)
    assert not list(tmp_path.rglob("*.tmp"))


def stored_features(tiny_model, cache):
    model, processor = tiny_model
    return StoredFeatures(model.model.rna_encoder, processor.rna_reader, RNAS, cache)


def test_stored_features_are_those_in_memory_also_when_the_folder_is_too_small(tiny_model, tmp_path):
    expected = features_of(tiny_model)
    roomy = stored_features(tiny_model, FeatureCache(tmp_path / "roomy"))
    small = stored_features(tiny_model, FeatureCache(tmp_path / "small", max_bytes=6000))
    kept = [len(list((tmp_path / name).rglob("*.safetensors"))) for name in ("small", "roomy")]
    assert kept[0] < kept[1] == 4
    for stored in (roomy, small):
        assert list(stored) == list(RNAS) and len(stored) == len(RNAS)
        for name in RNAS:
            assert (stored[name] - expected[name]).abs().max() < 1e-5


def test_stored_features_are_not_computed_again(tiny_model, tmp_path):
    model, processor = copy.deepcopy(tiny_model[0]), tiny_model[1]
    stored_features((model, processor), FeatureCache(tmp_path))
    model.model.rna_encoder.forward = None  # it cannot run
    again = stored_features((model, processor), FeatureCache(tmp_path))
    assert len(again["long"]) == 320


def test_the_encoders_weights_are_read_once_however_many_rnas_there_are(tiny_model, tmp_path, monkeypatch):
    from rnagpt.checkpoints import features

    read = []
    monkeypatch.setattr(features, "PART", 2)
    monkeypatch.setattr(features, "weights_hash", lambda encoder: read.append(encoder) or weights_hash(encoder))
    stored = stored_features(tiny_model, FeatureCache(tmp_path, max_bytes=6000))
    assert [len(stored[name]) for name in RNAS] == [18, 21, 3, 320, 18] and len(read) == 1
