"""Write the language model as a plain checkpoint for vLLM, and beside it a client that turns RNAs into embeddings.

    rnagpt export-llm runs/mine/checkpoint --out export --dtype bfloat16
    vllm serve export/llm --host 127.0.0.1 --port 8000 --enable-prompt-embeds        where the GPU is
    python export/client/client.py --rna GCGGAUUUAGC... --question "What type of RNA is this?"

reads   a checkpoint (a folder written by RNA-GPT's training, or a Hub id); an adapter is merged
writes  OUT/llm: the language model and its tokenizer, which AutoModelForCausalLM and vLLM load without our code
        OUT/client: encoder, projector, embedding table, processor and client.py; it needs torch and transformers

Before anything is written a probe is answered both ways, and the largest difference between the logits is told.
"""

import argparse
import copy
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rnagpt.checkpoints.opening import add_checkpoint, chosen_checkpoint, load
from rnagpt_core.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DTYPES = ("auto", "float32", "bfloat16", "float16")
PROBE = [
    {
        "role": "user",
        "content": [
            {"type": "rna", "rna": "GCGGAUUUAGCUCAGUUGGGAGAGC"},
            {"type": "text", "text": "What type of RNA is this?"},
        ],
    }
]
TOLERANCE = 1e-4  # of the largest logit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; it must not exist")
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="of the language model (default: as stored)")
    parser.add_argument("--max-shard-size", default="5GB", help="of one weights file (default: 5GB)")


def run(args: argparse.Namespace) -> int:
    """Load the checkpoint, take it apart, compare, write."""
    from rnagpt.checkpoints.build_checkpoint import check_shard_size, check_space

    checkpoint = chosen_checkpoint(args)
    if args.out.exists():
        raise UserError(f"{args.out} exists already: remove it, or give another --out")
    check_shard_size(args.max_shard_size)
    print(f"loading {args.checkpoint or 'the demo'} ...", file=sys.stderr, flush=True)
    model, processor = load(checkpoint, "auto", args.trust_remote_code)
    if getattr(model, "is_quantized", False):
        raise UserError("the checkpoint's language model is held in 4 or 8 bits: export one that was merged in bf16")

    import torch

    from rnagpt.checkpoints.checkpoint import replacing

    if args.dtype != "auto":
        # encoder and projector stay in fp32, as everywhere
        for part in (model.model.language_model, model.lm_head):
            part.to(getattr(torch, args.dtype))
        model.config.text_config.dtype = getattr(torch, args.dtype)
    llm, client = plain_llm(model), client_model(model)
    difference = compare(model, processor, llm, client)
    check_space(args.out, [llm, client])
    with replacing(args.out) as part:
        save_llm(llm, part / "llm", args.max_shard_size)
        save_tokenizer(processor, part / "llm")
        client.save_pretrained(part / "client", max_shard_size=args.max_shard_size)
        processor.save_pretrained(part / "client")
        write_client(model, processor, part / "client")
    kind = str(llm.dtype).removeprefix("torch.")
    print(f"largest difference between the two ways' logits on a probe: {difference:.2g}", file=sys.stderr)
    print(f"wrote {args.out}/llm ({type(llm).__name__}, {kind}) and {args.out}/client")
    return 0


def plain_llm(model) -> "PreTrainedModel":
    """The LLM of an `RnaGptForCausalLM` as the class its family has in transformers; the weights are shared."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        llm = AutoModelForCausalLM.from_config(model.config.text_config)
    setattr(llm, llm.base_model_prefix, model.model.language_model)
    llm.set_output_embeddings(model.lm_head)
    llm.generation_config = model.generation_config
    llm.config.name_or_path = ""
    return llm.eval()


def client_model(model) -> "PreTrainedModel":
    """Encoder, projector and embedding table: an `RnaGptModel` whose LLM has no layers; the weights are shared."""
    import torch

    from modeling_rnagpt import RnaGptModel
    from modeling_rnagpt.modeling_rnagpt import build_body

    config = copy.deepcopy(model.config)
    config.text_config.num_hidden_layers = 0
    if getattr(config.text_config, "layer_types", None):
        config.text_config.layer_types = []
    config.text_config.name_or_path = config.name_or_path = ""
    with torch.device("meta"):
        client = RnaGptModel(config)
    body, whole = build_body(config.text_config), model.model.language_model.state_dict()
    # what stands outside the layers: the embedding table, and a norm that nobody uses
    body.load_state_dict({name: whole[name] for name in body.state_dict()}, assign=True)
    client.rna_encoder, client.projector, client.language_model = model.model.rna_encoder, model.model.projector, body
    return client.eval()


def compare(model, processor, llm, client) -> float:
    """Largest difference between RNA-GPT's logits and those of the LLM on the client's embeddings.

    Raises:
        UserError: they differ: the family treats logits in a way that RNA-GPT does not.
    """
    import torch

    with torch.inference_mode():
        batch = processor(PROBE)
        wanted = model(**batch).logits.float()
        embeds = client.embed(**{name: batch[name] for name in batch if name != "attention_mask"})
        found = llm(inputs_embeds=embeds).logits.float()
        difference = float((wanted - found).abs().max())
    if not difference <= TOLERANCE * float(wanted.abs().max()):
        raise UserError(
            f"the logits of {type(llm).__name__} differ from RNA-GPT's by {difference:.2g}: this family of language "
            "models does something with them that RNA-GPT does not, so a server would answer otherwise"
        )
    return difference


def save_llm(llm, folder: Path, max_shard_size: str) -> None:
    """The LLM, its rotary settings also by the names of transformers 4, which would silently take defaults."""
    llm.save_pretrained(folder, max_shard_size=max_shard_size)
    with rewriting(folder / "config.json") as stored:
        rope = dict(stored.get("rope_parameters") or {})
        theta = rope.pop("rope_theta", None)
        if theta is not None:
            stored["rope_theta"] = theta
            if rope.get("rope_type", "default") != "default":
                stored["rope_scaling"] = rope


def save_tokenizer(processor, folder: Path) -> None:
    """The LLM's tokenizer without `<RNAHere>`, whose id may lie beyond the embedding table, where a server crashes."""
    from processing_rnagpt.processing_rnagpt import RNA_TOKEN

    tokenizer = processor.tokenizer
    templates = processor.chat_template
    own = tokenizer.chat_template
    try:
        tokenizer.chat_template = templates["default"] if isinstance(templates, dict) else templates
        tokenizer.save_pretrained(folder)
    finally:
        tokenizer.chat_template = own
    with rewriting(folder / "tokenizer.json") as stored:
        stored["added_tokens"] = [token for token in stored["added_tokens"] if token["content"] != RNA_TOKEN]
    with rewriting(folder / "tokenizer_config.json") as stored:
        for name in ("auto_map", "processor_class", "is_local", "local_files_only"):
            stored.pop(name, None)
        # by the names of transformers 4, which transformers 5 reads as well
        others = [token for token in stored.pop("extra_special_tokens", []) if token != RNA_TOKEN]
        if others:
            stored["additional_special_tokens"] = others
        if stored.get("tokenizer_class") == "TokenizersBackend":
            stored["tokenizer_class"] = "PreTrainedTokenizerFast"


def write_client(model, processor, folder: Path) -> None:
    """client.py, and what its requests say of this model."""
    from rnagpt.serving import llm_client
    from rnagpt.serving.decoding import stop_token_ids

    settings: dict = {"stop_token_ids": stop_token_ids(model, processor.tokenizer)}
    if processor.rna_token_id < model.config.text_config.vocab_size:
        settings["logit_bias"] = {str(processor.rna_token_id): -100}  # it would stand for an RNA that is not there
    (folder / llm_client.SETTINGS).write_text(json.dumps(settings) + "\n", encoding="utf-8")
    shutil.copyfile(llm_client.__file__, folder / "client.py")


@contextmanager
def rewriting(path: Path) -> Iterator[dict]:
    """A JSON file's content, written back as it is changed."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    yield stored
    path.write_text(json.dumps(stored, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
