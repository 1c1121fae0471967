"""Networks converted without a fit, for benchmarks of speed: what a fit leaves behind, without its hours.

A fit assigns outputs to secondary filters as they suit, in an order that looks random, and lets the windows that read
them follow that order. Weights are random here, and the factors of the norms have either sign: a fit pairs outputs
whichever way they are alike.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vfconvert.analysis.graph import Network, trace
from vfconvert.analysis.profile import profile
from vfconvert.fitting.orders import InputOrders
from vfconvert.nn import VersatileConv2d
from vfconvert.planning import Plan, Wish, make_plan
from vfconvert.rewriting import rewrite

WISHES = {
    "spatial": Wish(spatial=True),
    "channel": Wish(spatial=False, channel=True),
    "both": Wish(spatial=True, channel=True),
}


def converted(teacher: nn.Module, example: Tensor, wish: Wish, seed: int = 0) -> tuple[nn.Module, Network]:
    """The network with every eligible layer converted, outputs assigned at random; and its graph."""
    network = trace(teacher, example)
    if network is None:
        raise SystemExit("the network cannot be traced")
    plan = make_plan(teacher, profile(teacher, example), network.following_norm, wish)
    return assigned(teacher, network, plan, seed), network


def assigned(teacher: nn.Module, network: Network, plan: Plan, seed: int = 0) -> nn.Module:
    """The network converted by a plan, outputs assigned at random."""
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
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.weight.data[torch.rand(len(module.weight), generator=generator) < 0.5] *= -1
    return student
