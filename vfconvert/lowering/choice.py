"""The inference form of a whole network that is fastest on this machine, and how fast it is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vfconvert.analysis.graph import Network
from vfconvert.analysis.profile import Profile
from vfconvert.lowering.costs import CostTable, choose, quick_onnx
from vfconvert.lowering.network import Lowered, lower
from vfconvert.measuring.runtime import fed, onnx_session
from vfconvert.measuring.timing import Timing, in_turns
from vfconvert.nn.several_inputs import opened
from vfconvert.ops.blocks import PLAIN
from vfconvert.progress import Progress, no_progress
from vfconvert.rewriting import with_convolutions
from vfconvert.tasks.structure import of_one_image

_ROUNDS, _SECONDS = 15, 15.0  # of timing whole networks


def as_convolutions(student: nn.Module, layers: Profile) -> Lowered:
    """The network as it is, every versatile layer of the profile an ordinary convolution."""
    return Lowered(student, {layer.name: PLAIN for layer in layers.layers if layer.versatile})


def fastest(
    student: nn.Module,
    network: Network | None,
    layers: Profile,
    table: CostTable | None,
    progress: Progress = no_progress,
    without: Collection[str] = (),
) -> Lowered:
    """Choose a form for every layer by the table (by products where there is none) and lower the network.

    `layers` is the student's profile; no layer gets a form of `without`. A network without a graph stays as it is.
    """
    plain = as_convolutions(student, layers)
    if network is None:
        return plain
    variants = choose(student, layers, network.following_norm, table, progress, without)
    if all(variant == PLAIN for variant in variants.values()):
        return plain
    return lower(student, network, {**plain.variants, **variants})


def timed(
    teacher: nn.Module,
    student: nn.Module,
    lowered: Lowered,
    example: Tensor,
    threads: int,
    *,
    as_it_is: bool = False,
) -> tuple[Lowered, dict[str, Timing]]:
    """Time the original ("before") and the student's inference form ("after") in turns, on `example` `(B, C, H, W)`.

    A form that is no faster than the original is given up for ordinary convolutions, and these are timed, unless the
    form is wanted `as_it_is`. No timings where a network cannot be timed.
    """
    before, after = onnx_bytes(teacher, example), onnx_bytes(lowered.model, example)
    if before is None or after is None:
        return lowered, {}
    timings = time_files({"before": before, "after": after}, example, threads)
    faster = timings["after"].median < timings["before"].median
    if faster or as_it_is or lowered.model is student:
        return lowered, timings
    lowered = Lowered(student, dict.fromkeys(lowered.variants, PLAIN))
    plain = onnx_bytes(student, example)
    return lowered, time_files({"before": before, "after": plain}, example, threads) if plain is not None else timings


def onnx_bytes(model: nn.Module, example: Tensor) -> bytes | None:
    """A network of fixed shape as ONNX for a timing, None where torch's older, quicker exporter cannot write it."""
    try:
        network, images = opened(_expanded(model), example)
        return quick_onnx(_Images(network), images)
    except Exception:  # whatever it is, there is no timing then; the file itself is written by another exporter
        return None


class _Images(nn.Module):
    """A network that is called with images only: optional arguments would become inputs of the file."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *images: Tensor) -> Any:
        return of_one_image(self.network(*images))  # the exporter takes no mapping within a list


def _expanded(model: nn.Module) -> nn.Module:
    """The network with ordinary convolutions in place of versatile layers: what a runtime makes of the file's nodes."""
    tensors = (*model.parameters(), *model.buffers())
    return with_convolutions(copy.deepcopy(model, {id(tensor): tensor for tensor in tensors}))


def time_files(files: Mapping[str, bytes | Path], example: Tensor, threads: int) -> dict[str, Timing]:
    """Seconds of ONNX files in ONNX Runtime, in turns, on `example` `(B, C, H, W)`; see `fed`."""
    calls: dict[str, Callable[[], object]] = {}
    for name, file in files.items():
        session = onnx_session(file, threads)
        calls[name] = partial(session.run, None, fed(session, example))
    return in_turns(calls, rounds=_ROUNDS, most_seconds=_SECONDS)
