"""Packs a finished `rnagpt quickstart --recipes demo` run as the demo that ships inside the package.

    python -m scripts.package_demo runs/demo

Reads the last stage in RUN_DIR (parts), all stages' curves and RUN_DIR/evaluation/items.jsonl; writes
rnagpt/assets/demo: the parts, the learning curve and, as items.jsonl.gz, the recorded answers to the held-out
questions of the demo (with the true and with another type's RNA) and of its untuned LLM reading the letters, so that
every quick start can set itself beside them without running either again.
"""

import argparse
import gzip
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from rnagpt.checkpoints.forms import assets
from rnagpt_core.errors import UserError, explained
from rnagpt_core.files import new_folder

RECORDED = {"stage2": "demo", "stage2_swapped": "demo_swapped", "llm_text": "llm_text"}
LIMIT = 12_000_000  # bytes of encoder, projector and adapter together


def pack(run_dir: Path, assets: Path) -> Path:
    """Copy the parts and the recorded answers; the demo is there complete or not at all."""
    from rnagpt.evaluation.asking.items import read_items, to_line
    from rnagpt.training.curves import joined_curve

    if not (run_dir / "report.html").is_file():
        raise UserError(f"{run_dir} holds no finished run: rnagpt quickstart --recipes demo --output {run_dir}")
    items = read_items(run_dir / "evaluation" / "items.jsonl")
    recorded = [replace(item, system=RECORDED[item.system]) for item in items if item.system in RECORDED]
    with new_folder(assets / "demo") as part:
        stages = sorted(run_dir.glob("stage?"))
        shutil.copytree(stages[-1], part, dirs_exist_ok=True)
        (part / "curve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in joined_curve(stages)))
        # mtime=0 and no name: the same answers give the same bytes.
        with open(part / "items.jsonl.gz", "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
            file.write("".join(map(to_line, recorded)).encode())
        shipped = [*(assets / "encoder").glob("*.safetensors"), *part.glob("*.safetensors")]
        size = sum(path.stat().st_size for path in shipped)
        if size > LIMIT:
            raise UserError(f"encoder, projector and adapter take {size:,} bytes; at most {LIMIT:,} may ship")
    print(f"wrote {assets / 'demo'}: {size:,} bytes with the encoder, {len(recorded)} recorded answers")
    return assets / "demo"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run_dir", type=Path, help="folder of the finished run, e.g. runs/demo")
    args = parser.parse_args(argv)

    def work() -> int:
        pack(args.run_dir, assets())
        return 0

    return explained(work)


if __name__ == "__main__":
    sys.exit(main())
