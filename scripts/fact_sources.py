"""Parse the public packages behind `rna_facts.tsv.gz`: input file -> candidate RNAs, one dict each.

Nothing is fetched here (see `build_facts.py`). Every parser yields dicts with the table's columns except
`cluster` and `split`; sequences are upper case A, C, G, U, and what holds any other letter is dropped and counted.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rnagpt_core.sequences import normalized, stream_fasta

MAX_LENGTH = 1024  # nt: what RNA-FM reads
MIN_LENGTH = 15  # nt: the shortest mature microRNAs

AMINO_ACIDS = ("Ala Arg Asn Asp Cys Gln Glu Gly His Ile Leu Lys Met Phe Pro Ser Thr Trp Tyr Val SeC").split()

# miRBase names the species; its kingdom is general knowledge. Whatever is neither a plant, a protist nor a virus
# among miRBase's species is an animal (miRBase 22 lists no fungus and no bacterium).
PLANT_GENERA = frozenset(
    "Acacia Aegilops Amborella Aquilegia Arabidopsis Arachis Avicennia Brachypodium Brassica Bruguiera Carica "
    "Chlamydomonas Citrus Cucumis Cunninghamia Cynara Digitalis Elaeis Festuca Glycine Gossypium Helianthus Hevea "
    "Hordeum Linum Lotus Malus Manihot Medicago Nicotiana Oryza Panax Phaseolus Physcomitrella Picea Pinus "
    "Populus Prunus Rehmannia Ricinus Saccharum Salvia Selaginella Solanum Sorghum Theobroma Triticum Vigna Vitis "
    "Zea".split()
)
PROTIST_GENERA = frozenset("Dictyostelium Ectocarpus Phaeodactylum Phytophthora".split())

# tRNA folders of the mimseq wheel that hold reference sets as they come (no engineered mutants, no spike-in oligos).
MIMSEQ_SETS = (
    ("hg38-eColitK/hg38-tRNAs.fa", "Homo sapiens", "animal", "nuclear"),
    ("hg38-eColitK/hg38-mitotRNAs.fa", "Homo sapiens", "animal", "mitochondrial"),
    ("gorGor4-eColitK/gorGor4-tRNAs.fa", "Gorilla gorilla", "animal", "nuclear"),
    ("gorGor4-eColitK/gorGor4-mitotRNAs.fa", "Gorilla gorilla", "animal", "mitochondrial"),
    ("mm10-tRNAs/mm10-tRNAs.fa", "Mus musculus", "animal", "nuclear"),
    ("mm10-tRNAs/mm10-mitotRNAs.fa", "Mus musculus", "animal", "mitochondrial"),
    ("rn7-eColitK/rn7-tRNAs.fa", "Rattus norvegicus", "animal", "nuclear"),
    ("rn7-eColitK/rn7-mitotRNAs.fa", "Rattus norvegicus", "animal", "mitochondrial"),
    ("danRer11-eColitK/danRer11_eColitK_filtered.fa", "Danio rerio", "animal", "nuclear"),
    ("danRer11-eColitK/danRer11-mitotRNAs.fa", "Danio rerio", "animal", "mitochondrial"),
    ("ce11-eColitK/ce11-tRNAs-filtered.fa", "Caenorhabditis elegans", "animal", "nuclear"),
    ("ce11-eColitK/ce11-mitotRNAs.fa", "Caenorhabditis elegans", "animal", "mitochondrial"),
    ("dm6-tRNAs/dm6-tRNAs.fa", "Drosophila melanogaster", "animal", "nuclear"),
    ("dm6-tRNAs/dm6-mitotRNAs.fa", "Drosophila melanogaster", "animal", "mitochondrial"),
    ("araTha1-eColitK/araTha1-tRNAs.fa", "Arabidopsis thaliana", "plant", "nuclear"),
    ("araTha1-eColitK/araTha1-mitotRNAs.fa", "Arabidopsis thaliana", "plant", "mitochondrial"),
    ("araTha1-eColitK/araTha1-plastidtRNAs.fa", "Arabidopsis thaliana", "plant", "plastid"),
    ("sacCer3-tRNAs/sacCer3-tRNAs.fa", "Saccharomyces cerevisiae", "fungus", "nuclear"),
    ("sacCer3-tRNAs/sacCer3-mitotRNAs.fa", "Saccharomyces cerevisiae", "fungus", "mitochondrial"),
    ("schiPomb-972H/schiPomb_972H-tRNAs.fa", "Schizosaccharomyces pombe", "fungus", "nuclear"),
    ("schiPomb-972H/schiPomb-mitotRNAs.fa", "Schizosaccharomyces pombe", "fungus", "mitochondrial"),
    ("eschColi-K_12_MG1655-tRNAs/eschColi_K_12_MG1655-tRNAs.fa", "Escherichia coli", "bacterium", "bacterial"),
)

# What the names in mimseq's mitochondrial and plastid files show of their source.
ORGANELLE_SOURCES = (("mtdbD", "mitotRNAdb"), ("PtRNAdb", "PtRNAdb"), ("URS", "RNAcentral"), (")Q", "SGD"))

RNASE_P = "RNase P Database"
# Stockholm alignments: (package key, file, RNA type, family, name, group when the whole family has one, source).
FOLDERS = {
    "rna-tools": "rna_tools/tools/rna_alignment/test_data/",
    "infernal": "usr/share/doc/infernal/examples/testsuite/",
}
ALIGNMENTS = (
    ("rna-tools", "RF00001.blocked.stk", "5S_rRNA", "RF00001", "5S ribosomal RNA", "", "Rfam"),
    ("rna-tools", "RF00002.stockholm.stk", "5.8S_rRNA", "RF00002", "5.8S ribosomal RNA", "", "Rfam"),
    ("rna-tools", "u6_isl_rfam.sto", "snRNA", "RF00026", "U6 spliceosomal RNA", "", "Rfam"),
    ("rna-tools", "RF00379.stockholm.stk", "riboswitch", "RF00379", "ydaO/yuaA riboswitch", "bacterium", "Rfam"),
    ("rna-tools", "RF01831.stockholm.sto", "riboswitch", "RF01831", "THF riboswitch", "", "Rfam"),
    ("rna-tools", "RF00167.stockholm.sto", "riboswitch", "RF00167", "purine riboswitch", "bacterium", "Rfam"),
    ("rna-tools", "gmp.sto", "riboswitch", "RF01051", "cyclic di-GMP-I riboswitch", "bacterium", "Rfam"),
    ("rna-tools", "RF02221.stockholm.sto", "sRNA", "RF02221", "sRNA-Xcc1", "bacterium", "Rfam"),
    ("rna-tools", "xrrna_rfam.sto", "viral_xrRNA", "", "exoribonuclease-resistant RNA", "virus", "Rfam"),
    ("rna-tools", "IA1.gissd.sto", "autocatalytically_spliced_intron", "IA1", "group I intron (IA1)", "", "GISSD"),
    ("rna-tools", "IE2.gissd.sto", "autocatalytically_spliced_intron", "IE2", "group I intron (IE2)", "", "GISSD"),
    ("infernal", "tRNA.sto", "tRNA", "RF00005", "tRNA", "", "Rfam"),
    ("infernal", "Vault.sto", "vault_RNA", "RF00006", "vault RNA", "animal", "Rfam"),
    ("infernal", "snR75.sto", "snoRNA", "RF01185", "small nucleolar RNA snR75", "", "Rfam"),
    ("infernal", "Plant_SRP.sto", "SRP_RNA", "RF01855", "plant signal recognition particle RNA", "plant", "Rfam"),
    ("infernal", "srp-euk.sto", "SRP_RNA", "SRPDB", "signal recognition particle RNA", "", "SRPDB"),
    ("infernal", "3.4.12.rf.stk", "snRNA", "", "", "", "Rfam"),
    ("infernal", "rnaseP-eubact.sto", "RNase_P_RNA", "RNaseP_bact", "bacterial RNase P RNA", "bacterium", RNASE_P),
)
SPLICEOSOMAL = {  # alignments inside 3.4.12.rf.stk
    "U1": ("snRNA", "RF00003", "U1 spliceosomal RNA"),
    "U2": ("snRNA", "RF00004", "U2 spliceosomal RNA"),
    "U3": ("snoRNA", "RF00012", "small nucleolar RNA U3"),
}
# What each source's terms are, and how far that was checked: data/README.md.
LICENCES = {
    "Rfam": "CC0-1.0",
    "miRBase": "public domain",
    "RNAcentral": "CC0-1.0",
    "SGD": "CC-BY-4.0 (believed)",
    "GtRNAdb": "INSDC free use (believed)",
    "mitotRNAdb": "INSDC free use (believed)",
    "PtRNAdb": "INSDC free use (believed)",
    "GISSD": "INSDC free use (believed)",
    "SRPDB": "INSDC free use (believed)",
    RNASE_P: "INSDC free use (believed)",
}
# Four-letter codes of the SRP alignment -> (species, group).
SRP_SPECIES = {
    "ARA.THA.": ("Arabidopsis thaliana", "plant"),
    "CAN.SPE.": ("Canis familiaris", "animal"),
    "CIN.HYB.": ("", "plant"),
    "DRO.MEL.": ("Drosophila melanogaster", "animal"),
    "HOM.S.": ("Homo sapiens", "animal"),
    "HUM.JAP.": ("Humulus japonicus", "plant"),
    "HUM.L.": ("Humulus lupulus", "plant"),
    "LYC.ESC.": ("Solanum lycopersicum", "plant"),
    "MUS.M": ("Mus musculus", "animal"),
    "RAT.RAT.": ("Rattus rattus", "animal"),
    "SCH.POM.": ("Schizosaccharomyces pombe", "fungus"),
    "TET.ROS.": ("", "protist"),
    "TET.THE.": ("Tetrahymena thermophila", "protist"),
    "TRI.A.": ("Triticum aestivum", "plant"),
    "TRY.BRU.": ("Trypanosoma brucei", "protist"),
    "XEN.LAE.": ("Xenopus laevis", "animal"),
    "YAR.L.": ("Yarrowia lipolytica", "fungus"),
    "ZEA.M.": ("Zea mays", "plant"),
}


def candidates(inputs: dict[str, Path]) -> tuple[list[dict[str, str]], Counter]:
    """All usable RNAs of the packages, one per distinct sequence, in a fixed order, and the counted reasons to drop.

    `inputs` maps a package key (mimseq, seqkit-examples, rna-tools, infernal) to the folder it was unpacked in.
    """
    chosen: dict[str, dict[str, str]] = {}
    dropped: Counter = Counter()
    groups: dict[str, set[str]] = {}
    for row in _all_rows(inputs):
        sequence = row["sequence"]
        if set(sequence) - set("ACGU"):
            dropped["letters other than A, C, G, U"] += 1
        elif not MIN_LENGTH <= len(sequence) <= MAX_LENGTH:
            dropped[f"not {MIN_LENGTH}-{MAX_LENGTH} nt"] += 1
        elif sequence in chosen:
            first = chosen[sequence]
            dropped["sequence already there" if first["rna_type"] == row["rna_type"] else "two types claim it"] += 1
            groups[sequence].add(row["organism_group"])
            if first["rna_type"] == row["rna_type"]:
                for column in ("amino_acid", "anticodon", "compartment", "species", "organism_group"):
                    first[column] = first[column] or row[column]
        else:
            chosen[sequence] = row
            groups[sequence] = {row["organism_group"]}
    for sequence, row in chosen.items():
        if len(groups[sequence] - {""}) > 1:  # the same RNA in two kingdoms: no one group is the answer
            row["organism_group"] = row["species"] = ""
    return sorted(chosen.values(), key=lambda row: row["rna_id"]), dropped


def _all_rows(inputs: dict[str, Path]) -> Iterator[dict[str, str]]:
    yield from mimseq_rows(inputs["mimseq"])
    for package, file, *facts in ALIGNMENTS:
        yield from alignment_rows(inputs[package] / FOLDERS[package] / file, *facts)
    yield from mirbase_rows(inputs["seqkit-examples"])


def _row(rna_id: str, sequence: str, rna_type: str, source: str, **facts: str) -> dict[str, str]:
    columns = dict.fromkeys(
        ("species", "organism_group", "name", "family", "amino_acid", "anticodon", "compartment"), ""
    )
    return {
        "rna_id": rna_id,
        "sequence": sequence,
        "rna_type": rna_type,
        **columns,
        **facts,
        "source": source,
        "licence": LICENCES[source],
    }


def read_stockholm(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Stockholm file -> (the alignment's ID or "", {name: ungapped RNA sequence}), one per alignment."""
    identifier, aligned = "", {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("//"):
            yield identifier, {name: normalized(re.sub("[~_]", "", text)) for name, text in aligned.items()}
            identifier, aligned = "", {}
        elif line.startswith("#=GF ID"):
            identifier = line.split()[2]
        elif line and not line.startswith("#"):
            name, text = line.split()[:2]
            aligned[name] = aligned.get(name, "") + text


def mimseq_rows(folder: Path) -> Iterator[dict[str, str]]:
    """tRNAs of the mimseq wheel: GtRNAdb's high-confidence sets, mitochondrial and plastid sets."""
    for path, species, group, compartment in MIMSEQ_SETS:
        for header, text in stream_fasta(folder / "mimseq" / "data" / path):
            if compartment in ("nuclear", "bacterial"):
                match = re.search(r"tRNA-(\w+)-([ACGTN]{3})-(\d+-\d+)", header)
                if not match or "tRX" in header or "eColi" in header:
                    continue
                amino_acid, anticodon, number = match.groups()
                label = f"{species.replace(' ', '_')}:tRNA-{amino_acid}-{anticodon}-{number}"
                amino_acid = {"iMet": "Met", "fMet": "Met", "Ile2": "Ile"}.get(amino_acid, amino_acid)
            else:
                label, _, _, amino_acid, anticodon = header.split("|")
                amino_acid = re.sub(r"\d$", "", amino_acid)
            source = next((name for sign, name in ORGANELLE_SOURCES if sign in label), "GtRNAdb")
            score = re.search(r"Sc: ([\d.]+)", header)
            intron = re.search(r"[acgt]{5,}", text)
            if amino_acid not in AMINO_ACIDS or "N" in anticodon or intron or (score and float(score[1]) < 50):
                continue
            yield _row(
                f"gtrnadb:{label}" if compartment in ("nuclear", "bacterial") else f"organellar:{label}",
                normalized(text),
                "tRNA",
                source,
                species=species,
                organism_group=group,
                family="RF00005",
                name=f"tRNA-{amino_acid} ({anticodon.replace('T', 'U')})",
                amino_acid=amino_acid,
                anticodon=anticodon.replace("T", "U"),
                compartment=compartment,
            )


def alignment_rows(path: Path, rna_type: str, family: str, name: str, group: str, source: str):
    """Members of Stockholm alignments; consensus rows (no coordinates in an Rfam name) are left out."""
    for identifier, members in read_stockholm(path):
        facts = SPLICEOSOMAL.get(identifier, (rna_type, family, name))
        for label, sequence in members.items():
            species, own_group = "", group
            if source in ("Rfam", "GISSD"):
                if not re.search(r"/\d+-\d+$", label):
                    continue
                start, end = map(int, label.rsplit("/", 1)[1].split("-"))
                if source == "GISSD" and abs(end - start) + 1 != len(sequence):
                    continue  # the alignment has an open reading frame cut out: not the real intron
            if source == "SRPDB":
                code = re.sub(r"_[A-Z]$|B1$", "", label)
                species, own_group = SRP_SPECIES.get(code, ("", ""))
            yield _row(
                f"{source.split()[0].lower()}:{facts[1]}:{label}",
                sequence,
                facts[0],
                source,
                family=facts[1],
                name=facts[2],
                species=species,
                organism_group=own_group,
            )


def mirbase_rows(folder: Path) -> Iterator[dict[str, str]]:
    """miRBase hairpins (pre_miRNA) and mature microRNAs (miRNA), with the species from the hairpin's header."""
    tests = folder / "usr/share/doc/seqkit-examples/tests"
    species_of_code: dict[str, str] = {}
    for header, text in stream_fasta(tests / "hairpin.fa.gz"):
        label, accession, *words = header.split()
        species = species_of_code.setdefault(label.split("-")[0], " ".join(words[:-2]))
        yield _mirna_row(label, accession, species, text, "pre_miRNA")
    for header, text in stream_fasta(tests / "mature.fa.gz"):
        label, accession, *_ = header.split()
        yield _mirna_row(label, accession, species_of_code.get(label.split("-")[0], ""), text, "miRNA")


def _mirna_row(label: str, accession: str, species: str, text: str, rna_type: str) -> dict[str, str]:
    group = mirbase_group(species)
    return _row(
        f"mirbase:{accession}",
        normalized(text),
        rna_type,
        "miRBase",
        name=label,
        organism_group=group,
        species="" if species.endswith("sp.") else species,
        family=mirna_family(label, group),
    )


def mirbase_group(species: str) -> str:
    """'Homo sapiens' -> 'animal'; 'Zea mays' -> 'plant'; 'Epstein Barr virus' -> 'virus'; '' -> ''."""
    if not species:
        return ""
    if "virus" in species.lower():
        return "virus"
    genus = species.split()[0]
    return "plant" if genus in PLANT_GENERA else "protist" if genus in PROTIST_GENERA else "animal"


def mirna_family(label: str, group: str) -> str:
    """Family name without species, copy and arm: the number is what miRBase shares between orthologues.

    >>> mirna_family("hsa-let-7a-5p", "animal"), mirna_family("hsa-mir-10a-1", "animal")
    ('let-7', 'mir-10')
    >>> mirna_family("ath-MIR156a", "plant"), mirna_family("ebv-miR-BART1-5p", "virus")
    ('MIR156', 'ebv-mir-bart1')
    """
    code, _, rest = label.partition("-")
    match = re.match(r"(mir|let|lin|lsy|bantam)-?([a-z]*\d+|[a-z]+)?", rest.lower())
    stem, number = match.groups(default="") if match else (re.sub(r"-[35]p$", "", rest.lower()), "")
    if group == "plant":
        return f"{stem.upper()}{number}"
    family = f"{stem}-{number}" if number else stem
    return f"{code}-{family}" if group == "virus" else family
