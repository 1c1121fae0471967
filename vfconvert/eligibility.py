"""Which Conv2d may be replaced: every rule answers with None or with a reason to keep the layer.

The rules are a table, tried in order; the first reason stands. A layer that passes them all is sound to replace;
whether it would shrink is decided with its spec in `vfconvert.planning`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.utils import parametrize

from vfconvert.analysis.profile import Names, Profile, module_names, tied_parameters
from vfconvert.nn.flattened import CONVOLUTION, flattened_convs
from vfconvert.specs import ConvGeometry

Reason = tuple[str, str]  # code, sentence


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What the rules may ask about one layer of one network."""

    name: str
    module: nn.Conv2d | nn.Linear
    names: Names
    tied_to: Names
    calls: int
    is_first: bool
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    include_first: bool = False
    linear: str | None = None  # name of the Linear that the layer is

    @property
    def geometry(self) -> ConvGeometry:
        """Of a convolution."""
        if isinstance(self.module, nn.Conv2d):
            return ConvGeometry.of(self.module)
        raise TypeError(f"{self.name} is no convolution")

    @property
    def called(self) -> Names:
        """The names by which globs may call the layer."""
        return (self.name,) if self.linear is None else (self.name, self.linear)

    def matches(self, glob: str) -> bool:
        """Whether a glob calls the layer."""
        return any(fnmatchcase(name, glob) for name in self.called)


_HOOKS = {
    "_forward_hooks": "forward hook",
    "_forward_pre_hooks": "forward pre-hook",
    "_backward_hooks": "backward hook",
    "_backward_pre_hooks": "backward pre-hook",
}


def _root(facts: Facts) -> Reason | None:
    if facts.name:
        return None
    return "root", "the network is this one layer, with no place to put another in; wrap it in a Sequential"


def _subclass(facts: Facts) -> Reason | None:
    kind = type(facts.module)
    base = nn.Conv2d if isinstance(facts.module, nn.Conv2d) else nn.Linear
    if kind is base:
        return None
    name = f"{kind.__module__}.{kind.__qualname__}"
    return "subclass", f"{name} is a subclass of {base.__name__}, and its forward is not seen to be the same"


def _selected(facts: Facts) -> Reason | None:
    if facts.include and not any(map(facts.matches, facts.include)):
        return "not-included", f"no --include matches (given: {', '.join(facts.include)})"
    for glob in facts.exclude:
        if facts.matches(glob):
            return "excluded", f"--exclude {glob}"
    return None


def _parametrized(facts: Facts) -> Reason | None:
    module = facts.module
    if parametrize.is_parametrized(module):
        return "parametrized", "its weight is computed by a parametrization; remove that first"
    if "weight" not in module._parameters or module._parameters["weight"] is None:
        return (
            "parametrized",
            "its weight is computed from other tensors (weight norm, a pruning mask); remove that first",
        )
    return None


def _hooked(facts: Facts) -> Reason | None:
    for attribute, kind in _HOOKS.items():
        if getattr(facts.module, attribute):
            return "hooks", f"it has a {kind}, which a replacement would lose"
    return None


def _floating(facts: Facts) -> Reason | None:
    if facts.module.weight.is_floating_point():
        return None
    return "dtype", f"its weight is {facts.module.weight.dtype}, only floating point can be fitted"


def _shared(facts: Facts) -> Reason | None:
    if len(facts.names) > 1:
        return "shared", f"the same module is also {', '.join(n for n in facts.names if n != facts.name)}"
    if facts.tied_to:
        return "tied", f"its parameters are tied to {', '.join(facts.tied_to)}"
    return None


def _called(facts: Facts) -> Reason | None:
    if facts.calls == 0:
        return "never-run", "the network does not call it for this input"
    if facts.calls > 1 and isinstance(facts.module, nn.Linear):
        return (
            "called-repeatedly",
            f"it is called {facts.calls} times in one pass, and each time may read a map of another shape",
        )
    return None


def _first(facts: Facts) -> Reason | None:
    if facts.is_first and isinstance(facts.module, nn.Conv2d) and not facts.include_first and not facts.include:
        return (
            "first",
            f"first convolution, of few input channels ({facts.module.in_channels}); --include-first converts it",
        )
    return None


RULES: tuple[Callable[[Facts], Reason | None], ...] = (
    _root,
    _parametrized,  # before the next: parametrizing a module makes it a subclass
    _subclass,
    _hooked,
    _floating,
    _shared,
    _called,
    _selected,
    _first,
)


def reason_to_keep(facts: Facts) -> Reason | None:
    """The first rule's reason, None where the layer may be replaced."""
    return next((reason for rule in RULES if (reason := rule(facts)) is not None), None)


def facts_of(
    model: nn.Module,
    profile: Profile,
    names: Mapping[nn.Module, Names],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    include_first: bool = False,
) -> list[Facts]:
    """The facts of every Conv2d, subclasses too, in the order of `named_modules`."""
    calls = {layer.name: len(layer.calls) for layer in profile.layers}
    convolutions = [(found[0], module) for module, found in names.items() if isinstance(module, nn.Conv2d)]
    first = profile.order[0] if profile.order else None
    linears = {f"{name}.{CONVOLUTION}": name for name in flattened_convs(model)}
    facts = []
    for name, module in convolutions:
        tied = [tie for tie in profile.tied_parameters if any(full.rpartition(".")[0] == name for full in tie)]
        facts.append(
            Facts(
                name=name,
                module=module,
                names=names[module],
                tied_to=tuple(n for tie in tied for n in tie if n.rpartition(".")[0] != name),
                calls=calls.get(name, 1),
                is_first=name == first and module.in_channels <= 4,
                include=include,
                exclude=exclude,
                include_first=include_first,
                linear=linears.get(name),
            )
        )
    return facts


_MOST_REFITTED = 6000  # inputs of a kept layer whose moments are still worth their memory


def refittable(model: nn.Module) -> frozenset[str]:
    """Names of the layers whose weights may be fitted anew: plain, with one name, nothing tied, no hooks."""
    tied = {full.rpartition(".")[0] for tie in tied_parameters(model) for full in tie}
    found = set()
    for module, names in module_names(model).items():
        if type(module) is nn.Linear:
            inputs = module.in_features
        elif type(module) is nn.Conv2d:
            inputs = module.in_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]
        else:
            continue
        plain = module._parameters.get("weight") is not None and not any(getattr(module, hook) for hook in _HOOKS)
        if plain and len(names) == 1 and names[0] not in tied and inputs <= _MOST_REFITTED:
            found.add(names[0])
    return frozenset(found)


def unmatched(globs: Sequence[str], names: Sequence[str]) -> list[str]:
    """Those globs that match none of the names."""
    return [glob for glob in globs if not any(fnmatchcase(name, glob) for name in names)]
