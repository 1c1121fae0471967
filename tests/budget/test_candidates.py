"""What a layer could become: legal throughout, named for what it is, with numbers of primaries that make sense."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.nn.strategies import geometries
from vfconvert.budget.candidates import KINDS, Family, families_of
from vfconvert.specs import ConvGeometry, VersatileSpec


def geometry(inputs: int = 16, outputs: int = 32, kernel: int = 3, groups: int = 1) -> ConvGeometry:
    return ConvGeometry(in_channels=inputs, out_channels=outputs, kernel_size=(kernel, kernel), groups=groups)


def with_primaries(family: Family, count: int) -> VersatileSpec:
    return replace(family.spec, group_primaries=count)


@st.composite
def layers(draw: st.DrawFn) -> ConvGeometry:
    """Layers of usual numbers of channels, 1x1 to 5x5."""
    groups = draw(st.sampled_from([1, 2, 4]))
    return ConvGeometry(
        in_channels=groups * draw(st.sampled_from([1, 2, 3, 8, 16, 24, 64, 100, 256])),
        out_channels=groups * draw(st.sampled_from([1, 2, 3, 8, 32, 64, 96])),
        kernel_size=draw(st.sampled_from([(1, 1), (3, 3), (1, 5), (5, 5), (2, 2)])),
        groups=groups,
    )


@settings(max_examples=150)
@given(geometries() | layers())
def test_every_candidate_is_legal(layer: ConvGeometry) -> None:
    for family in families_of(layer):
        assert family.kind in KINDS
        family.spec.check(layer)
        assert family.spec.outputs_per_primary > 1
        assert family.spec.group_primaries is None
        assert family.primaries[0] == family.spec.fewest_primaries(layer)
        assert list(family.primaries) == sorted(set(family.primaries))
        for count in family.primaries:
            with_primaries(family, count).check(layer)
            assert count < layer.group_outputs or len(family.primaries) == 1  # as many as outputs save nothing


@settings(max_examples=100)
@given(layers())
def test_kinds_say_what_families_are(layer: ConvGeometry) -> None:
    found = families_of(layer)
    for family in found:
        spec, crops = family.spec, len(family.spec.levels) > 1
        assert crops == (family.kind in ("spatial", "lines", "both"))
        assert (spec.windows > 1) == (family.kind in ("channel", "group", "both"))
        assert (len(spec.crops) > len(spec.levels)) == (family.kind == "lines")
        assert spec.is_group_convolution(layer) == (family.kind == "group")
        assert spec.whole_window == (family.kind in ("channel", "both"))
        if family.kind == "group":
            assert family.primaries == (spec.fewest_primaries(layer),)
        else:
            assert spec.windows == 1 or spec.windows * spec.channel_stride < layer.group_inputs
    assert len({(family.kind, family.spec) for family in found}) == len(found)


def strides(layer: ConvGeometry, kind: str, windows: int) -> list[int]:
    return [f.spec.channel_stride for f in families_of(layer) if (f.kind, f.spec.windows) == (kind, windows)]


def test_strides_are_shares_of_the_channels() -> None:
    assert strides(geometry(64), "channel", 2) == [4, 8, 16]
    assert strides(geometry(64), "both", 2) == [4, 8, 16]
    assert strides(geometry(64), "group", 2) == [32]
    assert strides(geometry(48), "channel", 3) == [3, 6, 12]
    assert strides(geometry(48), "group", 3) == [16]
    assert strides(geometry(64), "group", 3) == []  # not whole
    assert strides(geometry(64), "channel", 4) == [4, 8]
    assert strides(geometry(64), "group", 4) == [16]
    assert strides(geometry(64, groups=4), "channel", 2) == [1, 2, 4]
    assert strides(geometry(7), "channel", 2) == []


def test_large_layers_are_tried_in_fewer_ways() -> None:
    assert strides(geometry(256), "channel", 2) == [64]  # 2,304 unfolded inputs
    assert strides(geometry(256, kernel=1), "channel", 2) == [16, 32, 64]


@pytest.mark.parametrize(
    "layer",
    [geometry(1, 8, 1), geometry(1, 8, 2), geometry(8, 8, 1, groups=8), geometry(7, 8, 1), geometry(7, 8, 2)],
    ids=["1x1 of one channel", "2x2 of one channel", "depthwise 1x1", "1x1 of 7 channels", "2x2 of 7 channels"],
)
def test_layer_that_cannot_share_has_no_family(layer: ConvGeometry) -> None:
    assert families_of(layer) == ()


def test_layer_of_one_channel_is_cropped_only() -> None:
    assert [family.kind for family in families_of(geometry(1, 8))] == ["spatial", "lines"]


def test_kernel_that_is_a_line_has_no_lines_besides() -> None:
    line = ConvGeometry(in_channels=7, out_channels=8, kernel_size=(1, 5))
    assert [family.kind for family in families_of(line)] == ["spatial"]


def test_numbers_of_primaries_are_rounded_to_what_runtimes_like() -> None:
    by_kind = {f.kind: f.primaries for f in families_of(geometry(16, 64)) if f.spec.windows in (1, 2)}
    assert by_kind == {
        "spatial": (32, 40, 48, 56),
        "lines": (32, 40, 48, 56),
        "channel": (32, 40, 48, 56),
        "group": (32,),
        "both": (16, 32, 40, 56),
    }
    of_three = [f.primaries for f in families_of(geometry(48, 64)) if f.spec.windows == 3 and f.kind == "channel"]
    assert of_three == [(22, 40)] * 3
    assert families_of(geometry(16, 6))[0].primaries == (3, 4)
