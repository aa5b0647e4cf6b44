"""What an evaluation needs, looked at before the first answer is made: models, files of answers, keys, encoders.

check_ready(recipe, items, writer)      # UserError now, instead of after hours of another system's answers
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from rnagpt.evaluation.asking.answers import FileAnswers
from rnagpt.evaluation.asking.items import Item, ItemWriter, read_items
from rnagpt.evaluation.evaluation_recipe import EvaluationRecipe, SystemPart
from rnagpt.evaluation.scoring.text_encoders import TextEncoder, api_key
from rnagpt_core.errors import UserError


def check_ready(
    recipe: EvaluationRecipe, items: Sequence[Item], writer: ItemWriter, only_estimate: bool = False
) -> None:
    """Look for all that a recipe's missing answers need; an estimate needs neither keys nor encoders.

    Raises:
        UserError: a checkpoint, an LLM or an encoder is not there, a file of answers is incomplete or no longer says
            what was read from it, a key is not set, or there is no RNA of another type to swap in.
    """
    types = sorted({item.rna_type for item in items})
    for part in recipe.systems:
        if "swapped" in part.controls and len(types) < 2:
            raise UserError(
                f"{part.name}'s control swapped shows an RNA of another type, and all RNAs asked about "
                f"are of type {types[0]!r}: leave the control out, or ask about RNAs of more types"
            )
        if part.kind == "file":
            check_file(part, items, writer)
    pending = [
        part for part in recipe.systems if not all(writer.done(key, item) for key in _keys(part) for item in items)
    ]
    for part in pending:
        if part.kind == "rna" and part.model != "demo":
            _check_checkpoint(part.model)
        elif part.kind == "llm_text" and part.model != "demo":
            _check_llm(part.model)
        elif part.kind == "endpoint" and not only_estimate:
            api_key(part.api_key_env, part.base_url)
    if recipe.judge and not only_estimate:
        api_key(recipe.judge.api_key_env, recipe.judge.base_url)
    if pending and not only_estimate:
        for spec in recipe.encoders:
            _check_encoder(spec)


def _keys(part: SystemPart) -> list[str]:
    # another RNA of the same type cannot be shown for each RNA: what is missing of it says nothing
    return [part.name, *(f"{part.name}_{control}" for control in part.controls if control != "swapped_same")]


def check_file(part: SystemPart, items: Sequence[Item], writer: ItemWriter) -> None:
    """A file of answers has one to each question, and still says what an earlier run read from it."""
    source = FileAnswers(part.model)
    asked = [source.asks(item, None) for item in items]
    now = dict(zip([item.key for item in items], source.answer(asked), strict=True))
    if other := source.passed_over(asked):
        print(f"{part.model}: {other:,} answers to questions that are not asked here are passed over", file=sys.stderr)
    changed = [
        item
        for item in read_items(writer.path)
        if item.system == part.name and item.answer != now.get(item.key, item.answer)
    ]
    if changed:
        raise UserError(
            f"{part.model} has changed since {part.name}'s answers were read from it ({len(changed):,} "
            f"differ, the first about {changed[0].rna_id}: {changed[0].question}): give the system "
            "another name, or another folder"
        )


def _check_checkpoint(model: str) -> None:
    from rnagpt.checkpoints.forms import checkpoint_form

    if checkpoint_form(model) == "hub":
        _reach(model)


def _check_llm(model: str) -> None:
    from rnagpt.checkpoints.forms import is_checkpoint
    from rnagpt.checkpoints.llm import EMBEDDED_LLM, RANDOM

    path = Path(model.removeprefix(RANDOM))
    if model == EMBEDDED_LLM or path.is_file() or (path / "config.json").is_file() or is_checkpoint(path):
        return
    if path.suffix == ".gguf":
        raise UserError(f"no file {path}: expected an LLM's .gguf")
    if path.exists():
        raise UserError(f"{path} is no LLM: expected a folder with config.json, a .gguf file or a Hub id")
    _reach(str(path))


def _check_encoder(spec: TextEncoder) -> None:
    if spec.kind == "endpoint":
        api_key(spec.api_key_env, spec.base_url)
    elif not Path(spec.model).exists():
        _reach(spec.model)
    elif not (Path(spec.model) / "config.json").is_file():
        raise UserError(f"{spec.model} is no text encoder: expected a folder with config.json, or a Hub id")


def _reach(name: str) -> None:
    from rnagpt.checkpoints.llm import reach_hub

    reach_hub(name)
