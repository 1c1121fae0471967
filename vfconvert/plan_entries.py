"""One layer of a plan file: a decision as an object of JSON, and such an object, written by hand perhaps, checked."""

from __future__ import annotations

from typing import Any

from vfconvert.errors import IllegalSpecError
from vfconvert.json_fields import Checked, is_line, is_number, shown
from vfconvert.ledger import FLAGS
from vfconvert.ops.crops import CROP_FAMILIES, Crops, crops_and_levels, full_crop
from vfconvert.planning import Convert, Decision, Keep, no_gain
from vfconvert.specs import ConvGeometry, Crop, VersatileSpec

_CONVERTED = ("layer", "shape", "decision", "kind", "crops", "levels", "windows", "channel_stride", "primaries")
FIELDS = {"convert": (*_CONVERTED, "whole_window"), "keep": ("layer", "shape", "decision", "code", "reason")}
UNSAID = "plan", "the plan keeps it"  # code and reason of a layer that is kept without any
_KIND_BY = {  # what makes the kind of a converted layer, which is a word for people
    "spatial": 'crops other than "none" and "lines", and windows 1',
    "lines": 'crops "lines" and windows 1',
    "channel": 'crops "none" and windows from 2 on, which overlap',
    "group": 'crops "none" and windows from 2 on, which share no channel',
    "both": 'crops other than "none" and windows from 2 on',
}


def shape_of(geometry: ConvGeometry) -> str:
    """A layer's channels, kernel, and what else is not as usual: `64->128 3x3 /2`, `8->8 1x3 groups 8`."""
    (kh, kw), (down, right) = geometry.kernel_size, geometry.stride
    text = f"{geometry.in_channels}->{geometry.out_channels} {kh}x{kw}"
    if (down, right) != (1, 1):
        text += f" /{down}" if down == right else f" /{down}x{right}"
    if geometry.dilation != (1, 1):
        text += f" dilation {geometry.dilation[0]}x{geometry.dilation[1]}"
    return text if geometry.groups == 1 else f"{text} groups {geometry.groups}"


def entry_of(decision: Decision) -> dict[str, Any]:
    """What the file says of one layer, its fields in their order."""
    entry: dict[str, Any] = {"layer": decision.layer, "shape": shape_of(decision.geometry)}
    if isinstance(decision, Keep):
        return {**entry, "decision": "keep", "code": decision.code, "reason": decision.reason}
    spec, geometry = decision.spec, decision.geometry
    crops = next((name for name in ("none", *CROP_FAMILIES) if _named(geometry, name) == (spec.crops, spec.levels)), "")
    entry |= {"decision": "convert", "kind": _kind(spec, geometry, crops)}
    if crops:
        entry["crops"] = crops
    else:
        entry["crops"] = [[crop.top, crop.bottom, crop.left, crop.right] for crop in spec.crops]
        entry["levels"] = [list(level) for level in spec.levels]
    return {
        **entry,
        "windows": spec.windows,
        "channel_stride": spec.channel_stride,
        "primaries": spec.group_primaries,
        "whole_window": spec.whole_window,
    }


def _named(geometry: ConvGeometry, name: str) -> Crops:
    if name == "none":
        return full_crop(geometry.kernel_size)
    return crops_and_levels(geometry.kernel_size, name)


def _kind(spec: VersatileSpec, geometry: ConvGeometry, crops: object) -> str:
    """A word for people: how outputs share filters. `crops` is what the file says: a name, or anything else."""
    if spec.windows == 1:
        return "lines" if crops == "lines" else "spatial"
    if crops != "none":
        return "both"
    return "group" if spec.is_group_convolution(geometry) else "channel"


def decision_of(entry: Checked, geometry: ConvGeometry, norm: str | None, refused: str | None) -> Decision | None:
    """The decision that an entry states, None where something about it is wrong (`entry.errors` says what).

    `refused`: the reason for which this layer cannot be converted whatever the plan says.
    """
    name, before = entry.given["layer"], len(entry.errors)
    shape = shape_of(geometry)
    entry.read("shape", shape, lambda value: bool(value == shape), f"{shown(shape)}, as the network has it")
    decided = entry.given.get("decision")
    if decided not in ("convert", "keep"):
        got = shown(decided) if "decision" in entry.given else "none"
        entry.wrong("decision", f'got {got}, expected "convert" or "keep"')
        return None
    # A layer that is kept may have the fields of its conversion still: "keep" is then the only word to change.
    entry.only(FIELDS[decided], FIELDS["convert"] if decided == "keep" else ())
    if decided == "keep":
        code = entry.read("code", UNSAID[0], _is_code, f"one of {', '.join(sorted(FLAGS))}")
        reason = entry.read("reason", UNSAID[1], is_line, "a printable text")
        return Keep(layer=name, geometry=geometry, code=code, reason=reason) if len(entry.errors) == before else None
    if refused is not None:
        entry.wrong("decision", f'got "convert", expected "keep": {refused}')
    spec = _spec_of(entry, geometry)
    if spec is not None and len(entry.errors) == before:
        reason = no_gain(geometry, spec, channel=True, norm=norm is not None)
        if reason is None:
            return Convert(layer=name, geometry=geometry, spec=spec, norm=norm)
        entry.wrong("decision", f'got "convert", expected "keep": {reason[1]}')
    return None


def _is_code(value: object) -> bool:
    return isinstance(value, str) and value in FLAGS


def _spec_of(entry: Checked, geometry: ConvGeometry) -> VersatileSpec | None:
    before = len(entry.own)
    crops, levels = _crops_of(entry, geometry)
    windows = entry.read("windows", 1, is_number, "a whole number")
    stride = entry.read("channel_stride", 0, is_number, "a whole number")
    primaries = entry.read("primaries", None, lambda v: v is None or is_number(v), "a whole number or null")
    whole = entry.read("whole_window", False, lambda v: isinstance(v, bool), "true or false")
    if len(entry.own) > before:
        return None
    full = _named(geometry, "none")
    _legal(entry, "crops", VersatileSpec(crops=crops, levels=levels), geometry)
    windowed = VersatileSpec(crops=full[0], levels=full[1], windows=windows, channel_stride=stride)
    _legal(entry, "channel_stride" if windows >= 1 else "windows", windowed, geometry)
    if len(entry.own) == before:
        spec = VersatileSpec(
            crops=crops, levels=levels, windows=windows, channel_stride=stride, group_primaries=primaries
        )
        _legal(entry, "primaries", spec, geometry)
    if whole and windows < 2:
        entry.wrong("whole_window", "got true, expected false where there are not at least 2 windows")
    if len(entry.own) > before:
        return None
    spec = VersatileSpec(
        crops=crops,
        levels=levels,
        windows=windows,
        channel_stride=stride,
        group_primaries=primaries,
        whole_window=whole,
    )
    kind = _kind(spec, geometry, entry.given.get("crops", "none"))
    said = entry.given.get("kind")
    how = f"; {shown(said)} takes {_KIND_BY[said]}" if isinstance(said, str) and said in _KIND_BY else ""
    expected = f"{shown(kind)}, as the other fields say; change it too, or leave it out{how}"
    entry.read("kind", kind, lambda value: bool(value == kind), expected)
    return spec


def _crops_of(entry: Checked, geometry: ConvGeometry) -> Crops:
    """The crops by their name, or as lists together with the levels."""
    names = ("none", *CROP_FAMILIES)
    if not isinstance(entry.given.get("crops"), list):
        expected = f"one of {', '.join(names)}, or a list of [top, bottom, left, right]"
        name = entry.read("crops", "none", lambda value: value in names, expected)
        if "levels" in entry.given:
            entry.wrong("levels", "got a value, expected none, since the crops have a name")
        return _named(geometry, name)
    crops = entry.read("crops", [], lambda v: _are_numbers(v, 4), "a list of [top, bottom, left, right]")
    levels = entry.read("levels", [], _are_numbers, "a list of lists of indices of crops")
    if "levels" not in entry.given:
        entry.wrong("levels", "got none, expected a list of lists of indices of crops, since the crops are a list")
    return tuple(Crop(*crop) for crop in crops), tuple(tuple(level) for level in levels)


def _are_numbers(value: object, length: int | None = None) -> bool:
    """A list of lists of whole numbers, each list of this length."""
    return isinstance(value, list) and all(
        isinstance(row, list) and length in (None, len(row)) and all(map(is_number, row)) for row in value
    )


def _legal(entry: Checked, name: str, spec: VersatileSpec, geometry: ConvGeometry) -> None:
    try:
        spec.check(geometry)
    except IllegalSpecError as error:
        said = str(error)
        entry.wrong(name, said[said.index("got ") :] if ": got " in said else said)
