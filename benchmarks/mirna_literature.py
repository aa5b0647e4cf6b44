"""Turn a table of microRNAs, their articles and abstracts into a folder that `rnagpt build-dataset` reads.

    python benchmarks/mirna_literature.py LINKS.jsonl ABSTRACTS.jsonl FOLDER

LINKS: one microRNA a line, {"query_id", "precursors", "matures", "articles": [{"pmid"}]}, as LitScan has them:
hairpins and mature forms share the name they were searched by, and so the papers. ABSTRACTS: {"pmid", "year",
"title", "abstract"}. Nothing of either is kept in this repository.
"""

import json
import sys
from pathlib import Path


def main(links: str, abstracts: str, folder: str) -> None:
    rows = []
    for line in Path(links).read_text(encoding="utf-8").splitlines():
        query = json.loads(line)
        pmids = sorted({article["pmid"] for article in query["articles"]})
        for kind, members in (("pre_miRNA", query["precursors"]), ("miRNA", query["matures"])):
            for rna in members:
                rows.append(
                    {
                        "rna_id": f"mirbase:{rna['mirbase']}",
                        "sequence": rna["sequence"],
                        "name": rna["name"],
                        "aliases": [query["query_id"]],
                        "rna_type": kind,
                        "species": "Homo sapiens",
                        "taxid": 9606,
                        "pmids": pmids,
                    }
                )
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    (out / "rnas.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (out / "papers.jsonl").write_bytes(Path(abstracts).read_bytes())
    print(f"{len(rows)} RNAs, {len({tuple(row['pmids']) for row in rows})} literature sets in {out}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
