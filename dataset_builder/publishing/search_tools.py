"""MMseqs2 and vsearch, for neighbours among more sequences than can all be compared (identity and coverage 0.8).

Both are programs of their own (Debian: mmseqs2, vsearch). What they find is settled by `rnagpt_core.nearest.edits`
only where few are compared; among many, what they report counts.
"""

import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from rnagpt_core.errors import UserError
from rnagpt_core.nearest import SHORT

KMER = 11  # of MMseqs2's index; its own choice for nucleotides, 15, fills 4^15 entries before the first sequence
MANY = 20_000  # RNAs above which vsearch searches only the queries that MMseqs2 does not see
MMSEQS = (
    "--search-type 3 --strand 1 --min-seq-id 0.8 -c 0.8 --cov-mode 2 -s 7.5 --spaced-kmer-mode 0 -e 10 -v 1 "
    "--format-output query,target"
)
VSEARCH = "--id 0.8 --query_cov 0.8 --strand plus --minseqlength 10 --wordlength 6 --qmask none --quiet"


def run(folder: Path, command: str) -> None:
    """A command with its files in `folder`.

    Raises:
        UserError: the program is not installed, or fails.
    """
    tool, *_ = command.split()
    try:
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError(f"{tool} is not installed; install the Debian packages mmseqs2 and vsearch") from None
    except subprocess.CalledProcessError as error:
        raise UserError(f"{tool} failed with code {error.returncode}: {error.stderr[-500:]}") from None


def write_fasta(path: Path, sequences: Iterable[tuple[int, str]]) -> None:
    with open(path, "w") as file:
        file.writelines(f">{number}\n{text.replace('U', 'T')}\n" for number, text in sequences)


def read_pairs(path: Path) -> list[tuple[int, int]]:
    """(query, target) of a table's first two columns."""
    rows = (line.split("\t") for line in path.read_text().splitlines())
    return [(int(query), int(target)) for query, target, *_ in rows]


def clustered_pairs(sequences: Sequence[str]) -> set[tuple[int, int]]:
    """(smaller, larger) index of each sequence and the representative of its MMseqs2 cluster, and of vsearch's for
    RNAs of 30 nt or less, which MMseqs2 does not see."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_fasta(work / "all.fa", enumerate(sequences))
        run(work, f"mmseqs easy-cluster all.fa clusters tmp --min-seq-id 0.8 -c 0.8 --cov-mode 1 -k {KMER} -v 1")
        pairs = read_pairs(work / "clusters_cluster.tsv")
        short = [i for i, text in enumerate(sequences) if len(text) <= SHORT]
        if len(short) > 1:
            write_fasta(work / "short.fa", ((i, sequences[i]) for i in short))
            run(work, f"vsearch --cluster_fast short.fa {VSEARCH} --uc short.uc")
            rows = (line.split("\t") for line in (work / "short.uc").read_text().splitlines())
            pairs += [(int(row[8]), int(row[9])) for row in rows if row[0] == "H"]
    return {(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]}


def found_across(held_out: dict[int, str], train: dict[int, str]) -> set[int]:
    """The held-out sequences that MMseqs2 or vsearch finds a neighbour of in train."""
    if not held_out or not train:
        return set()
    short = {place: text for place, text in held_out.items() if len(train) <= MANY or len(text) <= SHORT}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name, sequences in (("query", held_out), ("train", train), ("short", short)):
            write_fasta(work / f"{name}.fa", sequences.items())
        kmer = 7 if len(train) <= MANY else KMER
        run(work, f"mmseqs easy-search query.fa train.fa found.tsv tmp {MMSEQS} -k {kmer}")
        pairs = read_pairs(work / "found.tsv")
        if short:
            where = "short.fa --db train.fa --dbmask none --userout more.tsv --userfields query+target"
            run(work, f"vsearch --usearch_global {where} {VSEARCH}")
            pairs += read_pairs(work / "more.tsv")
    return {query for query, _ in pairs}
