"""Repeated passes of one network that compute only what may have changed since the last.

Layers of an untraced network are fitted one after the other, each from a pass as far as the layer. What runs before the
first layer that is still to be fitted gives the same for the same images in every later pass: the outputs of those
submodules are kept, and handed out in place of a computation. Of nested submodules the outermost is kept. A call that
leaves more behind than its result, or draws random numbers, is computed every time.
"""

from __future__ import annotations

import operator
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.hooks import RemovableHandle

from vfconvert.analysis.forward import Reached

KEPT_BYTES = 2**30  # of outputs that are kept of one network

_Call = tuple[str, int]  # a submodule, and which of its calls in a pass


class Passes:
    """Passes of `network`, in eval mode.

    It is changed only between them, and only in layers that are in `pending` at that time: names are taken out when a
    layer changes no more. At most `most_bytes` are kept.
    """

    def __init__(self, network: nn.Module, pending: Collection[str] = (), most_bytes: int = KEPT_BYTES) -> None:
        self.network = network
        self._pending, self._most = pending, most_bytes
        self._held, self._size, self._batch = 0, 0, 0
        self._batches: dict[tuple[int, int], dict[_Call, _Output]] = {}  # by images in a batch, and the first of them

    def until(self, hook: RemovableHandle, images: Tensor, at: int) -> None:
        """Run on `images` `(B, C, H, W)` as far as `hook`, on a submodule, raises `Reached`; the hook is removed.

        `at` is the number of the first image: where it is the same, so are the images, until other ones are `sized`.
        """
        try:
            with torch.no_grad(), self._keeping((self._batch, at)), suppress(Reached):
                self.network(images.clone())
        finally:
            hook.remove()

    def sized(self, size: int, calls: int = 1) -> int:
        """There is memory for so many images at a time from here on, fewer in a pass for a layer of several calls.

        Returns how many. Where `size` falls, memory has run out, and less is kept. What was kept of passes of more or
        fewer images stays while there is room, since other layers may be seen in such passes again.
        """
        if size != self._size:
            self._batches.clear()
            self._held, self._most = 0, self._most // 4 if size < self._size else self._most
        self._size, self._batch = size, max(1, size // calls)
        return self._batch

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
        if current.changed:
            return forward(*given, **named)
        before, calls = _State.of(module, (given, named)), Counter(current.calls)
        result = forward(*given, **named)
        if not current.changed and _may_be_kept(result, given, named):
            after = _State.of(module, (given, named))
            if after.equals(before):
                self._keep(current, call, result, current.calls - calls)
        return result

    def _keep(self, current: _Pass, call: _Call, result: Any, inner: Counter[str]) -> None:
        last = current.calls
        within = [(name, turn) for name, turn in current.kept if last[name] - inner[name] <= turn < last[name]]
        more = _bytes(result) - sum(_bytes(current.kept[each].value) for each in within)
        if self._held + more > self._most:
            self._let_go_of_other_batches()
        if self._held + more > self._most:
            return
        for each in within:
            del current.kept[each]
        self._held += more
        current.kept[call] = _Output(_copied(result), inner)

    def _let_go_of_other_batches(self) -> None:
        for batch in [batch for batch in self._batches if batch[0] != self._batch]:
            self._held -= sum(_bytes(output.value) for output in self._batches.pop(batch).values())


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


@dataclass(frozen=True, eq=False)
class _State:
    """By this a call is known that leaves more behind than its result: attributes, buffers, changed inputs.

    `held` is all that the attributes of a module and of its submodules lead to, `versions` how often each tensor has
    been written into (None where that is not known), `chance` the states of torch's random numbers.
    """

    held: list[object]
    versions: list[int | None]
    chance: tuple[bytes, ...]

    @classmethod
    def of(cls, module: nn.Module, given: object) -> _State:
        held = [item for each in module.modules() for item in _led_to(vars(each), _LEVELS)]
        tensors = [each for each in (*tree_leaves(given), *held) if isinstance(each, Tensor)]
        chance = [torch.get_rng_state()]
        if any(tensor.is_cuda for tensor in tensors):
            chance.append(torch.cuda.get_rng_state())
        return cls(held, [_version(tensor) for tensor in tensors], tuple(each.numpy().tobytes() for each in chance))

    def equals(self, other: _State) -> bool:
        same = None not in self.versions and self.versions == other.versions and self.chance == other.chance
        return same and len(self.held) == len(other.held) and all(map(operator.is_, self.held, other.held))


_LEVELS = 3  # of what attributes hold: a list in a dictionary of a module


def _led_to(value: object, levels: int) -> Iterator[object]:
    """What containers and plain objects hold."""
    inner: Iterable[object] = ()
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, list | tuple | set | deque):
        inner = value
    elif not isinstance(value, nn.Module | Tensor | type | ModuleType) and hasattr(value, "__dict__"):
        inner = vars(value).values()
    for each in inner:
        yield each
        if levels > 1:
            yield from _led_to(each, levels - 1)


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def _may_be_kept(result: object, *given: object) -> bool:
    """Whether copies of the result do the same: what is written into it later must not be read elsewhere."""
    leaves = tree_leaves(result)
    made, read = ([leaf for leaf in each if isinstance(leaf, Tensor)] for each in (leaves, tree_leaves(given)))
    if not all(isinstance(leaf, Tensor | int | float | str | None) for leaf in leaves):
        return False
    if any(tensor.layout != torch.strided for tensor in (*made, *read)):
        return False
    memory = [leaf.untyped_storage().data_ptr() for leaf in made]
    shared = {leaf.untyped_storage().data_ptr() for leaf in read}.intersection(memory) or len(set(memory)) < len(memory)
    return not shared and not any(leaf.requires_grad for leaf in made)


def _copied(result: Any) -> Any:
    """What follows may write into a result."""
    return tree_map_only(Tensor, lambda tensor: tensor.clone(), result)


def _bytes(result: object) -> int:
    return sum(leaf.nbytes for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
