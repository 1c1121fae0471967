"""What a call asks for: a network in memory or in a file, images, and settings, as the stages take them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vfconvert.data.given import given_examples
from vfconvert.keyword_values import check_callable, shown
from vfconvert.keywords import Call, check_settings, read_layers, read_settings, read_targets
from vfconvert.loading.in_memory import loaded_module
from vfconvert.network_plan import NetworkPlan
from vfconvert.options import ConversionOptions
from vfconvert.overrides import Override
from vfconvert.preparation import Given
from vfconvert.progress import Progress
from vfconvert.targets import Target
from vfconvert.training_options import TrainingOptions

Model = nn.Module | str | os.PathLike[str]
Data = str | os.PathLike[str] | Tensor | Any

_OF_FILES = ("arch", "arch_args", "trust_pickle")
_PLAN = "<plan>"  # in the place of a file's name


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """Options as the command line would have them, and what the caller holds in the place of files."""

    options: ConversionOptions
    given: Given


def asked(
    call: Call,
    model: Model,
    settings: Mapping[str, Any],
    *,
    targets: Mapping[str, str | float] | Sequence[Target] = (),
    layers: Mapping[str, str] | Sequence[Override] = (),
    data: Data = None,
    progress: Progress,
    fixed: Mapping[str, Any] | None = None,
) -> Asked:
    """Read the arguments of a call; `fixed` are options that the call itself sets.

    Raises `TypeError` for what is of another kind, `ValueError` for a text that cannot be read, where settings say
    nothing beside each other and within `torch.inference_mode()`, and what a network or images in memory raise.
    """
    if not isinstance(model, (nn.Module, str, os.PathLike)):
        raise TypeError(f"{call.name}(): model: got {shown(model)}, expected a network or the path of a file")
    if torch.is_inference_mode_enabled():
        raise ValueError(f"{call.name}(): torch.inference_mode() has no gradients, which it needs; call it outside")
    check_callable(f"{call.name}(): progress", progress, "progress(stage, done, total)")
    value = settings.get("plan")
    plan = value if isinstance(value, NetworkPlan) else None
    stated = {**settings, "plan": Path(_PLAN)} if plan is not None else dict(settings)
    own, training = read_settings(stated, call)
    if isinstance(model, nn.Module) and (given := [name for name in _OF_FILES if settings.get(name)]):
        raise TypeError(f"{call.name}(): {given[0]} says how a file is read, but a network was given; drop it")
    folder = Path(data) if isinstance(data, (str, os.PathLike)) else None
    loaded = loaded_module(model) if isinstance(model, nn.Module) else None
    examples = None if data is None or folder is not None else given_examples(data)
    options = ConversionOptions(
        model=loaded.path if loaded is not None else Path(str(model)),
        targets=read_targets(targets, f"{call.name}(): targets"),
        layers=read_layers(layers, f"{call.name}(): layers"),
        data=folder,
        formats=(),
        training=TrainingOptions(**training),
        command=f"vfconvert.{call.name}",
        **own,
        **(fixed or {}),
    )
    check_settings(options, (*stated, "layers", "targets"), has_images=data is not None, call=call)
    content = plan.to_json().encode() if plan is not None else None
    return Asked(options=options, given=Given(loaded=loaded, examples=examples, plan=content))
