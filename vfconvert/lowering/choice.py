"""The inference form of a whole network that is fastest on this machine, and how fast it is."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vfconvert.analysis.graph import Network
from vfconvert.analysis.profile import Profile
from vfconvert.lowering.costs import PLAIN, CostTable, choose
from vfconvert.lowering.network import lower
from vfconvert.measuring.runtime import open_for_timing
from vfconvert.measuring.timing import Timing, in_turns
from vfconvert.nn import VersatileConv2d
from vfconvert.progress import Progress, no_progress
from vfconvert.rewriting import replace_module
from vfconvert.silence import silenced

_ROUNDS, _SECONDS = 15, 15.0  # of timing whole networks


@dataclass(frozen=True, eq=False)
class Inference:
    """The network to export, and how each versatile layer is computed in it ("plain": as an ordinary convolution)."""

    model: nn.Module
    variants: Mapping[str, str]


def fastest(
    student: nn.Module,
    network: Network | None,
    layers: Profile,
    table: CostTable | None,
    progress: Progress = no_progress,
    without: Collection[str] = (),
) -> Inference:
    """Choose a form for every layer by the table (by products where there is none) and lower the network.

    `layers` is the student's profile; no layer gets a form of `without`. A network without a graph stays as it is.
    """
    versatile = [layer.name for layer in layers.layers if layer.versatile]
    plain = dict.fromkeys(versatile, PLAIN)
    if network is None:
        return Inference(student, plain)
    variants = choose(student, layers, network.following_norm, table, progress, without)
    if all(variant == PLAIN for variant in variants.values()):
        return Inference(student, plain)
    lowered = lower(student, network, {**plain, **variants})
    return Inference(lowered.model, lowered.variants)


def onnx_bytes(model: nn.Module, example: Tensor) -> bytes | None:
    """A network of fixed shape as ONNX for a timing, None where torch's older, quicker exporter cannot write it."""
    held: Any = io.BytesIO()
    try:
        with silenced(), torch.no_grad():
            torch.onnx.export(_Images(_expanded(model)).eval(), (example,), held, dynamo=False, opset_version=17)
    except Exception:  # whatever it is, there is no timing then; the file itself is written by another exporter
        return None
    content: bytes = held.getvalue()
    return content


class _Images(nn.Module):
    """A network that is called with images only: optional arguments would become inputs of the file."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        return self.network(images)


def _expanded(model: nn.Module) -> nn.Module:
    """The network with ordinary convolutions in place of versatile layers: what a runtime makes of the file's nodes."""
    tensors = (*model.parameters(), *model.buffers())
    twin = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    for name, layer in list(twin.named_modules()):
        if isinstance(layer, VersatileConv2d):
            g = layer.geometry
            mode: Any = g.padding_mode
            conv = nn.Conv2d(
                g.in_channels,
                g.out_channels,
                g.kernel_size,
                g.stride,
                g.padding,
                g.dilation,
                g.groups,
                layer.bias is not None,
                mode,
                device="meta",
            )
            conv.weight, conv.bias = nn.Parameter(layer.expanded_weight().detach()), layer.bias
            replace_module(twin, name, conv)
    return twin


def time_files(files: Mapping[str, bytes | Path], example: Tensor, threads: int) -> dict[str, Timing]:
    """Seconds of ONNX files of one input in ONNX Runtime, in turns, on `example` `(B, C, H, W)`."""
    calls: dict[str, Callable[[], object]] = {}
    for name, file in files.items():
        session = open_for_timing(file, threads)
        calls[name] = partial(session.run, None, {session.get_inputs()[0].name: example.numpy()})
    return in_turns(calls, rounds=_ROUNDS, most_seconds=_SECONDS)
