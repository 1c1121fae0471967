"""Options that say nothing beside each other, found before any work: the same for the command line and for Python."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import fields
from itertools import chain

from vfconvert.options import FORMS, ConversionOptions
from vfconvert.training_options import TrainingOptions

TRAINING_PREFIX = "training_"  # of a training's field among those that are stated
_CROPS = f"{TRAINING_PREFIX}crop_scale"
_SHOWING = (".html", ".json")  # reports that hold images with their answers
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
    checks = (
        _of_training(options, stated, spelled, has_images),
        _of_gates(options, spelled),
        _of_method(options, stated, spelled),
        _of_images(options, stated, spelled, has_images),
        _of_work(options, stated, spelled),
        _of_files(options, stated, spelled),
    )
    return next(chain.from_iterable(checks), None)


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


def _of_images(
    options: ConversionOptions, stated: Collection[str], spelled: Callable[[str], str], has_images: bool
) -> Iterator[str]:
    """What says how images are read or seen that there are not, or that are taken in another way."""
    data, targets, scale = spelled("data"), spelled("target_data"), spelled(f"{TRAINING_PREFIX}scale")
    for name in ("target_data", "trust_data_code"):
        if name in stated and not has_images:
            yield f"{spelled(name)} says nothing without {data}; add that or drop it"
    training, patch = options.training, f"{TRAINING_PREFIX}patch"
    classes = training.task == "segmentation"  # whose masks are seen in the same way as images with a class
    if training.scale is None and (options.target_data is None or classes):
        if patch in stated and options.target_data is not None:
            task = spelled(f"{TRAINING_PREFIX}task")
            yield f"{spelled(patch)} says nothing beside {task} segmentation; drop it, or take {spelled(_CROPS)}"
        elif patch in stated:
            yield f"{spelled(patch)} says nothing without {scale} or {targets}; add one or drop it"
        return
    for name in (_CROPS, f"{TRAINING_PREFIX}padding"):
        if name in stated:
            beside = scale if training.scale is not None else targets
            yield f"{spelled(name)} says nothing beside {beside}, whose views are those of {spelled(patch)}; drop it"


def _of_work(options: ConversionOptions, stated: Collection[str], spelled: Callable[[str], str]) -> Iterator[str]:
    """What says how to do work that is not done."""
    momentum, optimizer = f"{TRAINING_PREFIX}momentum", spelled(f"{TRAINING_PREFIX}optimizer")
    if momentum in stated and options.training.optimizer != "sgd":
        yield f"{spelled(momentum)} says nothing without {optimizer} sgd; add that or drop it"
    if "augment" in stated and options.augment and not options.reconstruct:
        yield f"{spelled('augment')} says nothing without {spelled('reconstruct')}; drop it"
    if options.measure or any(target.cost == "latency" for target in options.targets):
        return
    compared = options.int8 or options.precision != "fp32"  # files that are timed in any case
    for name in ("costs", *(() if compared else ("threads",))):
        if name in stated:
            yield f"{spelled(name)} says nothing without {spelled('measure')}; add that or drop it"


def _of_files(options: ConversionOptions, stated: Collection[str], spelled: Callable[[str], str]) -> Iterator[str]:
    """What says how files are written that are not."""
    formats = spelled("formats")
    if "opset" in stated and "onnx" not in options.formats:
        yield f"{spelled('opset')} says nothing without {formats} onnx; add that or drop it"
    if "dynamic_size" in stated and options.dynamic_size and set(options.formats) <= {"safetensors"}:
        yield f"{spelled('dynamic_size')} says nothing of {formats} safetensors, which has no size; drop it"
    shown = "as_json" in stated or any(path.suffix.lower() in _SHOWING for path in options.reports)
    if "samples" in stated and options.samples and not shown:
        yield f"{spelled('samples')} says nothing without a page; add {spelled('reports')} NAME.html or drop it"


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
