"""The symbolic trace of a network, around what cannot be traced where no convolution is inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, fx, nn

from vfconvert.nn import SamePadding, VersatileConv2d


class _Tracer(fx.Tracer):
    """Leaves are the versatile convolution and the modules of torch.nn, but not wrappers of convolutions.

    Other modules are leaves where their forward cannot be traced and no convolution is inside; `failed` is the
    innermost module that could be one.
    """

    def __init__(self, opaque: frozenset[str]) -> None:
        super().__init__()
        self._opaque, self.failed = opaque, ""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, (VersatileConv2d, SamePadding)) or module_qualified_name in self._opaque:
            return True
        return super().is_leaf_module(m, module_qualified_name) and not _holds_convolution(m)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            if not self.failed and not _holds_convolution(m):
                self.failed = self.path_of_module(m)
            raise


def _holds_convolution(module: nn.Module) -> bool:
    return any(isinstance(child, (nn.Conv2d, VersatileConv2d)) for child in module.modules() if child is not module)


def graph_of(model: nn.Module) -> tuple[fx.Graph, frozenset[str]]:
    """The graph, and the modules that are leaves since they cannot be traced; raises what the last trace raised."""
    opaque: set[str] = set()
    while True:
        tracer = _Tracer(frozenset(opaque))
        try:
            return tracer.trace(model), frozenset(opaque)
        except Exception:
            if not tracer.failed or tracer.failed in opaque:
                raise
            kind = type(model.get_submodule(tracer.failed))
            opaque |= {n for n, m in model.named_modules() if type(m) is kind and not _holds_convolution(m)}


@contextmanager
def written_inputs(model: nn.Module, names: frozenset[str]) -> Iterator[list[str]]:
    """Those of the modules that write into a tensor they are given while the network runs within."""
    found: list[str] = []
    versions: dict[str, list[int]] = {}

    def watch(name: str) -> tuple[Any, Any]:
        def before(module: nn.Module, inputs: Any, keywords: Any) -> None:
            versions[name] = _versions(inputs, keywords)

        def after(module: nn.Module, inputs: Any, keywords: Any, output: Any) -> None:
            if versions[name] != _versions(inputs, keywords):
                found.append(name)

        module = model.get_submodule(name)
        return (
            module.register_forward_pre_hook(before, with_kwargs=True),
            module.register_forward_hook(after, with_kwargs=True),
        )

    hooks = [hook for name in names for hook in watch(name)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _versions(inputs: Any, keywords: Any) -> list[int]:
    """How often each tensor has been written into."""
    given = (*inputs, *keywords.values())
    return [tensor._version for tensor in given if isinstance(tensor, Tensor)]
