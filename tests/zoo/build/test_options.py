"""Objects from YAML and back, and what is said of wrong values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from hypergen._utils.errors import UsageError
from hypergen.zoo.build.options import (
    coerce,
    construct,
    override,
    parse_yaml,
    plain,
    plain_arguments,
    read_yaml,
)


@dataclass(frozen=True)
class Wheel:
    size: int = 1


@dataclass(frozen=True)
class SpareWheel(Wheel):
    where: Literal["boot", "roof"] = "boot"


@dataclass(frozen=True)
class Car:
    name: str
    wheel: Wheel
    doors: int = 4
    sizes: tuple[int, ...] = ()
    pair: tuple[int, float] = (1, 1.0)
    speed: float = 1.0
    fast: bool = False
    owner: str | None = None
    kind: Literal["all"] | Sequence[Sequence[int]] = "all"
    notes: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.doors < 1:
            raise UsageError("doors must be at least 1")


def test_values_come_out_as_the_annotations_say():
    car = construct(
        Car,
        {
            "name": "a",
            "wheel": {"class_path": "SpareWheel", "init_args": {"size": 3, "where": "roof"}},
            "sizes": [1, 2],
            "pair": [2, 3],
            "speed": 2,
            "doors": 4.0,
            "kind": [[1, 2], [3]],
            "notes": {"x": [1]},
        },
    )
    assert car.wheel == SpareWheel(3, "roof")
    assert car.sizes == (1, 2)
    assert car.pair == (2, 3.0)
    assert type(car.speed) is float
    assert type(car.doors) is int
    assert car.kind == [[1, 2], [3]] or car.kind == ((1, 2), (3,))
    assert car.notes == {"x": [1]}


def test_what_plain_writes_construct_reads():
    car = Car("a", SpareWheel(2, "roof"), sizes=(1, 2), owner="b", kind=((1,), (2, 3)))
    again = construct(Car, plain_arguments(car))
    assert again == car
    assert plain(car)["class_path"] == "Car"
    assert plain_arguments(again) == plain_arguments(car)


def test_a_class_without_arguments_is_its_name():
    assert construct(Car, {"name": "a", "wheel": "SpareWheel"}).wheel == SpareWheel()
    assert construct(Car, {"name": "a", "wheel": {"class_path": "Wheel"}}).wheel == Wheel()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dors": 1}, "dors: Car has no option 'dors'. Did you mean 'doors'?"),
        ({"doors": "x"}, "doors must be a whole number, not 'x'"),
        ({"doors": True}, "doors must be a whole number, not True"),
        ({"doors": 1.5}, "doors must be a whole number, not 1.5"),
        ({"doors": 0}, "doors must be at least 1"),
        ({"speed": "x"}, "speed must be a number, not 'x'"),
        ({"fast": 1}, "fast must be true or false, not 1"),
        ({"name": 3}, "name must be text, not 3"),
        ({"owner": 3}, "owner must be text, not 3"),
        ({"sizes": 3}, "sizes must be a list, not 3"),
        ({"sizes": [1, "x"]}, "sizes[1] must be a whole number, not 'x'"),
        ({"pair": [1]}, "pair must be a list of 2 values, not [1]"),
        ({"kind": "al"}, "kind must be 'all' or a list, not 'al'"),
        ({"notes": 3}, "notes must be a mapping, not 3"),
        ({"wheel": "Whel"}, "wheel: there is no 'Whel'. Did you mean 'Wheel'?"),
        ({"wheel": 3}, "wheel must be written as {class_path: NAME, init_args: {…}}, not 3"),
        ({"wheel": {"class_path": "Wheel", "init_arg": {}}}, "wheel has no 'init_arg'. Did you"),
        ({"wheel": {"class_path": "Wheel", "init_args": 3}}, "wheel.init_args must be a mapping"),
        (
            {"wheel": {"class_path": "Wheel", "init_args": {"sise": 3}}},
            "wheel.sise: Wheel has no option 'sise'. Did you mean 'size'?",
        ),
        (
            {"wheel": {"class_path": "SpareWheel", "init_args": {"where": "rof"}}},
            "wheel.where cannot be 'rof'. Did you mean 'roof'?",
        ),
    ],
)
def test_a_wrong_value_names_its_option(arguments, message):
    with pytest.raises(UsageError) as caught:
        construct(Car, {"name": "a", "wheel": "Wheel", **arguments})
    assert message in str(caught.value)


def test_a_missing_option_is_named():
    with pytest.raises(UsageError, match="Car needs the option 'wheel'"):
        construct(Car, {"name": "a"})


def test_an_object_stays_itself():
    wheel = Wheel(7)
    assert coerce(wheel, Wheel, "w") is wheel


def test_options_reach_into_classes():
    data = {"wheel": {"class_path": "Wheel", "init_args": {"size": 1}}, "doors": 2}
    override(data, ["--wheel.size", "5", "--doors=3", "--speed", "1e-3", "--sizes", "[1, 2]"])
    assert data["wheel"]["init_args"] == {"size": 5}
    assert (data["doors"], data["speed"], data["sizes"]) == (3, 1e-3, [1, 2])
    override(data, ["--wheel.init_args.size=6", "--wheel.class_path", "SpareWheel"])
    assert data["wheel"] == {"class_path": "SpareWheel", "init_args": {"size": 6}}
    bare = {"wheel": "SpareWheel"}
    override(bare, ["--wheel.size", "2"])
    assert bare["wheel"] == {"class_path": "SpareWheel", "init_args": {"size": 2}}
    new: dict[str, Any] = {}
    override(new, ["--notes.x", "-1"])
    assert new == {"notes": {"x": -1}}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["doors", "3"], "'doors' is no option: write --name value"),
        (["--doors"], "--doors needs a value"),
        (["--doors", "--speed", "1"], "--doors needs a value"),
        (["--doors.x", "1"], "--doors.x: doors has no options of its own, it is 2"),
        (["--doors", "[1"], "this is not valid YAML"),
    ],
)
def test_wrong_words_are_named(words, message):
    with pytest.raises(UsageError) as caught:
        override({"doors": 2}, words)
    assert message in str(caught.value)


def test_yaml_is_safe_and_knows_numbers():
    assert parse_yaml("[1e-3, 1e5, 2E+2, 1.5, 3, e5]") == [1e-3, 1e5, 200.0, 1.5, 3, "e5"]
    with pytest.raises(UsageError, match="not valid YAML"):
        parse_yaml("!!python/object/apply:os.system ['true']")


def test_a_bad_file_is_named(tmp_path):
    path = tmp_path / "a.yaml"
    with pytest.raises(UsageError, match=r"a\.yaml cannot be read"):
        read_yaml(path)
    path.write_text("- 1")
    with pytest.raises(UsageError, match=r"a\.yaml holds no options"):
        read_yaml(path)
    path.write_text("a: [")
    with pytest.raises(UsageError, match=r"a\.yaml: this is not valid YAML"):
        read_yaml(path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UsageError, match=r"a\.yaml cannot be read"):
        read_yaml(path)
