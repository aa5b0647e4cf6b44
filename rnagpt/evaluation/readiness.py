"""What an evaluation needs, looked at before the first answer is made: models, files of answers, keys, encoders.

check_ready(recipe, items, writer)      # UserError now, instead of after hours of another system's answers
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from rnagpt.evaluation.asking.answers import FileAnswers
from rnagpt.evaluation.asking.items import Item, ItemWriter, read_items
from rnagpt.evaluation.evaluation_recipe import EvaluationRecipe, SystemPart
from rnagpt.evaluation.scoring.text_encoders import check_encoder
from rnagpt_core.endpoint import api_key
from rnagpt_core.errors import UserError


def check_ready(recipe: EvaluationRecipe, items: Sequence[Item], writer: ItemWriter, only_plan: bool = False) -> None:
    """Look for all that a recipe's missing answers need; a plan needs neither keys nor encoders.

    Raises:
        UserError: a checkpoint, an LLM or an encoder is not there, a file of answers is incomplete or no longer says
            what was read from it, a key is not set, or there is no RNA of another type to swap in.
    """
    types = sorted({item.rna_type for item in items})
    pending = False
    for part in recipe.systems:
        if "swapped" in part.controls and len(types) < 2:
            raise UserError(
                f"{part.name}'s control swapped shows an RNA of another type, and all RNAs asked about "
                f"are of type {types[0]!r}: leave the control out, or ask about RNAs of more types"
            )
        if part.kind == "file":
            _check_file(part, items, writer)
        # another RNA of the same type cannot be shown for each RNA: what is missing of it says nothing
        keys = [part.name, *(part.key(control) for control in part.controls if control != "swapped_same")]
        if not all(writer.done(key, item) for key in keys for item in items):
            pending = True
            if part.kind == "endpoint" and not only_plan:
                api_key(part.api_key_env, part.base_url)
            elif part.is_loaded and part.model != "demo":
                _check_model(part)
    if recipe.judge and not only_plan:
        api_key(recipe.judge.api_key_env, recipe.judge.base_url)
    for spec in recipe.encoders if pending and not only_plan else ():
        check_encoder(spec)


def _check_file(part: SystemPart, items: Sequence[Item], writer: ItemWriter) -> None:
    """A file of answers has one to each question, and still says what an earlier run read from it."""
    source = FileAnswers(part.model)
    prompts = [source.prompt(item, None) for item in items]
    now = dict(zip([item.key for item in items], source.answer(prompts), strict=True))
    if other := source.passed_over(prompts):
        print(f"{part.model}: {other:,} answers to questions that are not asked here are passed over", file=sys.stderr)
    before = [item for item in read_items(writer.path) if item.system == part.name]
    if changed := [item for item in before if item.answer != now.get(item.key, item.answer)]:
        raise UserError(
            f"{part.model} has changed since {part.name}'s answers were read from it ({len(changed):,} "
            f"differ, the first about {changed[0].rna_id}: {changed[0].question}): give the system "
            "another name, or another folder"
        )


def _check_model(part: SystemPart) -> None:
    from rnagpt.checkpoints.forms import checkpoint_form, is_checkpoint
    from rnagpt.checkpoints.llm import EMBEDDED_LLM, RANDOM, reach_hub

    path = Path(part.model.removeprefix(RANDOM))
    if part.kind == "rna":
        if checkpoint_form(part.model) == "hub":
            reach_hub(part.model)
    elif not (part.model == EMBEDDED_LLM or path.is_file() or (path / "config.json").is_file() or is_checkpoint(path)):
        if path.suffix == ".gguf":
            raise UserError(f"no file {path}: expected an LLM's .gguf")
        if path.exists():
            raise UserError(f"{path} is no LLM: expected a folder with config.json, a .gguf file or a Hub id")
        reach_hub(str(path))
