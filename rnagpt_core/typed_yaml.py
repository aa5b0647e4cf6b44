"""Settings as typed dataclasses, checked by pydantic: a YAML file, or one sentence that names file, key and cure.

    @settings
    class Recipe:
        output: str
        rank: Annotated[int, Field(ge=1)] = 16

    recipe = read_settings(Recipe, "recipes/mine.yaml", "recipes/quickstart_stage1.yaml")

An int is no bool and no text; what a class does not name is refused. `dataclasses.replace` checks again.
"""

import dataclasses
import difflib
import json
import sys
import typing
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from rnagpt_core.errors import UserError

T = typing.TypeVar("T")
if typing.TYPE_CHECKING:  # mypy follows no partial
    from dataclasses import dataclass as settings
else:
    settings = partial(pydantic_dataclass, frozen=True, config=ConfigDict(strict=True, extra="forbid"))

UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "keys and values",
    "dataclass_type": "keys and values",
    "greater_than": "above {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "below {lt:g}",
    "less_than_equal": "at most {le:g}",
    "literal_error": "{expected}",
}


def read_settings(kind: type[T], path: str | Path, example: str, renamed: Mapping[str, str] | None = None) -> T:
    """The settings in a YAML file. `example` ships with RNA-GPT, and is named where the file is missing.

    Raises:
        UserError: the file is missing, is no YAML, or has an unknown, missing or wrong key, which is named.
    """
    return checked(kind, read_yaml(path, example), f"{path}: ", renamed)


def read_yaml(path: str | Path, example: str):
    """Content of a YAML file, not checked yet. Raises as `read_settings`."""
    import yaml

    path = Path(path)
    if not path.is_file():
        raise UserError(f"no recipe at {path}: expected a YAML file such as {example}")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from None


def checked(kind: type[T], content, where: str = "", renamed: Mapping[str, str] | None = None) -> T:
    """Keys and values -> settings; what is absent takes its default.

    Args:
        renamed: old name of a key -> its name now, both with dots ("data.visits": "data.samples"); an old one is taken
            with a word about it on standard error, unless `where` is empty: a record is not the user's to change.

    Raises:
        UserError: begins by `where`, names the first key that is wrong, what was expected and what came.
    """
    if not isinstance(content, dict):
        raise UserError(f"{where}expected keys and values, got {type(content).__name__}")
    for old, new in (renamed or {}).items():
        content = _with_new_name(content, old.split("."), new.rpartition(".")[2], where)
    try:
        # as JSON: pydantic's strict mode takes nested settings from JSON alone
        return TypeAdapter(kind).validate_json(json.dumps(content, default=str))
    except ValidationError as error:
        # a key that is spelled wrong is unknown, and missing as well: the former says more
        first = min(error.errors(), key=lambda one: one["type"] not in UNKNOWN)
        raise UserError(where + sentence(kind, dict(first))) from None


def _with_new_name(content, old: list[str], new: str, where: str):
    """`content` with the key that the path `old` leads to called `new`; a copy where it is there."""
    first, *rest = old
    if not isinstance(content, dict) or first not in content:
        return content
    if rest:
        return content | {first: _with_new_name(content[first], rest, new, where)}
    if where:
        print(f"{where}key {first!r} is called {new!r} now; the old name goes with the next release", file=sys.stderr)
    return {new if key == first else key: value for key, value in content.items()}


def sentence(kind: type, error: dict) -> str:
    """pydantic's description of a mistake -> one sentence."""
    # without the names of a union's members, which pydantic writes between the keys: "function-after[...]"
    path = [part for part in error["loc"] if isinstance(part, int) or "[" not in part]
    key = ".".join(str(part + 1) if isinstance(part, int) else part for part in path)
    value, reason = error["input"], error["type"]
    if reason in UNKNOWN:
        known = [field.name for field in dataclasses.fields(_class_at(kind, path[:-1]))]
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        return f"unknown key {key!r}" + (f": did you mean {near[0]}?" if near else f"; known are {', '.join(known)}")
    if reason in ("missing", "missing_argument"):
        return f"key {key!r} is missing"
    if reason in ("value_error", "assertion_error"):
        return " ".join(filter(None, [f"key {key!r}:" if key else "", str(error["ctx"]["error"])]))
    expected = EXPECTED[reason].format(**error.get("ctx", {})) if reason in EXPECTED else error["msg"].lower()
    hint = ""
    if reason == "float_type" and isinstance(value, str) and _is_number(value):
        hint = " (YAML reads 1e-3 as text: write 1.0e-3)"
    return f"key {key!r} must be {expected}, got {value!r}{hint}"


def _class_at(kind: type, path: list):
    """The settings class that the keys of `path` lead to."""
    for part in path:
        if isinstance(part, int):
            continue
        hint = typing.get_type_hints(kind)[part]
        inner = [hint, *typing.get_args(hint), *(a for h in typing.get_args(hint) for a in typing.get_args(h))]
        kind = next((one for one in inner if isinstance(one, type) and dataclasses.is_dataclass(one)), kind)
    return kind


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
