"""What a folder that is released may hold, and what `rnagpt release` says of one that is damaged or holds more.

pytest tests/release/test_release_contents.py
"""

import json
import os
import platform
import shutil
import subprocess
import sys

import pytest
from test_release_model import NAMES, api, hub, release  # noqa: F401  (api and hub are fixtures)

from rnagpt.cli import main
from rnagpt.release import contents
from rnagpt_core.errors import UserError


def test_what_a_folder_may_not_hold(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    token = "hf_" + "a" * 34
    wrong = {
        "notes.txt": (b"", "a stray file"),
        "optimizer.pt": (b"", "pickle"),
        "model.safetensors": (b"\x80\x04\x95rest", "pickle"),
        "config.json": (f'{{"token": "{token}"}}'.encode(), "Hugging Face token"),
        "README.md": (b"see /%s/somebody/weights" % b"home", "a folder of this machine"),
        "tokenizer.json": (b"x" * (1 << 22) + b"-----BEGIN RSA PRIVATE KEY-----", "private key"),
        "generation_config.json": (b'{"url": "https://user:secret@example.org"}', "password"),
        "sub/config.json": (b"{}", "a stray file"),
        "adapter_config.json": (b'{"base": "/gpfs/lab/base"}', "its base is a path of this machine (/gpfs/lab/base)"),
        "tokenizer_config.json": (rb'{"a": [{"name_or_path": "D:\\lab\\llm"}]}', "its name_or_path is a path"),
        "processor_config.json": (b'{"a": "../weights/llm"}', "its a is a path"),
        "special_tokens_map.json": (b"{", "no JSON"),
    }
    for name, (content, _) in wrong.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "LICENSE").symlink_to(tmp_path)
    for name, (_, reason) in wrong.items():
        assert reason in contents.objection(folder / name, folder, contents.MODEL_FILES), name
    assert "link" in contents.objection(folder / "LICENSE", folder, contents.MODEL_FILES)
    with pytest.raises(UserError) as caught:
        contents.check_contents(folder, contents.MODEL_FILES)
    assert token not in str(caught.value) and "and 5 more" in str(caught.value)


def test_words_of_a_vocabulary_are_no_paths(tmp_path):
    (tmp_path / "vocab.json").write_text('{"a": "/usr/bin"}')
    (tmp_path / "config.json").write_text('{"a": "</s>", "b": "/", "c": "owner/name", "d": ".*q_proj|k/x"}')
    assert len(contents.check_contents(tmp_path, contents.MODEL_FILES)) == 2


@pytest.mark.parametrize("form", ["whole", "projector"])
def test_no_path_of_a_private_encoder_goes_up(hub, api, tiny_parts, tmp_path, capsys, form):  # noqa: F811
    """Built from folders of this machine, with a configuration that names others: blanked, or refused."""
    built, out = tmp_path / "built", tmp_path / "out"
    llm, encoder = (str(tiny_parts / part) for part in ("llm", "encoder"))
    assert main(["build-checkpoint", "--llm", llm, "--encoder", encoder, "--out", str(built)]) == 0
    config = json.loads((built / "config.json").read_text())
    config["rna_config"]["_name_or_path"] = config["text_config"]["_name_or_path"] = "/gpfs/lab/private"
    (built / "config.json").write_text(json.dumps(config))
    given = ["--llm", llm, "--encoder", encoder, "--repo", "owner/built", "--dry-run", "--form", form]
    if form == "projector":
        for part, path in (("llm", llm), ("encoder", encoder)):
            api.create_repo(f"owner/{part}")
            api.upload_folder(repo_id=f"owner/{part}", folder_path=path)
        given[1], given[3] = "owner/nothing", "owner/encoder"
        assert release(built, *given, "--out", out) == 2
        assert "--llm owner/nothing is not on the Hub" in capsys.readouterr().err
        given[1] = "owner/llm@v9"
        assert release(built, *given, "--out", out) == 2
        assert "--llm owner/llm has no revision v9" in capsys.readouterr().err and not out.exists()
        given[1] = "owner/llm"
        api.update_repo_settings("owner/llm", private=True)
    assert release(built, *given, "--out", out) == 0
    assert ("note: owner/llm is private" in capsys.readouterr().err) == (form == "projector")
    for path in out.rglob("*"):
        if path.is_file():
            assert str(tiny_parts).encode() not in path.read_bytes() and b"gpfs" not in path.read_bytes(), path
            # editing what was kept must not change the checkpoint
            assert path.suffix == ".safetensors" or path.stat().st_nlink == 1, path
    settings = json.loads((built / "tokenizer_config.json").read_text())
    (built / "tokenizer_config.json").write_text(json.dumps({**settings, "trained_on": "/gpfs/lab/corpus.txt"}))
    assert release(built, *given) == 2
    assert "its trained_on is a path of this machine (/gpfs/lab/corpus.txt)" in capsys.readouterr().err


def test_a_checkpoint_in_good_order_may_go_up(tiny_checkpoint):
    files = contents.check_contents(tiny_checkpoint, contents.MODEL_FILES)
    assert len(files) == sum(path.is_file() for path in tiny_checkpoint.rglob("*"))


def test_what_is_kept_does_not_lie_in_what_is_released(tiny_checkpoint, capsys):
    out = tiny_checkpoint / "sub" / "up"
    assert release(tiny_checkpoint, *NAMES, "--repo", "owner/name", "--dry-run", "--out", out) == 2
    assert "would then hold a stray folder" in capsys.readouterr().err and not out.parent.exists()


def test_a_stray_file_in_the_checkpoint_is_told(tiny_checkpoint, tmp_path, capsys):
    shutil.copytree(tiny_checkpoint, tmp_path / "own")
    (tmp_path / "own" / "optimizer.pt").write_bytes(b"")
    assert release(tmp_path / "own", *NAMES, "--repo", "owner/name", "--dry-run") == 2
    assert "optimizer.pt: a pickle" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


def damage(folder, name: str, content: bytes | None) -> None:
    (folder / name).write_bytes(content) if content is not None else (folder / name).unlink()


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 7\n"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("model.safetensors", LFS_POINTER, "is a git-lfs pointer, not the file: run `git lfs pull`"),
        ("model.safetensors", b"", "cannot be loaded (Error while deserializing header"),
        ("model.safetensors", b"\x10\0\0\0\0\0\0\0{}", "cannot be loaded (Error while deserializing header"),
        ("tokenizer.json", LFS_POINTER, "is a git-lfs pointer, not the file"),
        ("tokenizer.json", None, "a file of it is damaged or missing"),
    ],
)
def test_damaged_weights_are_one_sentence(tiny_checkpoint, tmp_path, capsys, name, content, says):
    """In every command that reads a checkpoint."""
    folder = tmp_path / "own"
    shutil.copytree(tiny_checkpoint, folder)
    damage(folder, name, content)
    assert release(folder, *NAMES, "--repo", "owner/name", "--dry-run") == 2
    assert main(["chat", str(folder), "--rna", "ACGU", "--question", "Type?"]) == 2
    first, second = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rnagpt: error")]
    assert says in first and says in second
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


def test_a_stage_without_its_weights_is_not_looked_for_on_the_hub(tmp_path, capsys, hub):  # noqa: F811
    (tmp_path / "stage2").mkdir()
    (tmp_path / "stage2" / "parts.json").write_text('{"build": {"llm": "a", "encoder": "b"}, "llm_fingerprint": null}')
    assert release(tmp_path / "stage2", "--repo", "owner/name", "--dry-run") == 2
    assert "holds parts.json but no weights" in capsys.readouterr().err and not hub.requests


def test_what_a_killed_release_left_is_removed(tiny_checkpoint, tmp_path):
    """By the next one beside the same checkpoint; another that runs is let alone."""
    shutil.copytree(tiny_checkpoint, tmp_path / "own")
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    for pid in (killed.pid, os.getpid()):
        (tmp_path / f".release-{platform.node()}-{pid}-abc" / "release").mkdir(parents=True)
    assert release(tmp_path / "own", *NAMES, "--repo", "owner/name", "--dry-run") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"own", f".release-{platform.node()}-{os.getpid()}-abc"}
