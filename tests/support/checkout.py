"""The checkout under test: its files, and what setup.cfg and constraints.txt ask for."""

import configparser
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PACKAGES = ("rnagpt_core", "modeling_rnagpt", "processing_rnagpt", "dataset_builder", "rnagpt")


def files() -> list[Path]:
    """The files of the checkout: committed, or new and not ignored."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout, so there is no telling its files from what runs left")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def extras() -> dict[str, list[Requirement]]:
    """Extra -> its lines in setup.cfg; "" -> the package's own. `rnagpt[train]` stands for another extra's lines."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    blocks = {"": setup["options"]["install_requires"], **setup["options.extras_require"]}
    return {
        extra: [Requirement(line) for line in block.split("\n") if line and not line.startswith("#")]
        for extra, block in blocks.items()
    }


def packages_of(*names: str) -> set[str]:
    """What extras bring (all of them when none is named), with what the extras bring that they name."""
    found = set()
    for requirement in (line for extra in names or extras() for line in extras()[extra]):
        if requirement.name == "rnagpt":
            found |= packages_of(*requirement.extras)
        else:
            found.add(canonicalize_name(requirement.name))
    return found


def pins() -> dict[str, str]:
    """Package name -> its one version in constraints.txt."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
