"""Options that say nothing beside each other, found before any work: the same for the command line and for Python."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import fields

from vfconvert.options import FORMS, ConversionOptions
from vfconvert.training_options import TrainingOptions

TRAINING_PREFIX = "training_"  # of a training's field among those that are stated
_STATED_BY_A_PLAN = (
    *("spatial", "channel", "windows", "channel_stride", "crops"),
    *("linear", "include", "exclude", "include_first", "layers"),
    *("targets", "max_drop", "refine", "damage_cache"),
)


def wrong_combination(
    options: ConversionOptions, stated: Collection[str], spelled: Callable[[str], str], *, has_images: bool
) -> str | None:
    """What is wrong with the options as a whole, in one line, or None.

    `stated` are the fields that the user gave, those of the training with `TRAINING_PREFIX`; `spelled` is how the user
    writes a field.
    """
    found = (*_of_training(options, stated, spelled, has_images), *_of_gates(options, spelled))
    return next(iter((*found, *_of_method(options, stated, spelled))), None)


def _of_training(
    options: ConversionOptions, stated: Collection[str], spelled: Callable[[str], str], has_images: bool
) -> Iterator[str]:
    """Options of a training that there is not, and one without images."""
    epochs = spelled(f"{TRAINING_PREFIX}epochs")
    names = [f"{TRAINING_PREFIX}{field.name}" for field in fields(TrainingOptions) if field.name != "epochs"]
    if options.target_data is not None:
        names.remove(f"{TRAINING_PREFIX}task")  # which says what the targets are
    given = [spelled(name) for name in names if name in stated]
    if given and not options.training.epochs:
        yield f"{given[0]} says nothing without {epochs}; add that or drop it"
    if options.training.epochs and not has_images:
        yield f"{epochs} trains on images; add {spelled('data')}"


def _of_gates(options: ConversionOptions, spelled: Callable[[str], str]) -> Iterator[str]:
    if options.keep_on_fail and not options.gated:
        keep, size = spelled("keep_on_fail"), spelled("max_size")
        yield f"{keep} says nothing without a gate; add one, like {size} 5MB, or drop it"


def _of_method(options: ConversionOptions, stated: Collection[str], spelled: Callable[[str], str]) -> Iterator[str]:
    """Nothing that says how to convert, or more than one thing."""
    spatial, channel, targets, layers, plan = map(spelled, ("spatial", "channel", "targets", "layers", "plan"))
    drop, refine, dry = spelled("max_drop"), spelled("refine"), spelled("dry_run")
    if options.forms not in FORMS:
        yield f"{spelled('forms')}: got {options.forms!r}, expected one of {', '.join(FORMS)}"
    if options.forms == "plain":
        yield from _of_plain_forms(options, spelled)
    if options.plan is not None:
        if given := [spelled(name) for name in _STATED_BY_A_PLAN if name in stated]:
            yield (
                f"{plan} says what becomes of every layer, so {', '.join(given)} cannot be given beside it; "
                f"drop {'it' if len(given) == 1 else 'them'}, or {plan}"
            )
        return
    kinds = {override.kind for override in options.layers}
    if not (options.spatial or options.channel or kinds or options.searches):
        yield f"nothing to do: add {spatial}, {channel} or both, or {targets}, {layers} or {plan}"
    if options.searches and (given := [spelled(name) for name in ("windows", "channel_stride") if name in stated]):
        yield f"{given[0]} is chosen for every layer under {targets} and {drop}; drop it"
    if options.searches and kinds - {"keep"}:
        yield f"under {targets} and {drop}, {layers} takes GLOB=keep only; drop one of the two"
    if options.max_drop is not None and options.dry_run:
        yield f"{drop} has to fit networks, and {dry} fits none; drop one of the two"
    if options.refine and not options.targets:
        yield f"{refine} compares plans within a target; add {targets} or drop it"
    if options.refine and (options.max_drop is not None or options.dry_run):
        other = f"{dry} fits none" if options.dry_run else f"{drop} fits its own"
        yield f"{refine} has to fit networks, and {other}; drop one of the two"
    if options.damage_cache is not None and not options.searches:
        yield f"{spelled('damage_cache')} says nothing without {targets} or {drop}; add one or drop it"
    for name, needed, wanted in (
        ("windows", channel, options.channel or kinds & {"both", "channel"}),
        ("channel_stride", channel, options.channel or kinds & {"both", "channel"}),
        ("crops", spatial, options.spatial or kinds & {"both"}),
    ):
        if name in stated and not wanted:
            yield f"{spelled(name)} says nothing without {needed}; add that or drop it"


def _of_plain_forms(options: ConversionOptions, spelled: Callable[[str], str]) -> Iterator[str]:
    """What ordinary convolutions, which take the original's products and time, leave without meaning."""
    forms, targets = spelled("forms"), spelled("targets")
    for target in options.targets:
        if target.cost in ("macs", "latency"):
            yield (
                f"{forms} plain computes as many products as the original, so no plan has fewer; drop it, or the limit "
                f"on {target.cost} of {targets}"
            )
    ratio = options.max_latency_ratio
    gates = [spelled("fail_under_saving") for one in options.fail_under_saving if one.cost in ("macs", "latency")]
    if ratio is not None and ratio < 1:
        gates.append(spelled("max_latency_ratio"))
    if gates:
        yield f"{forms} plain takes the original's products and time, so {gates[0]} would fail; drop one of the two"
    if options.costs is not None:
        yield f"{spelled('costs')} says nothing beside {forms} plain, which chooses no form by its time; drop one"
