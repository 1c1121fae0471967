"""Plan files that are wrong: every error names the layer and the field, all are said at once, none is a traceback."""

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from tests.plan_files import Layers, edited, network, read, saved
from vfconvert import json_fields
from vfconvert.errors import NoConvolutionError, NothingEligibleError, PlanFileError
from vfconvert.plan_file import MOST_BYTES


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return saved(tmp_path)


CASES: dict[str, tuple[Callable[[Layers], object], str]] = {
    "unknown layer": (lambda f: f["1"].update(layer="11"), r'layer "11", field layer: .*one of 4; did you mean "1"\?'),
    "twice": (lambda f: f["0"].update(layer="1"), 'layer "1", field layer: got it twice, expected one entry'),
    "no name": (lambda f: f["0"].pop("layer"), "entry 1, field layer: got none, expected the name"),
    "name of a wrong type": (lambda f: f["0"].update(layer=3), "entry 1, field layer: got 3, expected the name"),
    "shape": (
        lambda f: f["1"].update(shape="8->16 5x5 /2"),
        'field shape: got "8->16 5x5 /2", expected "8->16 3x3 /2"',
    ),
    "unknown field": (lambda f: f["1"].update(windws=2), r'field "windws": got an unknown .*mean "windows"\?'),
    "field of the other kind": (lambda f: f["1"].update(code="x"), 'layer "1", field "code": got an unknown field'),
    "unknown field above": (lambda f: f["top"].update(layer=[]), r'field "layer": got an unknown .*mean "layers"\?'),
    "no decision": (lambda f: f["1"].pop("decision"), 'field decision: got none, expected "convert" or "keep"'),
    "other decision": (lambda f: f["1"].update(decision="drop"), 'field decision: got "drop", expected "convert"'),
    "windows of a wrong type": (lambda f: f["1"].update(windows=True), "field windows: got true, expected a whole"),
    "windows of a share": (lambda f: f["1"].update(windows=2.0), "field windows: got 2.0, expected a whole number"),
    "no windows": (lambda f: f["1"].update(windows=0), "field windows: got 0, expected at least 1"),
    "stride": (lambda f: f["1"].update(channel_stride=5), r'"1", field channel_stride: got 5, expected 1 to 4'),
    "few primaries": (lambda f: f["1"].update(primaries=3), r'"1", field primaries: got 3, expected 4 to 16'),
    "many primaries": (lambda f: f["1"].update(primaries=17), r"field primaries: got 17, expected 4 to 16"),
    "whole window": (lambda f: f["1"].update(windows=1, whole_window=True), "field whole_window: got true, expected f"),
    "kind": (
        lambda f: f["1"].update(kind="lines"),
        'field kind: got "lines", expected "both", as the other fields say; change it too, or leave it out; "lines" '
        'takes crops "lines" and windows 1',
    ),
    "kind that nobody knows": (
        lambda f: f["1"].update(kind="circles"),
        'field kind: got "circles", expected "both", as the other fields say; change it too, or leave it out$',
    ),
    "kind of a wrong type": (lambda f: f["1"].update(kind=["lines"]), r'field kind: got \["lines"\], expected "both"'),
    "crops without their kind": (
        lambda f: f["1"].update(windows=1, channel_stride=0, primaries=None, crops="lines"),
        'field kind: got "both", expected "lines", as the other fields say; change it too, or leave it out; "both" ',
    ),
    "unknown field of a layer that is kept": (
        lambda f: f["1"].update(decision="keep", windws=2),
        r'field "windws": got an unknown field, expected layer, shape, decision, code, reason; did you mean',
    ),
    "crops": (lambda f: f["1"].update(crops="circles"), 'field crops: got "circles", expected one of none, squares, l'),
    "crops outside": (
        lambda f: f["1"].update(crops=[[0, 4, 0, 3]], levels=[[0]]),
        "field crops: crop 4x3 lies outside a kernel of 3x3",
    ),
    "crops of three": (lambda f: f["1"].update(crops=[[0, 3, 0]], levels=[[0]]), r"field crops: got \[\[0, 3, 0\]\]"),
    "crops without levels": (lambda f: f["1"].update(crops=[[0, 3, 0, 3]]), "field levels: got none, expected a list"),
    "levels of a name": (lambda f: f["1"].update(levels=[[0]]), "field levels: got a value, expected none"),
    "decision turned round alone": (
        lambda f: f["4"].update(decision="convert", windows=2, channel_stride=1),
        'layer "4", field "code"',
    ),
    "one output a group": (
        lambda f: f["top"].update(layers=[{"layer": "4", "decision": "convert", "crops": "squares"}]),
        'layer "4", field decision: got "convert", expected "keep": each of the 8 groups has one output',
    ),
    "saves nothing": (
        lambda f: f["3"].update(windows=1, channel_stride=0, kind="spatial"),
        'layer "3", field decision: got "convert", expected "keep": a 1x1 kernel',
    ),
    "code that nobody knows": (
        lambda f: f["0"].update(code="mine"),
        'field code: got "mine", expected one of budget, ',
    ),
    "code of a wrong type": (lambda f: f["0"].update(code=["first"]), r'field code: got \["first"\], expected one of'),
    "reason with a control character": (lambda f: f["0"].update(reason="\x1b[2J"), r'reason: got "\\u001b\[2J"'),
    "layers of a wrong type": (lambda f: f["top"].update(layers={}), "field layers: got {}, expected a list"),
    "no layers": (lambda f: f["top"].pop("layers"), "field layers: got none, expected a list"),
    "entry of a wrong type": (lambda f: f["top"].update(layers=[["1"]]), r'entry 1: got \["1"\], expected an object'),
    "schema": (lambda f: f["top"].update(schema_version=2), "field schema_version: got 2, expected 1"),
    "schema that is no number": (lambda f: f["top"].update(schema_version=True), "schema_version: got true, expected"),
    "no schema": (lambda f: f["top"].pop("schema_version"), "field schema_version: got none, expected 1"),
}


@pytest.mark.parametrize("case", CASES)
def test_error_names_the_layer_and_the_field(case: str, path: Path) -> None:
    how, said = CASES[case]
    made = edited(path, how)
    with pytest.raises(PlanFileError, match=said) as caught:
        read(made)
    assert str(caught.value).startswith(f"{made}: ")
    assert "\n" not in str(caught.value)


def test_every_error_is_said_at_once(path: Path) -> None:
    def spoil(layers: Layers) -> None:
        layers["0"].update(shape="1->1 1x1")
        layers["1"].update(channel_stride=9, crops=[[0, 9, 0, 9]], levels=[[0]], kind="both")
        layers["3"].update(layer="five")
        layers["4"].update(decison="keep")

    with pytest.raises(PlanFileError, match="5 errors in the plan: ") as caught:
        read(edited(path, spoil))
    for part in ("field shape", "field channel_stride", "field crops", 'layer "five"', 'field "decison"'):
        assert str(caught.value).count(part) == 1


def test_many_errors_are_counted_not_listed(path: Path) -> None:
    entries = [{"layer": f"x{index}"} for index in range(1000)]
    with pytest.raises(PlanFileError, match=r"1000 errors .*; and 900 more$"):
        read(edited(path, lambda layers: layers["top"].update(layers=entries)))


def test_a_name_is_suggested_only_in_errors_that_are_listed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    find = json_fields.get_close_matches
    monkeypatch.setattr(json_fields, "get_close_matches", lambda *given, **how: calls.append(1) or find(*given, **how))
    entries = [{"layer": f"x{index}"} for index in range(200_000)]
    with pytest.raises(PlanFileError, match=r"200000 errors .*; and 199900 more$"):
        read(edited(path, lambda layers: layers["top"].update(layers=entries)))
    assert len(calls) == 100
    calls.clear()
    fields = {f"x{index}": 0 for index in range(5000)}
    with pytest.raises(PlanFileError, match=r"5000 errors .*; and 4900 more$"):
        read(edited(saved(path.parent), lambda layers: layers["top"].update(fields)))
    assert len(calls) == 100


def test_rule_against_a_layer_is_the_reason(path: Path) -> None:
    path.write_text('{"schema_version": 1, "layers": [{"layer": "1", "decision": "convert", "crops": "squares"}]}')
    model = network()
    model[1].register_forward_hook(lambda module, inputs, output: output)
    with pytest.raises(
        PlanFileError, match='"1", field decision: got "convert", expected "keep": it has a forward hoo'
    ):
        read(path, model)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{\n"layers": [,]}', "line 2, column 12: expecting value"),
        (b"\xff{}", "byte 0: got no UTF-8 text"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[1]", r"got \[1\], expected a plan"),
        (b'{"schema_version": NaN}', "schema_version: got NaN"),
        (b'{"schema_version": ' + b"9" * 9999 + b"}", "schema_version: got Infinity"),
        (b'{"schema_version": 1, "layers": [], "layers": []}', '"layers": got it more than once'),
        (b" " * (MOST_BYTES + 1), "got more than 16,777,216 bytes"),
        (b"", "line 1, column 1"),
    ],
    ids=["syntax", "bytes", "nested", "list", "nan", "huge", "repeated", "large", "empty"],
)
def test_file_that_is_no_plan_is_refused(path: Path, text: bytes, said: str) -> None:
    path.write_bytes(text)
    with pytest.raises(PlanFileError, match=said):
        read(path)


@pytest.mark.parametrize(("name", "said"), [("none.json", "no such file"), (".", "no regular file"), ("a\0", "null")])
def test_path_that_cannot_be_read_is_refused(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(PlanFileError, match=said):
        read(tmp_path / name)


def test_plan_that_converts_nothing_is_refused(path: Path) -> None:
    path.write_text('{"schema_version": 1, "layers": []}')
    with pytest.raises(NothingEligibleError, match=r"none of the 4 .*not-in-plan: 4"):
        read(path)


def test_network_without_convolution_is_refused(path: Path) -> None:
    with pytest.raises(NoConvolutionError, match="has no Conv2d layer"):
        read(path, nn.Sequential(nn.Flatten(), nn.Linear(768, 2)).eval())
