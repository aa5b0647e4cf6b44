"""Joins an RNA encoder and a language model by a fresh projector: one untrained checkpoint that holds all.

    rnagpt build-checkpoint --encoder rna-fm --llm meta-llama/Meta-Llama-3-8B-Instruct --out checkpoints/llama3-rnafm
    rnagpt build-checkpoint --encoder RNA-FM_pretrained.pth --out checkpoints/rna-fm

Reads  the encoder: rna-fm (the official weights, fetched by the package rna-fm), a local RNA-FM_pretrained.pth, a
       multimolecule folder or id, any folder or Hub id that AutoModel loads, packaged (the small one that ships), or
       config:PATH (random weights by a config.json, for tests; config:rna-fm for RNA-FM's own);
       the language model: a folder, a Hub id, a .gguf file, smollm2-135m-instruct, or config:FOLDER (config.json with
       random weights, beside its tokenizer).
Writes a folder with config.json, sharded safetensors, the processor, the code and a model card, which AutoModel,
       AutoProcessor and pipeline load anywhere. Without --llm: the encoder alone, as an EsmModel with its tokenizer.
"""

import argparse
import re
import shutil
import sys
import tempfile
from pathlib import Path

from rnagpt_core.errors import UserError

DTYPES = ("auto", "float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--encoder", required=True, help="rna-fm, a .pth file, a folder, a Hub id (see above)")
    parser.add_argument("--llm", help="a folder, a Hub id, a .gguf file (see above)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; it must not exist")
    parser.add_argument("--pool-size", type=int, default=1, help="encoder positions per soft token (default: 1)")
    parser.add_argument(
        "--projector-hidden-size",
        type=int,
        metavar="N",
        help="width of a hidden layer in the projector (default: none, it is linear)",
    )
    parser.add_argument("--template", default="llm", help="chat template: llm (its own), chatml or paper")
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="of the language model (default: as stored)")
    parser.add_argument("--max-shard-size", default="5GB", help="of one weights file (default: 5GB)")
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run the Python code that the encoder brings (default: refuse)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (default: 0)")


def run(args: argparse.Namespace) -> int:
    check(args)

    import torch

    from rnagpt.checkpoints import checkpoint

    torch.manual_seed(args.seed)
    if args.llm is None:
        encoder, rna_tokenizer = checkpoint.load_encoder(args.encoder, args.trust_remote_code)
        report({"encoder": encoder})
        check_space(args.out, [encoder])
        with checkpoint.replacing(args.out) as part:
            encoder.save_pretrained(part, max_shard_size=args.max_shard_size)
            rna_tokenizer.save_pretrained(part)
    else:
        further = {
            "projector_hidden_size": args.projector_hidden_size,
            "trust_remote_code": args.trust_remote_code,
        }
        model, processor = checkpoint.build(
            args.llm, args.encoder, args.pool_size, args.template, args.dtype, args.seed, **further
        )
        parts = checkpoint.parts_of(model)
        report(parts)
        check_space(args.out, parts.values())
        card = checkpoint.card(model, processor, args.llm, args.encoder, trained=False)
        checkpoint.save(model, processor, args.out, card, args.max_shard_size)
    print(f"wrote {args.out}")
    return 0


def check(args: argparse.Namespace) -> None:
    """Refuse, before anything loads, arguments that cannot be and a place that cannot be written to."""
    out = args.out
    if out.exists():
        raise UserError(f"{out} exists already: remove it, or give another --out")
    for name in ("pool_size", "projector_hidden_size"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    check_shard_size(args.max_shard_size)
    above = folder_above(out)
    if not above.is_dir():
        raise UserError(f"{above} is a file, so --out {out} cannot be made in it: give another --out")
    try:
        with tempfile.TemporaryDirectory(dir=above, prefix=".rnagpt-"):
            pass
    except OSError as error:
        raise UserError(f"--out {out} cannot be written ({error.strerror}): give another --out") from None


def check_shard_size(given: str) -> None:
    """UserError for a --max-shard-size that is none."""
    if not re.fullmatch(r"[1-9]\d*(KB|MB|GB)", given):
        raise UserError(f"--max-shard-size is a size such as 5GB or 500MB, got {given}")


def folder_above(out: Path) -> Path:
    """The nearest place above that exists."""
    return next(parent for parent in out.absolute().parents if parent.exists())


def report(parts: dict) -> None:
    """Print parameters and memory of each part and of all."""
    rows = []
    for name, module in parts.items():
        kinds = {str(weight.dtype).removeprefix("torch.") for weight in module.parameters()}
        count = sum(weight.numel() for weight in module.parameters())
        rows.append((name, count, size(module), ", ".join(sorted(kinds))))
    if len(rows) > 1:
        rows.append(("all", sum(row[1] for row in rows), sum(row[2] for row in rows), ""))
    for name, count, taken, kinds in rows:
        print(f"{name:<10} {count:>15,} parameters {taken / 1e9:>8.2f} GB  {kinds}".rstrip())
    if getattr(parts["encoder"].config, "token_dropout", False):
        print("token_dropout is set in the encoder's arguments, and kept: its embeddings are scaled by 0.88")
    sys.stdout.flush()


def size(module) -> int:
    """Bytes of a module's parameters."""
    return sum(weight.nbytes for weight in module.parameters())


def check_space(out: Path, modules) -> None:
    """Refuse to begin to write what the disk cannot hold."""
    needed, folder = sum(map(size, modules)), folder_above(out)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"the checkpoint takes {needed / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB free: free some, or "
            "give another --out"
        )
