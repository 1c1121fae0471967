"""By what a run of fine-tuning is known: what it has to have in common with the checkpoint that it goes on from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from vfconvert.data.examples import Examples, PairedExamples
from vfconvert.data.shards import ShardExamples
from vfconvert.inputs import Images
from vfconvert.options import ConversionOptions
from vfconvert.plan_entries import entry_of
from vfconvert.planning import Plan
from vfconvert.preparation import Prepared
from vfconvert.training.checkpoint import State
from vfconvert.version import __version__

_METHOD = (
    *(
        "spatial",
        "channel",
        "windows",
        "channel_stride",
        "crops",
        "linear",
        "include",
        "exclude",
        "include_first",
        "layers",
    ),
    *("targets", "max_drop", "refine", "reconstruct", "augment", "calibration_images", "input_shape"),
)
_BEFORE = {"views": 1, "refine": "0", "linear": "False"}  # what checkpoints have that do not say so
_NO_LONGER = ("data", "target_data", "patience")  # said by older ones: where images lay, and when to stop


def identity_of(prepared: Prepared, options: ConversionOptions) -> dict[str, Any]:
    """What a run has to have in common with the checkpoint that it goes on from."""
    examples = prepared.source.examples
    transform = prepared.source.transform
    plan = [] if options.searches else [entry_of(decision) for decision in prepared.plan.decisions]
    return {
        **{name: str(getattr(options, name)) for name in _METHOD},
        "prepared": transform.describe() if transform is not None else "none",
        "plan": _digest(plan),
        "model": prepared.loaded.sha256,
        "images": len(examples) if examples is not None else 0,
        "images named": _named(examples) if examples is not None else "none",
        "target images": options.target_data is not None,
        "seed": options.seed,
        **options.training.shaping(),
    }


def fit_identity_of(prepared: Prepared, options: ConversionOptions, plan: Plan, images: Images) -> dict[str, Any]:
    """What two runs have in common whose fit of a plan is the same, however they came to it and train from it."""
    return {
        "version": __version__,
        "model": prepared.loaded.sha256,
        "architecture": [options.arch, *sorted(f"{name}={value}" for name, value in options.arch_args.items())],
        "plan": _digest([entry_of(decision) for decision in plan.decisions]),
        "images": hashlib.sha256(images.calibration.cpu().contiguous().numpy().data).hexdigest(),
        "source": images.report.source,
        "reconstruct": options.reconstruct,
        "augment": options.augment,
        "seed": options.seed,
    }


def _digest(entries: list[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def _named(examples: Examples) -> str:
    """The names of all examples in short: of files wherever they lie, of what code gives with that code's name."""
    digest = hashlib.sha256()
    for index in range(len(examples)):
        name = examples.name(index)
        if isinstance(examples, ShardExamples):  # the folder aside
            name = f"{examples.shards[int(examples.places[index, 0])].name}:{examples.members[index]}"
        if isinstance(examples, PairedExamples):
            name += f" {examples.partners[index].name}"
        digest.update(name.encode(errors="replace") + b"\0")
    return digest.hexdigest()[:16]


def as_said_now(state: State, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of its run, as this version says it."""
    assumed = {name: wanted[name] for name in ("images named", "target images")}
    said = {**_BEFORE, **assumed, **state.identity}
    if state.precision is None and wanted["precision"] == "auto" and said.get("precision") in ("fp32", "bf16"):
        said["precision"] = "auto"  # the run goes on in what it was
    return {name: value for name, value in said.items() if name not in _NO_LONGER}
