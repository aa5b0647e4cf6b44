"""A small synthetic literature: microRNAs, abstracts on them, and the folder that the builder reads."""

import json
import random
from pathlib import Path

from dataset_builder.storage.records import dna_md5

GENES = "PTEN PDCD4 KRAS TP53 SOX2 ZEB1 MYC BCL2 SMAD4 EGFR CDK6 RECK".split()
TISSUES = "colon liver lung breast stomach kidney heart brain".split()
DISEASES = ["colorectal cancer", "hepatitis", "heart failure", "glioma", "diabetes", "psoriasis"]
ROLES = ["tumour suppressor", "oncogene", "serum biomarker", "regulator of apoptosis"]


def abstract(name: str, draw: random.Random) -> str:
    """Four sentences about one microRNA, each a claim with names or numbers of its own."""
    gene, other = draw.sample(GENES, 2)
    tissue, disease, role = draw.choice(TISSUES), draw.choice(DISEASES), draw.choice(ROLES)
    change = draw.choice(["up-regulated", "down-regulated"])
    return (
        f"{name} was significantly {change} in {tissue} tissue of {draw.randint(20, 400)} patients with {disease}. "
        f"Luciferase assays showed that {name} binds the 3'-UTR of {gene} and represses its translation. "
        f"Transfection of {name} mimics changed {other} expression by {draw.randint(11, 95)}% in cultured cells. "
        f"These findings suggest that {name} acts as a {role} in {disease}."
    )


def literature(rnas: int, seed: int = 0, papers=lambda draw: draw.randint(1, 6)) -> tuple[list[dict], list[dict]]:
    """(RNA rows, paper rows). Every fourth RNA shares the names and papers of the one before it."""
    draw = random.Random(seed)
    rna_rows: list[dict] = []
    paper_rows: list[dict] = []
    for number in range(rnas):
        sequence = "".join(draw.choice("ACGU") for _ in range(draw.randint(60, 110)))
        if number % 4 == 3:
            aliases, pmids = rna_rows[-1]["aliases"], rna_rows[-1]["pmids"]
        else:
            aliases, pmids = [f"miR-{1000 + number}"], []
            for _ in range(papers(draw)):
                pmid = str(10_000_000 + len(paper_rows))
                text = abstract(aliases[0], draw)
                paper_rows.append({"pmid": pmid, "year": 2015, "title": f"{aliases[0]} in disease.", "abstract": text})
                pmids.append(pmid)
        rna_rows.append(
            {
                "rna_id": f"URS{number:010X}_9606",
                "sequence": sequence,
                "md5": dna_md5(sequence),
                "name": f"Homo sapiens {aliases[0]}",
                "aliases": aliases,
                "rna_type": "pre_miRNA",
                "species": "Homo sapiens",
                "taxid": 9606,
                "pmids": pmids,
            }
        )
    return rna_rows, paper_rows


def write_folder(folder: Path, rna_rows: list[dict], paper_rows: list[dict]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("rnas", rna_rows), ("papers", paper_rows)):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder
