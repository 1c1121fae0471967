"""Fields that specs got later: they come back from a file, and files of before, which lack them, still read."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import vfconvert
from tests.recipes.helpers import Small, header_of, retold, write
from vfconvert.errors import IllegalSpecError, TruncatedModelError
from vfconvert.nn import VersatileConv2d
from vfconvert.ops.crops import crops_and_levels
from vfconvert.specs import ConvGeometry, VersatileSpec

ADDED = ("group_primaries", "whole_window")


def with_spec(original: Small, **fields: object) -> nn.Module:
    """The network with its block versatile, random rows included."""
    model = copy.deepcopy(original)
    crops, levels = crops_and_levels((3, 3))
    spec = VersatileSpec(crops=crops, levels=levels, windows=2, channel_stride=4, **fields)  # type: ignore[arg-type]
    layer = VersatileConv2d(ConvGeometry.of(model.block[0]), spec)
    layer.rows.copy_(layer.rows[torch.randperm(len(layer.rows))])
    model.block[0] = layer
    return model.eval()


@pytest.mark.parametrize(
    "fields",
    [
        {"group_primaries": 8},
        {"group_primaries": 20},
        {"whole_window": True},
        dict(zip(ADDED, (13, True), strict=True)),
    ],
    ids=["fewest", "more", "whole", "both"],
)
@pytest.mark.parametrize("variant", [None, "segments", "full", "separate", "plain"])
def test_spec_comes_back(original: Small, tmp_path: Path, fields: dict[str, object], variant: str | None) -> None:
    model, images = with_spec(original, **fields), torch.randn(2, 3, 16, 16)
    path = write(model, tmp_path / "m.safetensors", variants={} if variant is None else {"block.0": variant})
    again = vfconvert.load(path, like=original)
    assert again.block[0].spec == model.block[0].spec
    assert again.block[0].weight.shape[0] == fields.get("group_primaries", 8)
    with torch.no_grad():
        wanted = model(images)
        assert torch.equal(again(images), wanted)
        lowered = vfconvert.load(path, like=original, lowered=True, example=images)(images)
    assert (lowered - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def without(*fields: str):
    def change(recipe: dict) -> None:
        for name in fields:
            del recipe["layers"][0]["spec"][name]

    return change


@pytest.mark.parametrize("gone", [ADDED, ADDED[:1], ADDED[1:]], ids=["both", "primaries", "whole"])
def test_recipe_without_the_fields_reads(original: Small, tmp_path: Path, gone: tuple[str, ...]) -> None:
    model, images = with_spec(original), torch.randn(2, 3, 16, 16)
    stored = write(model, tmp_path / "m.safetensors")
    assert all(name in str(header_of(stored)[0]) for name in ADDED)
    old = retold(stored, tmp_path / "old.safetensors", without(*gone))
    assert not any(name in str(header_of(old)[0]) for name in gone)
    with torch.no_grad():
        assert torch.equal(vfconvert.load(old, like=original)(images), model(images))


def test_recipe_without_an_older_field_is_refused(original: Small, tmp_path: Path) -> None:
    stored = write(with_spec(original), tmp_path / "m.safetensors")
    with pytest.raises(TruncatedModelError, match="has no 'windows'"):
        vfconvert.load(retold(stored, tmp_path / "old.safetensors", without("windows")), like=original)


@pytest.mark.parametrize("primaries", [7, 33])
def test_number_of_primaries_that_no_layer_can_have_is_refused(original: Small, tmp_path: Path, primaries: int) -> None:
    stored = write(with_spec(original, group_primaries=8), tmp_path / "m.safetensors")
    wrong = retold(
        stored, tmp_path / "w.safetensors", lambda r: r["layers"][0]["spec"].update(group_primaries=primaries)
    )
    with pytest.raises(IllegalSpecError, match=f"primary filters of a group: got {primaries}, expected 8 to 32"):
        vfconvert.load(wrong, like=original)
