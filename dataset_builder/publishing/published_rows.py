"""Open a data set, by its folder or its Hub id, as `datasets.load_dataset` does, with mistakes told in a sentence.

rows = open_rows("runs/rna-qa/dataset", "alignment", "train")
"""

import sys
from collections.abc import Set
from pathlib import Path

from datasets import Dataset, IterableDataset, load_dataset
from datasets.exceptions import DatasetGenerationError

from rnagpt_core.errors import UserError, disk_is_full


def open_rows(
    path: str, config: str | None, split: str, columns: Set[str] = frozenset(), streaming: bool = False
) -> Dataset | IterableDataset:
    """The rows of a split; `datasets`' way of naming several (`train+test`, `all`) works, too.

    Raises:
        UserError: there is no such data set, configuration or split, it has no rows, or lacks some of the `columns`.
    """
    name = f"{path} ({config}, {split})"
    folder = Path(path).expanduser()
    if not path.strip() or folder.is_file():
        raise UserError(f"{path or 'an empty name'} is no data set: give its folder or its Hub id")
    if config and not (folder / config).is_dir() and (folder / "dataset" / config).is_dir():
        raise UserError(f"{path} is the folder of a build: the data set is {folder / 'dataset'}")
    if not folder.exists():
        print(f"there is no folder {path} here; asking the Hub for a data set of that name", file=sys.stderr)
    try:
        # by its whole path, because a folder named text or json would be taken for a format
        place = str(folder.resolve()) if folder.is_dir() else path
        loaded = load_dataset(place, config, split=split, streaming=streaming)
    except StopIteration:
        raise UserError(f"{name} has no rows") from None
    except (FileNotFoundError, ValueError) as error:
        reason = " ".join(str(error).split())
        hint = " (a folder of files without configurations: config: default)" if "BuilderConfig" in reason else ""
        raise UserError(f"no data set at {name}: {reason}{hint}") from None
    except DatasetGenerationError as error:
        if disk_is_full(error):
            raise
        reason = " ".join(str(error.__cause__ or error).split())
        raise UserError(f"{name} has no rows, or a file of it is damaged: {reason}") from None
    found = set(loaded.column_names or ())
    if missing := columns - found:
        raise UserError(f"{name} lacks the columns {', '.join(sorted(missing))}: it has {', '.join(sorted(found))}")
    return loaded
