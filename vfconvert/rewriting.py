"""Put new layers in the place of old ones."""

from __future__ import annotations

import copy

from torch import nn

from vfconvert.nn import FlattenedConv, VersatileConv2d
from vfconvert.planning import Plan


def replace_module(root: nn.Module, name: str, module: nn.Module) -> None:
    """Make `module` the submodule of this dotted name; the root is changed in place."""
    parent, _, leaf = name.rpartition(".")
    owner = root.get_submodule(parent)
    owner._modules[leaf] = module


def with_convolutions(model: nn.Module) -> nn.Module:
    """The network with ordinary convolutions in place of versatile layers; changed in place, all else is its own."""
    if isinstance(model, VersatileConv2d):
        return model.as_conv2d().train(model.training)
    made: dict[VersatileConv2d, nn.Module] = {}
    for name, layer in list(model.named_modules(remove_duplicate=False)):
        if isinstance(layer, VersatileConv2d):
            if layer not in made:
                made[layer] = layer.as_conv2d().train(layer.training)
            replace_module(model, name, made[layer])
    return model


def with_ordinary_layers(model: nn.Module) -> nn.Module:
    """`with_convolutions`, and Linear layers in place of what computes them as convolutions; changed in place."""
    model = with_convolutions(model)
    made: dict[FlattenedConv, nn.Linear] = {}
    for name, layer in list(model.named_modules(remove_duplicate=False)):
        if isinstance(layer, FlattenedConv):
            if layer not in made:
                made[layer] = layer.as_linear()
            replace_module(model, name, made[layer])
    return model


def rewrite(model: nn.Module, plan: Plan) -> nn.Module:
    """A copy of the model with the plan's layers replaced by randomly initialised versatile convolutions.

    The original is not touched.
    """
    student = copy.deepcopy(model)
    for decision in plan.converted:
        old = model.get_submodule(decision.layer)
        like = next(old.parameters())
        layer = VersatileConv2d(
            decision.new_geometry, decision.spec, scale=decision.norm is None, device=like.device, dtype=like.dtype
        )
        layer.train(old.training)
        replace_module(student, decision.layer, layer)
    return student
