"""The keywords of the Python front door: which a call has, how they are read, and which say nothing together."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from vfconvert.combinations import TRAINING_PREFIX, wrong_combination
from vfconvert.keyword_values import read_limits, read_named, read_value, shown
from vfconvert.options import ConversionOptions
from vfconvert.overrides import Override, read_override
from vfconvert.readers import SEEDS
from vfconvert.targets import Target, read_target
from vfconvert.training_options import TrainingOptions

Found = TypeVar("Found")

# As the command line has them; other bounds are checked later.
_LEAST = {"max_drop": 0, "refine": 0, "threads": 1, "calibration_images": 1, "seed": SEEDS[0]}
_MOST = {"seed": SEEDS[1]}
_EXPECTED = {"plan": "a path, a NetworkPlan"}
_PARTS = (ConversionOptions, TrainingOptions)
# What `convert` has under another name or not at all, and where it is.
_COMMAND = "the command line has it"
_ELSEWHERE = {
    **dict.fromkeys(("formats", "output", "dynamic_size", "opset"), "Conversion.export says how a file is written"),
    **dict.fromkeys(("precision", "int8"), 'Conversion.export writes in other precisions, by precision="fp16", "int8"'),
    **dict.fromkeys(("fail_under_saving", "fail_over_drop", "max_latency_ratio"), "Conversion.check judges"),
    **dict.fromkeys(("max_parity_error", "max_size", "keep_on_fail"), "Conversion.check judges"),
    **dict.fromkeys(("reports",), "Conversion.save_report writes them"),
    **dict.fromkeys(("dry_run",), "vfconvert.plan tells what a conversion would do"),
    **dict.fromkeys(("samples", "junit", "trust_data_code"), _COMMAND),
    **dict.fromkeys(("training",), "every field of TrainingOptions is one"),
}
_NAMED = ("model", "data", "layers", "targets", "command")  # arguments of their own, and the name of the call
KEYWORDS = tuple(
    field.name
    for part in _PARTS
    for field in dataclasses.fields(part)
    if field.name not in _NAMED and field.name not in _ELSEWHERE
)
KINDS = {field.name: str(field.type) for part in reversed(_PARTS) for field in dataclasses.fields(part)}
_DEFAULTS = {part: {field.name: field.default for field in dataclasses.fields(part)} for part in _PARTS}


@dataclass(frozen=True, kw_only=True)
class Call:
    """A function of the front door: its name, its settings by keyword, and where others are."""

    name: str
    keywords: tuple[str, ...]
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    def where(self, setting: str) -> str:
        """Where what is no setting of it is instead."""
        if setting in self.elsewhere:
            return self.elsewhere[setting]
        nearest = difflib.get_close_matches(setting, self.keywords, n=1)
        return f"the nearest is {nearest[0]!r}" if nearest else "the page From Python has all of them"


CONVERT = Call(name="convert", keywords=KEYWORDS, elsewhere=_ELSEWHERE)
_READING = ("size", "mean", "std", "preset", "input_shape", "calibration_images", "target_data")
_LOADING = ("arch", "arch_args", "trust_pickle", "seed", "device", "threads", "costs")
_CHOOSING = ("spatial", "channel", "crops", "linear", "include", "exclude", "include_first", "damage_cache")
_KEEPING = ("windows", "channel_stride", "plan", "save_plan")


def _part_of_convert(name: str, keywords: tuple[str, ...], **elsewhere: str) -> Call:
    others = {other: "vfconvert.convert has it" for other in (*KEYWORDS, *_NAMED, *_ELSEWHERE) if other not in keywords}
    return Call(name=name, keywords=keywords, elsewhere=others | elsewhere)


INSPECT = _part_of_convert(
    "inspect",
    (*_CHOOSING, *_READING, *_LOADING, "measure"),
    targets="Inspection.plan chooses by it",
    layers="NetworkPlan.changed decides by it",
)
PLAN = _part_of_convert("plan", (*_CHOOSING, *_KEEPING, *_READING, *_LOADING))


def read_settings(given: Mapping[str, Any], call: Call = CONVERT) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those of the conversion and those of its training, as the options hold them.

    Raises `TypeError` for one that does not exist or is of another kind, `ValueError` for a text that cannot be read.
    """
    for name in given:
        if name not in call.keywords:
            raise TypeError(f"{call.name}() has no setting {name!r}; {call.where(name)}")
    values = {name: _read(call, name, value) for name, value in given.items()}
    conversion = {name: value for name, value in values.items() if name in _DEFAULTS[ConversionOptions]}
    return conversion, {name: value for name, value in values.items() if name not in conversion}


def read_targets(
    given: Mapping[str, str | float] | Sequence[Target], where: str = "convert(): targets"
) -> tuple[Target, ...]:
    """Limits by their costs, or as they are. Raises `TypeError` and `ValueError`."""
    if isinstance(given, Mapping):
        return read_limits(where, read_target, given)
    return _all_of(where, given, Target, '{"params": "50%"}')


def read_layers(
    given: Mapping[str, str] | Sequence[Override], where: str = "convert(): layers"
) -> tuple[Override, ...]:
    """What becomes of layers by their names, or as it is. Raises `TypeError` and `ValueError`."""
    if isinstance(given, Mapping):
        return tuple(read_named(where, read_override, f"{glob}={kind}") for glob, kind in given.items())
    return _all_of(where, given, Override, '{"layer4.*": "spatial"}')


def check_settings(
    options: ConversionOptions, given: Collection[str], *, has_images: bool, call: Call = CONVERT
) -> None:
    """Raise `ValueError` where keywords say nothing beside each other; one of its default value is not stated."""
    stated = {
        f"{prefix}{name}"
        for part, prefix in ((options, ""), (options.training, TRAINING_PREFIX))
        for name, default in _DEFAULTS[type(part)].items()
        if name in given and getattr(part, name) != default
    }
    problem = wrong_combination(options, stated, lambda name: name.removeprefix(TRAINING_PREFIX), has_images=has_images)
    if problem is not None:
        raise ValueError(f"{call.name}(): {problem}")


def _all_of(where: str, given: Any, kind: type[Found], example: str) -> tuple[Found, ...]:
    values = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    if wrong := [value for value in values if not isinstance(value, kind)]:
        raise TypeError(f"{where}: got {shown(wrong[0])}, expected a mapping like {example} or {kind.__name__}s")
    return values


def _read(call: Call, name: str, value: Any) -> Any:
    """A value as the field of this name holds it."""
    where, least, most = f"{call.name}(): {name}", _LEAST.get(name), _MOST.get(name)
    return read_value(where, KINDS[name], value, least=least, most=most, expected=_EXPECTED.get(name, ""))
