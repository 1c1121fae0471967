"""What a batch does not take from Python: said before anything starts, in one line, with which it is."""

from pathlib import Path
from typing import Any

import pytest

import vfconvert
from vfconvert.cli.option_words import arguments_of
from vfconvert.cli.recipe import keys_of
from vfconvert.errors import ManifestError

SPATIAL = {"spatial": True}


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vfconvert.batching.running.run_batch", lambda *_, **__: pytest.fail("it has started"))


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"models": 3}, TypeError, "models: got 3, expected paths, or mappings with a model each"),
        ({"models": ["a.pt", 3]}, TypeError, "model 2: got 3, expected a path, or a mapping with a model"),
        ({"models": "-"}, ValueError, "got '-', which is standard input on the command line only"),
        ({"output": 3}, TypeError, "output: got 3, expected a path"),
        ({"options": 3}, TypeError, r"options: got 3, expected a mapping like \{"),
        (
            {"options": {"spatal": True}},
            TypeError,
            "options: got 'spatal', expected an option of a conversion; did",
        ),
        ({"options": {"model": "b.pt"}}, TypeError, "options: got 'model', expected an option of a conversion$"),
        ({"options": {"spatial": 3}}, TypeError, "options: spatial: got 3, expected True or False"),
        ({"options": {"windows": True}}, TypeError, "options: windows: got True, expected a value"),
        ({"options": {"windows": [2, 3]}}, TypeError, r"options: windows: got \[2, 3\], expected a value, or several"),
        ({"options": {"mean": [(0.5, 0.5)]}}, TypeError, r"options: mean: got \[\(0.5, 0.5\)\], expected a value, or"),
        ({"options": {"data": object()}}, TypeError, "options: data: got <object object at .*>, expected a value"),
        ({"models": {"model": "a.pt", "options": {"spatal": 1}}}, TypeError, "model 1: options: got 'spatal'"),
        ({"config": 3}, TypeError, "config: got 3, expected a path or None"),
        ({"arguments": "--spatial"}, TypeError, "arguments: got '--spatial', expected a sequence of texts"),
        ({"jobs": 0}, ValueError, "jobs: got 0, expected at least 1"),
        ({"jobs": 1.5}, TypeError, "jobs: got 1.5, expected a whole number or None"),
        ({"part": (4, 3)}, ValueError, r"part: got \(4, 3\), expected a part like \(3, 12\) or '3/12'"),
        ({"part": "3"}, ValueError, "part: got '3', expected a part like"),
        ({"part": 3}, TypeError, r"part: got 3, expected two numbers like \(3, 12\)"),
        ({"again": 1}, TypeError, "again: got 1, expected True or False"),
        ({"resume": "yes"}, TypeError, "resume: got 'yes', expected True or False"),
        ({"told": 3}, TypeError, r"told: got 3, expected a function like told\(row\)"),
    ],
)
def test_a_batch_refuses(tmp_path: Path, arguments: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=rf"^batch\(\): {said}") as raised:
        vfconvert.batch(**{"models": "a.pt", "output": tmp_path / "out", "options": SPATIAL, **arguments})
    assert type(raised.value) is error
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"models": []}, "no models: got an empty manifest"),
        ({"options": None}, "^every model: nothing to do: add --spatial"),
        ({"options": {"windows": "x", "channel": True}}, "^every model: Invalid value for '--windows': 'x' is not a"),
        ({"options": {"output": "x", **SPATIAL}}, "^--output is the batch's own, or one file for many; drop it$"),
        ({"models": {"name": "x"}}, "^model 1: field model: is missing, expected a path$"),
        ({"models": {"model": "a.pt", "nome": "x"}}, '^model 1: field "nome": got an unknown field'),
        ({"models": {"model": "a.pt", "arguments": 3}}, "^model 1: field arguments: got 3, expected a list of texts"),
        ({"models": {"model": "a.pt", "options": {"arch": "e.py:f"}}}, "^a.pt: --arch may run code, so it stands"),
        ({"models": ["a/net.pt", "a/net.pt"]}, "2 models have the name a-net; give them names in a manifest"),
        ({"config": "none.yaml"}, "^none.yaml: the recipe cannot be read"),
    ],
)
def test_a_batch_says_what_is_wrong_with_its_models(tmp_path: Path, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ManifestError, match=said):
        vfconvert.batch(**{"models": "a.pt", "output": tmp_path / "out", "options": SPATIAL, **arguments})
    assert not (tmp_path / "out").exists()


def test_a_batch_may_run_code_that_its_own_options_allow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []

    def run_batch(items: Any, *_: Any, **__: Any) -> dict[str, Any]:
        started.extend(items)
        return {item.name: None for item in items}

    monkeypatch.setattr("vfconvert.batching.running.run_batch", run_batch)
    vfconvert.batch("a.pt", tmp_path, options={**SPATIAL, "arch": "own.py:build", "trust_pickle": True})
    assert started[0].arguments == ("--spatial", "--arch", "own.py:build", "--trust-pickle")


@pytest.mark.parametrize(
    ("value", "shapes"),
    [
        ([(3, 16, 16), (1, 16, 16)], ["3,16,16", "1,16,16"]),
        (((3, 16, 16), "1,16,16"), ["3,16,16", "1,16,16"]),
        ([[3, 16, 16]], ["3,16,16"]),
        ((3, 16, 16), ["3,16,16"]),
        ("3,16,16", ["3,16,16"]),
    ],
)
def test_the_shapes_of_several_inputs_are_given_as_to_a_conversion(value: Any, shapes: list[str]) -> None:
    words = [word for shape in shapes for word in ("--input-shape", shape)]
    assert list(arguments_of({"input_shape": value}, "f()")) == words


def test_every_option_has_its_key() -> None:
    from vfconvert.cli.convert import convert

    for key, parameter in keys_of(convert).items():
        if key != "model":
            value: Any = True if getattr(parameter, "is_flag", False) else "3"
            assert arguments_of({key: value}, "f()")[0] == f"--{key}"
            assert arguments_of({key.replace("-", "_"): value}, "f()") == arguments_of({key: value}, "f()")
            assert arguments_of({str(parameter.name): value}, "f()") == arguments_of({key: value}, "f()")
