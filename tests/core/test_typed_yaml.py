"""Settings from YAML: what is right is typed, what is wrong is one sentence."""

import dataclasses
from dataclasses import field
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from rnagpt_core.errors import UserError
from rnagpt_core.typed_yaml import checked, read_settings, settings


@settings
class Source:
    path: str
    weight: Annotated[float, Field(gt=0)] = 1.0


@settings
class Recipe:
    source: Source
    more: list[Source] = field(default_factory=list)
    rate: float = 0.1
    rank: Annotated[int, Field(ge=1)] | None = None
    stage: Literal["one", "two"] = "one"
    rest: dict = field(default_factory=dict)

    def __post_init__(self):
        if self.stage == "two" and self.rank is None:
            raise ValueError("stage two needs a rank")


def test_what_is_right_is_typed():
    recipe = checked(Recipe, {"source": {"path": "a"}, "more": [{"path": "b", "weight": 2}], "rest": {"x": [1]}})
    assert recipe == Recipe(source=Source(path="a"), more=[Source(path="b", weight=2.0)], rest={"x": [1]})
    assert dataclasses.asdict(recipe)["more"] == [{"path": "b", "weight": 2.0}]
    with pytest.raises(ValidationError, match="needs a rank"):
        dataclasses.replace(recipe, stage="two")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"source": None}, "key 'source' must be keys and values, got None"),
        ({"source": {}}, "key 'source.path' is missing"),
        ({"source": {"path": 1}}, "key 'source.path' must be a text, got 1"),
        ({"more": [{"path": "a"}, {"path": "b", "weights": 1}]}, "unknown key 'more.2.weights': did you mean weight?"),
        ({"more": [{"path": "a", "weight": 0}]}, "key 'more.1.weight' must be above 0, got 0"),
        ({"more": {"path": "a"}}, "key 'more' must be a list"),
        ({"rate": "1e-3"}, "key 'rate' must be a number, got '1e-3' (YAML reads 1e-3 as text: write 1.0e-3)"),
        ({"rank": True}, "key 'rank' must be a whole number, got True"),
        ({"rank": 0}, "key 'rank' must be at least 1, got 0"),
        ({"rank": "3"}, "key 'rank' must be a whole number, got '3'"),
        ({"stage": "three"}, "key 'stage' must be 'one' or 'two', got 'three'"),
        ({"zzz": 1}, "unknown key 'zzz'; known are source, more, rate, rank, stage, rest"),
        ({"stage": "two"}, "stage two needs a rank"),
    ],
)
def test_what_is_wrong_is_one_sentence(changed, expected):
    with pytest.raises(UserError) as found:
        checked(Recipe, {"source": {"path": "a"}} | changed, "mine.yaml: ")
    assert str(found.value).startswith(f"mine.yaml: {expected}")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "no recipe at .*expected a YAML file such as this.yaml"),
        ("a: [", "is no YAML"),
        ("", "expected keys and values, got NoneType"),
        ("- 1", "expected keys and values, got list"),
        ("source: {path: 2020-01-01}\nrate: .nan\n1: 2", "unknown key '1'|unknown key"),
    ],
)
def test_a_file_that_is_none(tmp_path, content, expected):
    path = tmp_path / "mine.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=expected):
        read_settings(Recipe, path, "this.yaml")


def test_an_old_name_is_taken_with_a_word(capsys):
    content = {"source": {"folder": "a"}, "level": 3}
    recipe = checked(Recipe, content, "mine.yaml: ", {"source.folder": "source.path", "level": "rank"})
    assert (recipe.source.path, recipe.rank) == ("a", 3)
    assert "mine.yaml: key 'folder' is called 'path' now" in capsys.readouterr().err
    assert content == {"source": {"folder": "a"}, "level": 3}
