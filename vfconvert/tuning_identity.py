"""By what a run of fine-tuning is known: what it has to have in common with the checkpoint that it goes on from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vfconvert.data.examples import Examples
from vfconvert.options import ConversionOptions
from vfconvert.plan_entries import entry_of
from vfconvert.preparation import Prepared
from vfconvert.training.checkpoint import State

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
        "plan": hashlib.sha256(json.dumps(plan).encode()).hexdigest(),
        "model": prepared.loaded.sha256,
        "images": len(examples) if examples is not None else 0,
        "images named": _named(examples) if examples is not None else "none",
        "targets": options.target_data is not None,
        "seed": options.seed,
        **options.training.shaping(),
    }


def fit_identity_of(prepared: Prepared, options: ConversionOptions, calibration: Tensor) -> dict[str, Any]:
    """What two runs have in common whose fit to these images is the same, however they train from it."""
    transform = getattr(prepared.source.transform, "preprocessing", None) or prepared.source.transform
    shaping = options.training.shaping().keys() - {"scale"}
    found = {name: value for name, value in identity_of(prepared, options).items() if name not in shaping}
    content = hashlib.sha256(calibration.cpu().contiguous().numpy().tobytes()).hexdigest()
    described = transform.describe() if transform is not None else "none"
    return {**found, "prepared": described, "calibration": content}


def _named(examples: Examples) -> str:
    """The names of all examples in short, wherever they lie."""
    digest = hashlib.sha256()
    for index in range(len(examples)):
        digest.update(examples.name(index).removeprefix(examples.root).encode(errors="replace") + b"\0")
    return digest.hexdigest()[:16]


def as_said_now(state: State, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of its run, as this version says it."""
    assumed = {name: wanted[name] for name in ("images named", "targets") if name in wanted}
    return {k: v for k, v in {**_BEFORE, **assumed, **state.identity}.items() if k not in _NO_LONGER}
