"""Croissant 1.0 metadata (JSON-LD) of RNA-QA: files, columns and types, as dataset search and loaders read them.

    croissant(files, "owner/rna-qa", "cc-by-4.0")

The form is that of MLCommons' specification (docs.mlcommons.org/croissant); the columns come from `published_schemas`.
"""

from datetime import date
from pathlib import Path

from dataset_builder.storage.records import published_schemas

CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}

ROWS = {
    "alignment": "One annotation of an RNA per row.",
    "qa": "One question about an RNA per row.",
    "facts": "One statement of another source about an RNA per row.",
}


def croissant(files: dict[str, dict[str, list[Path]]], repo: str, licence: str) -> dict:
    """The description of a dataset; `files` as `dataset.check_schemas` gives them."""
    page = f"https://huggingface.co/datasets/{repo}"
    distribution: list[dict] = [
        {
            "@type": "cr:FileObject",
            "@id": "repo",
            "name": "repo",
            "description": "The repository on the Hub.",
            "contentUrl": page,
            "encodingFormat": "git+https",
            # a repository has none; the specification's issue 80 is the value that the Hub itself writes there
            "sha256": "https://github.com/mlcommons/croissant/issues/80",
        }
    ]
    records = []
    for config, schema in published_schemas().items():
        if config not in files:
            continue
        files_id = f"parquet-files-of-{config}"
        distribution.append(
            {
                "@type": "cr:FileSet",
                "@id": files_id,
                "name": files_id,
                "description": f"{sum(map(len, files[config].values()))} files.",
                "containedIn": {"@id": "repo"},
                "encodingFormat": "application/x-parquet",
                "includes": f"{config}/*.parquet",
            }
        )
        records.append(
            {
                "@type": "cr:RecordSet",
                "@id": config,
                "name": config,
                "description": ROWS[config],
                "field": [field(f"{config}/{column.name}", column, files_id, column.name) for column in schema],
            }
        )
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": repo.split("/")[1],
        "description": "Annotations of RNAs and questions about them, written by a language model from abstracts of "
        "the literature; every statement lists the papers it rests on.",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "license": licence,
        "url": page,
        "datePublished": date.today().isoformat(),
        "citeAs": "Xiao et al. 2024, RNA-GPT: Multimodal Generative System for RNA Sequence Understanding",
        "version": "1.0.0",
        "distribution": distribution,
        "recordSet": records,
    }


def field(name: str, column, files_id: str, path: str) -> dict:
    """One column; a list is `repeated`, a struct has subfields."""
    import pyarrow as pa

    kind, repeated = column.type, False
    while pa.types.is_list(kind):
        kind, repeated = kind.value_type, True
    found: dict = {"@type": "cr:Field", "@id": name, "name": name}
    if repeated:
        found["repeated"] = True
    if pa.types.is_struct(kind):
        found["subField"] = [field(f"{name}/{inner.name}", inner, files_id, path) for inner in kind]
        return found
    kinds = {"int32": "sc:Integer", "int64": "sc:Integer", "float": "sc:Float", "bool": "sc:Boolean"}
    found["dataType"] = kinds.get(str(kind), "sc:Text")
    found["source"] = {"fileSet": {"@id": files_id}, "extract": {"column": path}}
    return found
