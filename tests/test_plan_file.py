"""Plans as files: exact round trips, the same bytes for the same plan, and layers written by hand."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plan_files import SHA, Layers, edited, network, planned, read, saved
from vfconvert.errors import UnwritableOutputError
from vfconvert.json_fields import Checked, JsonObject
from vfconvert.ops.crops import crops_and_levels
from vfconvert.plan_entries import decision_of, entry_of, shape_of
from vfconvert.plan_file import write_plan
from vfconvert.planning import Convert, Keep, Wish
from vfconvert.specs import ConvGeometry, Crop, VersatileSpec


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return saved(tmp_path)


@pytest.mark.parametrize(
    "wish",
    [Wish(), Wish(crops="lines"), Wish(spatial=False, channel=True), Wish(channel=True, channel_stride=0.5)],
    ids=["squares", "lines", "windows", "both"],
)
def test_plan_comes_back_as_it_was(wish: Wish, tmp_path: Path) -> None:
    write_plan(planned(wish), tmp_path / "p.json", source_sha256=SHA)
    assert read(tmp_path / "p.json") == planned(wish)


def test_meta_plans_that_differ_are_unequal(tmp_path: Path) -> None:
    write_plan(planned(Wish()), tmp_path / "p.json", source_sha256=SHA)
    assert read(tmp_path / "p.json") != planned(Wish(crops="lines"))


GEOMETRY = ConvGeometry(in_channels=24, out_channels=48, kernel_size=(3, 5), stride=(2, 1), groups=2, dilation=(1, 2))
CROPS = st.one_of(
    st.sampled_from([crops_and_levels((3, 5), family) for family in ("squares", "lines")]),
    st.just(((Crop(0, 3, 0, 5),), ((0,),))),
    st.lists(st.sampled_from([Crop(0, 3, 0, 5), Crop(1, 2, 0, 5), Crop(0, 3, 1, 2)]), min_size=1, max_size=3).map(
        lambda crops: (tuple(crops), tuple((index,) for index in range(len(crops))))
    ),
)


@settings(max_examples=150, deadline=None)
@given(CROPS, st.integers(1, 4), st.integers(1, 3), st.sampled_from([None, 12, 16, 20]), st.booleans())
def test_every_spec_comes_back_as_it_was(crops, windows, stride, primaries, whole) -> None:
    spec = VersatileSpec(
        crops=crops[0],
        levels=crops[1],
        windows=windows,
        channel_stride=stride if windows > 1 else 0,
        group_primaries=primaries if len(crops[1]) * windows > 1 else None,
        whole_window=whole and windows > 1,
    )
    spec.check(GEOMETRY)
    decision = Convert(layer="a", geometry=GEOMETRY, spec=spec, norm="b")
    given_entry = json.loads(json.dumps(entry_of(decision)), object_pairs_hook=JsonObject)
    errors: list[str] = []
    back = decision_of(Checked("", given_entry, errors), GEOMETRY, "b", None)
    if len(crops[1]) * windows == 1:  # one full filter for each output saves nothing
        assert len(errors) == 1
        assert 'expected "keep"' in errors[0]
    else:
        assert (back, errors) == (decision, [])


def test_same_plan_is_the_same_bytes_one_line_a_layer(path: Path, tmp_path: Path) -> None:
    write_plan(read(path), tmp_path / "again.json", source_sha256=SHA)
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    lines = path.read_text().splitlines()
    assert lines[:4] == ["{", '  "schema_version": 1,', lines[2], f'  "source_sha256": "{SHA}",']
    assert [json.loads(line.rstrip(","))["layer"] for line in lines if "decision" in line] == ["0", "1", "3", "4"]


def test_another_decision_is_one_other_line(path: Path, tmp_path: Path) -> None:
    write_plan(planned(Wish(channel=True, channel_stride=0.125)), tmp_path / "other.json", source_sha256=SHA)
    pairs = zip(path.read_text().splitlines(), (tmp_path / "other.json").read_text().splitlines(), strict=True)
    assert [json.loads(a.rstrip(","))["layer"] for a, b in pairs if a != b] == ["1", "3"]


@pytest.mark.parametrize(
    ("geometry", "text"),
    [
        (GEOMETRY, "24->48 3x5 /2x1 dilation 1x2 groups 2"),
        (ConvGeometry(in_channels=64, out_channels=128, kernel_size=(3, 3), stride=(2, 2)), "64->128 3x3 /2"),
    ],
)
def test_shape_is_a_text_for_people(geometry: ConvGeometry, text: str) -> None:
    assert shape_of(geometry) == text


def test_layers_by_hand(path: Path) -> None:
    by_hand = {"schema_version": 1, "layers": [{"layer": "1", "decision": "convert", "crops": "lines"}]}
    path.write_text(json.dumps(by_hand))
    plan = read(path)
    assert [(c.layer, c.norm, c.spec) for c in plan.converted] == [("1", "2", _lines())]
    assert [(keep.layer, keep.code) for keep in plan.kept] == [(name, "not-in-plan") for name in ("0", "3", "4")]


def _lines() -> VersatileSpec:
    crops, levels = crops_and_levels((3, 3), "lines")
    return VersatileSpec(crops=crops, levels=levels)


def test_first_convolution_is_converted_where_the_plan_says_so(path: Path) -> None:
    made = edited(
        path, lambda layers: layers["top"].update(layers=[{"layer": "0", "decision": "convert", "crops": "squares"}])
    )
    assert [c.layer for c in read(made).converted] == ["0"]


def test_kept_layer_has_the_reason_of_the_file(path: Path) -> None:
    made = edited(path, lambda layers: layers["0"].update(code="excluded", reason="as it is"))
    assert read(made).decisions[0] == Keep(
        layer="0",
        geometry=ConvGeometry.of(network()[0]),
        code="excluded",
        reason="as it is",  # type: ignore[arg-type]
    )


def test_layer_kept_without_a_reason_is_kept_by_the_plan(path: Path) -> None:
    made = edited(path, lambda layers: [layers["0"].pop(name) for name in ("code", "reason", "shape")])
    kept = read(made).kept[0]
    assert (kept.layer, kept.code, kept.reason) == ("0", "plan", "the plan keeps it")


def test_keep_is_the_only_word_to_change(path: Path) -> None:
    plan = read(edited(path, lambda layers: layers["1"].update(decision="keep")))
    assert [decision.layer for decision in plan.converted] == ["3"]
    assert (plan.decisions[1].layer, plan.decisions[1].code) == ("1", "plan")


def test_other_crops_need_no_kind(path: Path) -> None:
    def change(layers: Layers) -> None:
        layers["1"].update(crops="lines", windows=1, channel_stride=0, primaries=None, whole_window=False)
        layers["1"].pop("kind")

    assert read(edited(path, change)).converted[0].spec == _lines()


def test_other_weights_are_no_error(path: Path) -> None:
    assert read(edited(path, lambda layers: layers["top"].update(source_sha256="f" * 64))) == planned()


def test_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(UnwritableOutputError, match="does not exist"):
        write_plan(planned(), tmp_path / "none" / "p.json", source_sha256=SHA)
    assert list(tmp_path.iterdir()) == []
