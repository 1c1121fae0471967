"""Repeated passes of one network that compute only what may have changed since the last.

Layers of an untraced network are fitted one after the other, each from a pass as far as the layer. What runs before the
first layer that is still to be fitted gives the same for the same images in every later pass: the outputs of those
submodules are kept, and handed out in place of a computation. Of nested submodules the outermost is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.hooks import RemovableHandle

KEPT_BYTES = 2**30  # of outputs that are kept of one network

_Call = tuple[str, int]  # a submodule, and which of its calls in a pass


class Reached(BaseException):
    """What a pass was for has been seen; no Exception, so that no network takes it for one of its own."""


class Passes:
    """Passes of `network`, in eval mode.

    It is changed only between them, and only in layers that are in `pending` at that time: names are taken out when a
    layer changes no more. At most `most_bytes` are kept.
    """

    def __init__(self, network: nn.Module, pending: Collection[str] = (), most_bytes: int = KEPT_BYTES) -> None:
        self.network = network
        self._pending, self._most = pending, most_bytes
        self._held, self._size = 0, 0
        self._batches: dict[tuple[int, int], dict[_Call, _Output]] = {}

    def until(self, hook: RemovableHandle, images: Tensor, at: int) -> None:
        """Run on `images` `(B, C, H, W)` as far as `hook`, on a submodule, raises `Reached`; the hook is removed.

        `at` is the number of the first image: where it and `B` are the same, so are the images.
        """
        try:
            with self._keeping((at, len(images))), suppress(Reached):
                self.network(images.clone())
        finally:
            hook.remove()

    def sized(self, size: int) -> None:
        """So many images at a time from here on. Where these are fewer, memory has run out, and less is kept."""
        if size != self._size:
            self._batches.clear()
            self._held, self._most = 0, self._most // 4 if size < self._size else self._most
        self._size = size

    @contextmanager
    def _keeping(self, batch: tuple[int, int]) -> Iterator[None]:
        current = _Pass(self._batches.setdefault(batch, {}))
        with ExitStack() as undone:
            for name, module in self.network.named_modules():
                if name in self._pending:
                    undone.callback(module.register_forward_pre_hook(current.note_change).remove)
                elif name and _worth_keeping(module) and not _is_watched(module):
                    own = vars(module).get("forward")
                    module.forward = partial(self._called, current, name, module, module.forward)
                    undone.callback(_restore, module, own)
            yield

    def _called(
        self, current: _Pass, name: str, module: nn.Module, forward: Callable[..., Any], *given: Any, **named: Any
    ) -> Any:
        call = (name, current.calls[name])
        current.calls[name] += 1
        kept = current.kept.get(call)
        if kept is not None and not current.changed:
            current.calls.update(kept.inner)
            return _copied(kept.value)
        before, calls = _state(module, (given, named)), Counter(current.calls)
        result = forward(*given, **named)
        if not current.changed and _is_plain(result) and _same(before, _state(module, (given, named))):
            self._keep(current, call, result, current.calls - calls)
        return result

    def _keep(self, current: _Pass, call: _Call, result: Any, inner: Counter[str]) -> None:
        last = current.calls
        within = [(name, turn) for name, turn in current.kept if last[name] - inner[name] <= turn < last[name]]
        more = _bytes(result) - sum(_bytes(current.kept[each].value) for each in within)
        if self._held + more > self._most:
            return
        for each in within:
            del current.kept[each]
        self._held += more
        current.kept[call] = _Output(_copied(result), inner)


@dataclass(frozen=True, eq=False)
class _Output:
    """What a call gave, and how many calls of submodules were made within it."""

    value: Any
    inner: Counter[str]


@dataclass(eq=False)
class _Pass:
    """`changed`: a layer has been called that is fitted yet, so that what follows will be another."""

    kept: dict[_Call, _Output]
    calls: Counter[str] = field(default_factory=Counter)
    changed: bool = False

    def note_change(self, *_: object) -> None:
        self.changed = True


def _worth_keeping(module: nn.Module) -> bool:
    """Whether it multiplies by matrices; anything else is computed as soon as copied."""
    return any(parameter.dim() > 1 for parameter in module.parameters())


def _is_watched(module: nn.Module) -> bool:
    """Whether something is called when its submodules are, which must not be left out; or it takes no other forward."""
    return isinstance(module, torch.jit.ScriptModule) or any(
        each._forward_hooks or each._forward_pre_hooks for each in module.modules()
    )


def _restore(module: nn.Module, forward: Any) -> None:
    if forward is None:
        del module.forward
    else:
        module.forward = forward


def _state(module: nn.Module, given: object) -> list[object]:
    """By this a call is known that leaves more behind than its result: attributes, or changed inputs."""
    inputs = [leaf._version for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
    attributes = [value for each in module.modules() for value in vars(each).values()]
    sizes = [len(value) for value in attributes if isinstance(value, (dict, list, set))]
    return [tuple(inputs), tuple(sizes), *attributes]


def _same(before: list[object], after: list[object]) -> bool:
    changing = before[:2] == after[:2] and len(before) == len(after)
    return changing and all(one is other for one, other in zip(before[2:], after[2:], strict=True))


def _is_plain(result: object) -> bool:
    return all(isinstance(leaf, Tensor | int | float | str | None) for leaf in tree_leaves(result))


def _copied(result: Any) -> Any:
    """What follows may write into a result."""
    return tree_map_only(Tensor, lambda tensor: tensor.clone(), result)


def _bytes(result: object) -> int:
    return sum(leaf.nbytes for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
