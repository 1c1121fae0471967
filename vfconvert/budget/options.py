"""From a network and images to its table of options: sensitivity, damage, and the cache that spares both."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from vfconvert.analysis.computing import with_channels_last
from vfconvert.analysis.graph import Network
from vfconvert.analysis.profile import Profile
from vfconvert.analysis.totals import Totals
from vfconvert.budget.building import option_table
from vfconvert.budget.cache import is_damaged, key_of, read_harms, write_harms
from vfconvert.budget.candidates import KINDS
from vfconvert.budget.damage import harms_of
from vfconvert.budget.sensitivity import BACKWARD_BATCH, outputs_of, sensitivity_of
from vfconvert.budget.table import OptionTable
from vfconvert.exporting.outputs import named_outputs
from vfconvert.fitting.samples import usual_batch
from vfconvert.fitting.untraced import batch_of_whole
from vfconvert.planning import Plan
from vfconvert.portions import Portion
from vfconvert.progress import Progress, no_progress

_SENSITIVITY_MACS = 2e12  # multiply-adds of the backward passes, three for each of a forward pass
_FEWEST_IMAGES = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """The network that is planned for. `plan` converts every layer that may be; `sha256` is that of its file."""

    teacher: nn.Module
    original: nn.Module | None = None  # what the teacher is a copy of, where they differ in form
    network: Network | None
    layers: Profile
    plan: Plan
    before: Totals
    sha256: str


def measure_options(
    subject: Subject,
    images: Tensor,
    *,
    seed: int,
    kinds: Collection[str] = KINDS,
    cache: Path | None = None,
    keep: bool = True,
    progress: Progress = no_progress,
) -> OptionTable:
    """The options of every layer that may be converted, with their damage on `images` `(N, C, H, W)`.

    `cache` is where the damage is kept between runs, None for nowhere; without `keep` it is read only. The teacher is
    left as it was.
    """
    geometries = {decision.layer: decision.geometry for decision in subject.plan.converted}
    key = ""
    if cache is not None:
        device = next(subject.teacher.parameters()).device
        with torch.no_grad():
            answers = [tensor for _, tensor in named_outputs(subject.teacher(images[:2].clone().to(device)))]
        key = key_of(subject.sha256, images, seed, answers)
    kept = read_harms(cache, key, geometries) if cache is not None else None
    damaged = cache is not None and kept is None and is_damaged(cache, key)
    notes = (f"{cache} was damaged, so that what it held was measured anew",) if damaged else ()
    harms, measure = kept if kept is not None else ({}, "")
    missing = {name: geometry for name, geometry in geometries.items() if name not in harms}
    if missing or not measure:
        affordable = int(_SENSITIVITY_MACS / (3 * max(subject.before.macs_executed, 1)))
        some = images[: max(_FEWEST_IMAGES, min(len(images), affordable))]
        device = next(subject.teacher.parameters()).device
        forward = Portion(usual_batch(subject.network, device))
        if subject.network is None:
            forward = Portion(batch_of_whole(subject.teacher, images))
        backward = Portion(min(BACKWARD_BATCH, forward.size))
        teacher = subject.teacher
        if device.type == "cpu":  # which takes about a tenth less time for a pass so
            teacher = with_channels_last(teacher, images[: min(2, forward.size)], outputs_of)
        sensitivity = backward.fitted(
            lambda batch: sensitivity_of(teacher, list(missing), some, seed=seed, batch=batch, progress=progress)
        )
        measure = sensitivity.measure
        harms |= forward.fitted(
            lambda batch: harms_of(
                teacher,
                subject.network,
                missing,
                sensitivity,
                images,
                seed=seed,
                batch=batch,
                progress=progress,
            )
        )
        notes = (*notes, *backward.note("the gradients"), *forward.note("the measurement of damage"))
        if cache is not None and keep:
            write_harms(cache, key, harms, measure)
    table = option_table(
        subject.plan,
        subject.layers,
        subject.before,
        harms,
        measure,
        kinds,
        traced=subject.network is not None,
    )
    return replace(table, notes=notes)
