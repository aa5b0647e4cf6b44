"""What can be told of a checkpoint's folder before torch is imported."""

import json

import pytest

from rnagpt.checkpoints.forms import assets, checkpoint_form
from rnagpt_core.errors import UserError


def test_the_packaged_demo_is_a_folder_of_parts():
    assert checkpoint_form(assets() / "demo") == "parts"


def test_both_forms_and_hub_ids(tmp_path, monkeypatch):
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "config.json").write_text(json.dumps({"model_type": "rnagpt"}))
    with pytest.raises(UserError, match="no weights"):
        checkpoint_form(tmp_path / "whole")
    (tmp_path / "whole" / "model.safetensors.index.json").write_text("{}")
    assert checkpoint_form(tmp_path / "whole") == "whole"
    monkeypatch.chdir(tmp_path)
    assert checkpoint_form("owner/name") == "hub"
    (tmp_path / "runs").mkdir()
    with pytest.raises(UserError, match="no checkpoint at runs/name"):
        checkpoint_form("runs/name")


def test_a_run_is_told_from_the_checkpoint_inside_it(tmp_path):
    (tmp_path / "run" / "stage2").mkdir(parents=True)
    (tmp_path / "run" / "stage2" / "parts.json").write_text("{}")
    with pytest.raises(UserError, match="holds parts.json but no weights"):
        checkpoint_form(tmp_path / "run" / "stage2")
    (tmp_path / "run" / "stage2" / "projector.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="there is one inside: .*stage2"):
        checkpoint_form(tmp_path / "run")


@pytest.mark.parametrize("content", ["[]", "{", '{"model_type": "llama"}'])
def test_another_models_folder(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match="is no RNA-GPT checkpoint"):
        checkpoint_form(tmp_path)
