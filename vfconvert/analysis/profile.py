"""Where a network's convolutions are, how often they run and at what sizes; what its modules share.

Layers are matched by exact type: a subclass may do anything in its forward, so it is none of ours.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from torch import Tensor, nn

from vfconvert.analysis.forward import Example, run_once
from vfconvert.nn import VersatileConv2d
from vfconvert.specs import ConvGeometry, Pair

Names = tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One run of a layer: images in the batch, and height and width of what goes in and comes out."""

    batch: int
    input_size: Pair
    output_size: Pair

    @property
    def output_positions(self) -> int:
        """Places at which every filter is applied, over the whole batch."""
        return self.batch * self.output_size[0] * self.output_size[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerProfile:
    """One convolution. `names` are all it is known by, the first in `named_modules` first; no calls: never run."""

    names: Names
    versatile: bool
    geometry: ConvGeometry
    calls: tuple[Call, ...]

    @property
    def name(self) -> str:
        """The name under which `named_modules` lists the layer."""
        return self.names[0]

    @property
    def output_positions(self) -> int:
        """Places at which every filter is applied, over the whole batch and all calls."""
        return sum(call.output_positions for call in self.calls)


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """The convolutions in the order of `named_modules`, and what is shared.

    `shared_modules`: for every module that occurs more than once, its names. `tied_parameters`: for every tensor
    that is a parameter of several modules (or twice of one), its names; a shared module alone ties nothing.
    """

    layers: tuple[LayerProfile, ...]
    shared_modules: tuple[Names, ...]
    tied_parameters: tuple[Names, ...]
    order: Names = ()  # the convolutions that ran, in the order of their first call

    def layer(self, name: str) -> LayerProfile:
        """The convolution that has this name among its names; `KeyError` where none has."""
        for layer in self.layers:
            if name in layer.names:
                return layer
        raise KeyError(name)


def profile(model: nn.Module, example: Example) -> Profile:
    """Run the network once on `example` and note every `Conv2d` and `VersatileConv2d`; nothing is left changed.

    A layer whose weight is used without calling the layer counts as never run.
    Raises `InputShapeError` where the network does not take the example.
    """
    names = module_names(model)
    layers = {m: found for m, found in names.items() if type(m) in (nn.Conv2d, VersatileConv2d)}
    calls: dict[nn.Module, list[Call]] = {layer: [] for layer in layers}
    order: dict[str, None] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], keywords: dict[str, Tensor], output: Tensor) -> None:
        order.setdefault(layers[layer][0])
        calls[layer].append(_call(inputs[0] if inputs else keywords["input"], output))

    hooks = [layer.register_forward_hook(note, with_kwargs=True) for layer in layers]
    try:
        run_once(model, example)
    finally:
        for hook in hooks:
            hook.remove()
    return Profile(
        layers=tuple(
            LayerProfile(
                names=found,
                versatile=isinstance(layer, VersatileConv2d),
                geometry=geometry_of(layer),
                calls=tuple(calls[layer]),
            )
            for layer, found in layers.items()
        ),
        shared_modules=tuple(found for found in names.values() if len(found) > 1),
        tied_parameters=tied_parameters(model),
        order=tuple(order),
    )


def module_names(model: nn.Module) -> dict[nn.Module, Names]:
    """Every module once, in the order of `named_modules`, with all its names."""
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    return {module: tuple(found) for module, found in names.items()}


def geometry_of(layer: nn.Module) -> ConvGeometry:
    """The geometry of a `Conv2d` or `VersatileConv2d`; `TypeError` for anything else."""
    if isinstance(layer, VersatileConv2d):
        return layer.geometry
    if isinstance(layer, nn.Conv2d):
        return ConvGeometry.of(layer)
    raise TypeError(f"{type(layer).__name__} is no 2-D convolution")


def tied_parameters(model: nn.Module) -> tuple[Names, ...]:
    """The names of every parameter that several modules hold, each module under its first name."""
    found: dict[Hashable, list[str]] = {}
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False, remove_duplicate=False):
            found.setdefault(tensor_identity(parameter), []).append(name)
    return tuple(tuple(names) for names in found.values() if len(names) > 1)


def tensor_identity(tensor: Tensor) -> Hashable:
    """Equal for two tensors that are the same numbers in the same memory, be they one Python object or two."""
    if tensor.is_meta or tensor.numel() == 0:
        return id(tensor)
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _call(given: Tensor, output: Tensor) -> Call:
    return Call(
        batch=given.shape[0] if given.dim() == 4 else 1,  # an unbatched image has no batch axis
        input_size=(given.shape[-2], given.shape[-1]),
        output_size=(output.shape[-2], output.shape[-1]),
    )
