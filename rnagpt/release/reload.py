"""Loads a released model where this package cannot be imported, and says what it answers.

    python -I rnagpt/release/reload.py FOLDER QUESTION.json OUT.safetensors

Run as a script by `rnagpt.release.model`: what a stranger has who installed transformers alone. It refuses to import
RNA-GPT's packages, even where they are installed. OUT holds the logits; its metadata the answer.
"""

import json
import sys
from typing import Any

PACKAGES = ("rnagpt", "rnagpt_core", "modeling_rnagpt", "processing_rnagpt", "dataset_builder", "train_sft")


def main(folder: str, question: str, out: str) -> None:
    unknown: dict[str, Any] = dict.fromkeys(PACKAGES)
    sys.modules.update(unknown)  # importing what stands as None there fails
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoProcessor

    question_and_tokens = json.loads(open(question, encoding="utf-8").read())
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype="auto").eval()
    batch = processor(question_and_tokens["messages"])
    with torch.no_grad():
        logits = model(**batch).logits.float()
        ids = model.generate(**batch, max_new_tokens=question_and_tokens["tokens"], do_sample=False)
    answer = processor.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)[0]
    save_file({"logits": logits.contiguous()}, out, metadata={"answer": answer})


if __name__ == "__main__":
    main(*sys.argv[1:])
