"""The published folder as a `datasets` builder: the same rows as `load_dataset(folder, config)`, in process.

builder = RnaQa(config_name="qa", folder="runs/rna-qa/dataset")
builder.download_and_prepare(); builder.as_dataset(split="test")        # or builder.as_streaming_dataset("test")
"""

import re
from dataclasses import dataclass
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from dataset_builder.storage.records import published_schemas
from rnagpt_core.errors import UserError


@dataclass
class RnaQaConfig(datasets.BuilderConfig):
    """`folder`: what `rnagpt build-dataset` published; `digest`: of its content."""

    folder: str = ""
    digest: str = ""


def content_digest(folder: Path, config: str) -> str:
    """The digest in the names of the folder's files."""
    found = {
        m[1] for path in (folder / config).glob("*.parquet") if (m := re.search(r"-(\w{12})\.parquet$", path.name))
    }
    if len(found) != 1:
        raise UserError(f"{folder} holds no published {config}: expected {config}/train-00000-DIGEST.parquet")
    return found.pop()


class RnaQa(datasets.ArrowBasedBuilder):
    """RNA-QA from a published folder."""

    BUILDER_CONFIG_CLASS = RnaQaConfig
    BUILDER_CONFIGS = [RnaQaConfig(name="alignment"), RnaQaConfig(name="qa"), RnaQaConfig(name="facts")]
    DEFAULT_CONFIG_NAME = "alignment"

    def __init__(self, *arguments, folder: str, config_name: str = DEFAULT_CONFIG_NAME, **options):
        # the digest is a part of the cache's key: a folder that was built again is not read from the cache
        options["digest"] = content_digest(Path(folder), config_name)
        super().__init__(*arguments, config_name=config_name, folder=folder, **options)

    def _info(self):
        return datasets.DatasetInfo(
            features=datasets.Features.from_arrow_schema(published_schemas()[self.config.name])
        )

    def _split_generators(self, dl_manager):
        folder = Path(self.config.folder) / self.config.name
        generators = []
        for split in ("train", "validation", "test"):
            files = sorted(str(path) for path in folder.glob(f"{split}-*-{self.config.digest}.parquet"))
            if files:
                generators.append(datasets.SplitGenerator(name=split, gen_kwargs={"files": files}))
        return generators

    def _generate_tables(self, files):
        for number, path in enumerate(files):
            for part, batch in enumerate(pq.ParquetFile(path).iter_batches(1000)):
                yield datasets.builder.Key(number, part), pa.Table.from_batches([batch])
