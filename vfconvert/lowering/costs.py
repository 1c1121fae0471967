"""Which way of computing a layer is fastest on this machine: measured on the layer's own shape, not guessed.

Each candidate is a little ONNX file of one layer, run by ONNX Runtime in turns with the others. Inputs and outputs of
the file lie in the pieces that they have in the network, so that every candidate pays the same for getting in and out.
"""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from vfconvert.analysis.profile import LayerProfile, Profile
from vfconvert.errors import NotAModelError
from vfconvert.files import atomic_path
from vfconvert.lowering.form import LayerForm, form_of
from vfconvert.lowering.layer import Manner, emit_layer
from vfconvert.lowering.values import Emitter, Value, sizes_between
from vfconvert.measuring.machine import processor_name
from vfconvert.measuring.runtime import onnx_session
from vfconvert.measuring.timing import in_turns
from vfconvert.nn import VersatileConv2d
from vfconvert.ops.blocks import PLAIN, VARIANTS, shares
from vfconvert.ops.blocks import products as block_products
from vfconvert.progress import Progress, no_progress
from vfconvert.silence import silenced, stdout_closed
from vfconvert.specs import Pair

_ROUNDS, _SECONDS = 9, 1.0  # of measuring one layer
_MARGIN = 1.03  # by which the ordinary convolution has to be faster: less is noise
_SCHEMA = 1


@dataclass(eq=False)
class CostTable:
    """Median seconds of each way of computing a layer, by a key that describes layer, size and threads.

    `measured` grows as layers are asked for; what a table already knows is not measured again. `networks` are the
    seconds of whole original networks, by what names them. `machine` is the processor that all of it was measured on:
    a table of another one takes in nothing that is measured here.
    """

    threads: int = 1
    measured: dict[str, dict[str, float]] = field(default_factory=dict)
    networks: dict[str, float] = field(default_factory=dict)
    machine: str = field(default_factory=processor_name)
    _beside: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def foreign(self) -> bool:
        """Whether it was measured on another machine."""
        return self.machine != processor_name()

    @property
    def known(self) -> int:
        """How much the table holds: it grows where something was measured."""
        return len(self.measured) + len(self.networks)

    @classmethod
    def read(cls, path: Path) -> CostTable:
        """A table that `write` made, on this machine or on the target. Raises `NotAModelError` for anything else."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["schema_version"] != _SCHEMA:
                raise ValueError(f"schema version {found['schema_version']}, expected {_SCHEMA}")
            measured = {
                str(key): {str(name): float(value) for name, value in costs.items()}
                for key, costs in found["layers"].items()
            }
            known = {PLAIN, *VARIANTS}
            for key, costs in measured.items():
                if PLAIN not in costs or not costs.keys() <= known or not all(0 < c < math.inf for c in costs.values()):
                    raise ValueError(f"costs {costs} of the layer {key[:60]}…")
            networks = {str(key): float(value) for key, value in found.get("networks", {}).items()}
            if not all(0 < seconds < math.inf for seconds in networks.values()):
                raise ValueError(f"seconds of networks {list(networks.values())[:3]}")
            machine = str(found.get("machine", processor_name()))
            return cls(threads=int(found["threads"]), measured=measured, networks=networks, machine=machine)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise NotAModelError(
                f"{path}: no table of layer costs ({type(error).__name__}: {error}); remove it to have one written"
            ) from error

    @classmethod
    def open(cls, path: Path | None, threads: int) -> CostTable:
        """The table in a file where it is there, else an empty one.

        Raises `NotAModelError` where the file is no table, or one of another number of threads.
        """
        if path is None or not path.exists():
            return cls(threads=threads)
        table = cls.read(path)
        if table.threads != threads:
            raise NotAModelError(
                f"{path}: timings of {table.threads} threads, expected {threads}; give --threads {table.threads}"
            )
        return table

    def write(self, path: Path) -> None:
        """Write the table as JSON, complete or not at all."""
        content = {
            "schema_version": _SCHEMA,
            "machine": self.machine,
            "threads": self.threads,
            "networks": self.networks,
            "layers": self.measured,
        }
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    def costs(
        self, layer: VersatileConv2d, profiled: LayerProfile, norm: nn.BatchNorm2d | None = None
    ) -> dict[str, float]:
        """Seconds of every candidate for a layer, and the norm that follows, in all calls at the sizes of each."""
        form = form_of(layer, norm)
        if form is None:
            return {PLAIN: 0.0}
        total: dict[str, float] = {}
        for size, count in _sizes(profiled).items():
            for name, seconds in self._of_one_call(layer, form, size).items():
                total[name] = total.get(name, 0.0) + count * seconds
        return total

    def _of_one_call(self, layer: VersatileConv2d, form: LayerForm, size: Pair) -> dict[str, float]:
        key = _key(layer, form, size, self.threads)
        if key in self.measured:
            return self.measured[key]
        held = self._beside if self.foreign else self.measured
        if key not in held:
            held[key] = _measure(layer, form, size, self.threads)
        return held[key]

    def knows(self, layer: VersatileConv2d, profiled: LayerProfile, norm: nn.BatchNorm2d | None = None) -> bool:
        """Whether the costs of a layer are in the table already."""
        form = form_of(layer, norm)
        return form is None or all(_key(layer, form, size, self.threads) in self.measured for size in _sizes(profiled))


def choose(
    model: nn.Module,
    layers: Profile,
    norms: Mapping[str, str],
    table: CostTable | None,
    progress: Progress = no_progress,
    without: Collection[str] = (),
) -> dict[str, str]:
    """The fastest variant, none of `without`, of every versatile layer; by products alone where there is no table.

    `norms` names the BatchNorm that follows a layer. "plain" where the ordinary convolution is faster than
    every form.
    """
    chosen: dict[str, str] = {}
    versatile = [layer for layer in layers.layers if layer.versatile and layer.calls]
    for number, profiled in enumerate(versatile):
        layer = model.get_submodule(profiled.name)
        if isinstance(layer, VersatileConv2d):
            following = model.get_submodule(norms[profiled.name]) if profiled.name in norms else None
            norm = following if isinstance(following, nn.BatchNorm2d) else None
            costs = products(layer) if table is None else table.costs(layer, profiled, norm)
            allowed = {name: cost for name, cost in costs.items() if name not in without}
            chosen[profiled.name] = min(allowed, key=lambda name: allowed[name] * (_MARGIN if name == PLAIN else 1))
        progress("measure layers", number + 1, len(versatile))
    return chosen


def products(layer: VersatileConv2d) -> dict[str, float]:
    """Multiply-adds per output position of every candidate."""
    found = {PLAIN: float(layer.geometry.weight_numbers)}
    form = form_of(layer, None)
    if form is not None:
        channels = layer.geometry.group_inputs
        found.update({n: float(block_products(form.blocks, form.spec, channels, n)) for n in candidates(form)})
    return found


def candidates(form: LayerForm) -> tuple[str, ...]:
    """The variants that differ for this layer."""
    if form.spec.windows == 1:
        return (VARIANTS[0],)
    return VARIANTS if shares(form.channel_windows, form.geometry.group_inputs, VARIANTS[0]) else ("separate",)


def executed(model: nn.Module, layers: Profile, variants: Mapping[str, str]) -> dict[str, int]:
    """Multiply-adds of each versatile layer as it is computed, over all its calls."""
    found = {}
    for profiled in layers.layers:
        layer = model.get_submodule(profiled.name)
        if isinstance(layer, VersatileConv2d):
            found[profiled.name] = int(products(layer)[variants.get(profiled.name, PLAIN)]) * profiled.output_positions
    return found


def _sizes(profiled: LayerProfile) -> Counter[Pair]:
    """Heights and widths of what a layer reads, and in how many calls each."""
    return Counter(call.input_size for call in profiled.calls)


def _key(layer: VersatileConv2d, form: LayerForm, size: Pair, threads: int) -> str:
    """What the cost of a layer depends on, as text: geometry, spec, block sizes, input size, threads."""
    blocks = [(block.crop, block.windows, len(block.primaries)) for block in form.blocks]
    geometry = {name: value for name, value in asdict(layer.geometry).items() if name != "bias"}
    parts = (geometry, str(layer.spec), blocks, form.factor is not None, size, threads)
    return json.dumps(parts, sort_keys=True, default=str)


def _measure(layer: VersatileConv2d, form: LayerForm, size: Pair, threads: int) -> dict[str, float]:
    sizes = sizes_between(form.input_cuts, form.geometry.in_channels)
    generator = torch.Generator().manual_seed(0)
    example = [torch.randn(1, channels, *size, generator=generator) for channels in sizes]
    networks: dict[str, nn.Module] = {PLAIN: _Plain(layer)}
    networks.update({name: _alone(form, name, sizes) for name in candidates(form)})
    calls: dict[str, Callable[[], object]] = {}
    for name, network in networks.items():
        session = onnx_session(quick_onnx(network, example), threads)
        feeds = {given.name: x.numpy() for given, x in zip(session.get_inputs(), example, strict=True)}
        calls[name] = partial(session.run, None, feeds)
    timings = in_turns(calls, rounds=_ROUNDS, most_seconds=_SECONDS)
    return {name: timing.median for name, timing in timings.items()}


def _alone(form: LayerForm, variant: str, sizes: Sequence[int]) -> fx.GraphModule:
    """A network of one layer: pieces in, pieces through a rectifier out."""
    emitter = Emitter()
    pieces = tuple(emitter.graph.placeholder(f"x{index}") for index in range(len(sizes)))
    given = Value(pieces, tuple(sizes), tuple(range(sum(sizes))))
    cuts = form.input_cuts if form.geometry.in_channels == form.geometry.out_channels else ()
    value = emit_layer(emitter, "layer", form, given, Manner(variant=variant, cuts=cuts))
    emitter.graph.output(tuple(emitter.call(F.relu, piece) for piece in value.pieces))
    return fx.GraphModule(emitter.attributes, emitter.graph)


class _Plain(nn.Module):
    """One ordinary convolution with a bias, and a rectifier."""

    def __init__(self, layer: VersatileConv2d) -> None:
        super().__init__()
        self.conv = layer.as_conv2d()
        self.conv.bias = nn.Parameter(torch.zeros(layer.geometry.out_channels))

    def forward(self, *inputs: Tensor) -> Tensor:
        return F.relu(self.conv(torch.cat(inputs, 1) if len(inputs) > 1 else inputs[0]))


def quick_onnx(network: nn.Module, example: Sequence[Tensor]) -> bytes:
    """A network of fixed shapes as ONNX for a timing, by torch's older exporter: a tenth of the newer one's time.

    Raises whatever that exporter raises; files for users are written by `vfconvert.exporting`.
    """
    held: Any = io.BytesIO()
    with silenced(), stdout_closed(), torch.no_grad():
        torch.onnx.export(network.eval(), tuple(example), held, dynamo=False, opset_version=17)
    content: bytes = held.getvalue()
    return content
