"""Networks converted without a fit, for benchmarks of speed: what a fit leaves behind, without its hours.

A fit assigns outputs to secondary filters as they suit, in an order that looks random, and lets the windows that read
them follow that order. Weights are random here, and the factors of the norms have either sign: a fit pairs outputs
whichever way they are alike.
"""

from __future__ import annotations

from torch import Tensor, nn

from vfconvert.analysis.graph import Network, trace
from vfconvert.analysis.profile import profile
from vfconvert.lowering.mock import assigned
from vfconvert.planning import Wish, make_plan

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
