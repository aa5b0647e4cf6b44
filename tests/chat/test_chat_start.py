"""What `rnagpt chat` imports before its first answer, and the merged demo that it keeps.

pytest -m slow tests/chat/test_chat_start.py
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_chat import LET7, TYPE, user_turn

from rnagpt.checkpoints import checkpoint, kept_demo

ROOT = Path(__file__).parents[2]
IMPORTS = """
import sys
from rnagpt.checkpoints.opening import import_classes
import_classes()
print(sorted({"torch._dynamo", "bitsandbytes", "peft", "scipy", "sklearn", "datasets"} & set(sys.modules)), end=" ")
import scipy.optimize, torch._dynamo
from transformers import masking_utils
with masking_utils.TransformGetItemToIndex() as real:  # the stand-in hands over the real one
    print(type(real).__module__, torch._dynamo.disable.__module__)
"""


def test_the_classes_come_without_a_compiler_and_leave_it_usable():
    done = subprocess.run([sys.executable, "-c", IMPORTS], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[] torch._dynamo._trace_wrapped_higher_order_op torch._dynamo.decorators\n", done.stderr


@pytest.mark.slow
def test_the_kept_demo_is_the_merged_one_bit_for_bit(monkeypatch, tmp_path):
    """Made on first use, read the second time, made again where it is damaged."""
    monkeypatch.setattr(kept_demo, "kept_folder", lambda: tmp_path / "kept")
    merged, processor = checkpoint.load(kept_demo.DEMO)
    batch = processor([user_turn(TYPE, LET7)])
    with torch.inference_mode():
        wanted = merged(**batch).logits
        for damaged in (False, False, True):
            if damaged:
                (tmp_path / "kept" / kept_demo.WEIGHTS).write_bytes(b"half")
            model, processor = kept_demo.load_demo()
            assert torch.equal(model(**processor([user_turn(TYPE, LET7)])).logits, wanted)
    torch.testing.assert_close(model.state_dict(), merged.state_dict(), rtol=0, atol=0)


@pytest.mark.slow
def test_the_demos_first_answer_imports_no_compiler():
    kept_demo.load_demo()
    command = ["-X", "importtime", "-m", "rnagpt", "chat", "--demo", "--rna", LET7.sequence, "--question", TYPE]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("rna1\tThis RNA is a ")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    assert "torch" in imported and not {"torch._dynamo", "torch._inductor", "bitsandbytes", "peft"} & imported
