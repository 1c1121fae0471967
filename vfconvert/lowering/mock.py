"""A converted network before any fit: of random weights and assignments, to time what a plan would take."""

from __future__ import annotations

import torch
from torch import nn

from vfconvert.analysis.graph import Network
from vfconvert.fitting.orders import InputOrders
from vfconvert.nn import VersatileConv2d
from vfconvert.planning import Plan
from vfconvert.rewriting import rewrite


def assigned(teacher: nn.Module, network: Network, plan: Plan, seed: int = 0) -> nn.Module:
    """The network converted by a plan, outputs assigned at random, windows in the order of what they read.

    Factors of norms get either sign, since a fit pairs outputs whichever way they are alike.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        student = rewrite(teacher, plan).eval()
        orders, generator = InputOrders(teacher, network, student), torch.Generator().manual_seed(seed)
        for node in network.graph.nodes:
            layer = student.get_submodule(str(node.target)) if node.op == "call_module" else None
            if not isinstance(layer, VersatileConv2d) or layer.geometry.groups > 1:
                continue
            layer.rows.copy_(layer.rows[torch.randperm(len(layer.rows), generator=generator)])
            if layer.spec.windows > 1 and (order := orders.of(str(node.target))) is not None:
                layer.order = torch.tensor(order)
        for module in student.modules():
            if isinstance(module, nn.BatchNorm2d) and module.affine:
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.weight[torch.rand(len(module.weight), generator=generator) < 0.5] *= -1
    return student
