"""Which Linear layers read a flattened feature map, and which of them may become convolutions of the whole map.

As in the paper's VGG-16: the first Linear after the flatten of `C x h x w` features is an `h x w` convolution without
padding, and so can be a versatile one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import fx, nn
from torch.nn import functional as F

from vfconvert.analysis.graph import Network
from vfconvert.analysis.profile import Profile, module_names
from vfconvert.analysis.streams import CHANNELWISE_FUNCTIONS, CHANNELWISE_MODULES, cat_inputs, kind_of
from vfconvert.eligibility import Facts, Reason, reason_to_keep
from vfconvert.nn.flattened import Features
from vfconvert.planning import Keep
from vfconvert.specs import ConvGeometry

# What stands between a flatten and a Linear and treats every number by itself.
_BETWEEN = (*CHANNELWISE_MODULES, nn.AlphaDropout, nn.BatchNorm1d, nn.LayerNorm, nn.PReLU)
_MOVING = ("permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "einsum", "view", "reshape")


@dataclass(frozen=True, kw_only=True, slots=True)
class FlattenedLinear:
    """A Linear that reads a flattened map of `features` `(C, h, w)`, `h w > 1`. `reason`: why it stays one."""

    name: str
    features: Features
    geometry: ConvGeometry
    reason: Reason | None = None


def flattened_linears(model: nn.Module, profile: Profile, network: Network | None) -> tuple[FlattenedLinear, ...]:
    """Every Linear of a traced network (none of another) that reads a flattened map, in the order of the graph."""
    if network is None:
        return ()
    names = {name: found for found in module_names(model).values() for name in found}
    modules = dict(model.named_modules(remove_duplicate=False))
    found: dict[str, FlattenedLinear] = {}
    for node, name in _linears(network, modules):
        flatten = _flatten_before(model, network, node)
        linear = modules[name]
        if flatten is None or not isinstance(linear, nn.Linear) or names[name][0] in found:
            continue
        name = names[name][0]
        features = network.flattens[flatten]
        ties = [tie for tie in profile.tied_parameters if any(_owner(full) == name for full in tie)]
        facts = Facts(
            name=name,
            module=linear,
            names=names[name],
            tied_to=tuple(full for tie in ties for full in tie if _owner(full) != name),
            calls=sum(str(n.target) in names[name] for n in network.graph.nodes if n.op == "call_module") or 1,
            is_first=False,
        )
        found[name] = FlattenedLinear(
            name=name,
            features=features,
            geometry=ConvGeometry(
                in_channels=features[0],
                out_channels=linear.out_features,
                kernel_size=features[1:],
                bias=linear.bias is not None,
            ),
            reason=reason_to_keep(facts) or _moved(model, network, flatten),
        )
    return tuple(found.values())


def kept_linears(found: tuple[FlattenedLinear, ...], *, asked: bool) -> tuple[Keep, ...]:
    """Those that stay Linear layers, each with its reason; without `asked` all of them do."""
    kept = []
    for linear in found:
        reason = linear.reason
        if reason is None:
            if asked:
                continue
            height, width = linear.features[1:]
            reason = "linear", f"a Linear on features of {height}x{width}; --linear makes it a convolution of them"
        kept.append(Keep(layer=linear.name, geometry=linear.geometry, code=reason[0], reason=reason[1]))
    return tuple(kept)


def _linears(network: Network, modules: dict[str, nn.Module]) -> Iterator[tuple[fx.Node, str]]:
    """The calls of Linear layers; of a subclass the trace has what it computes with the weight."""
    for node in network.graph.nodes:
        if node.op == "call_module" and isinstance(modules.get(str(node.target)), nn.Linear):
            yield node, str(node.target)
        elif node.op == "call_function" and node.target is F.linear:
            weight: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("weight")
            owner = _owner(str(weight.target)) if isinstance(weight, fx.Node) and weight.op == "get_attr" else ""
            if isinstance(modules.get(owner), nn.Linear):
                yield node, owner


def _flatten_before(model: nn.Module, network: Network, node: fx.Node) -> fx.Node | None:
    """The flatten that a Linear reads, through what treats every number by itself; None where it reads none."""
    while node.all_input_nodes:
        node = node.all_input_nodes[0]
        if node in network.flattens:
            return node
        if node.op == "call_module":
            if type(model.get_submodule(str(node.target))) not in _BETWEEN:
                return None
        elif node.op not in ("call_function", "call_method") or node.target not in CHANNELWISE_FUNCTIONS:
            return None
    return None


def _moved(model: nn.Module, network: Network, flatten: fx.Node) -> Reason | None:
    """A reason where what is flattened has had its axes moved since the last convolution: no map of channels then."""
    waiting, seen = [flatten.all_input_nodes[0]], set[fx.Node]()
    while waiting:
        node = waiting.pop()
        if node in seen or not node.all_input_nodes:
            continue
        seen.add(node)
        kind = kind_of(model, node, network.channels)
        if kind == "conv":
            continue
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        if kind == "other" and node.op != "call_module" and name in _MOVING:
            return "moved-axes", f"its features have had their axes moved ({name}), so they are no map of channels"
        waiting.extend(cat_inputs(node) if kind == "cat" else node.all_input_nodes)
    return None


def _owner(parameter: str) -> str:
    return parameter.rpartition(".")[0]
