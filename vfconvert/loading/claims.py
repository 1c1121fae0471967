"""What a pickle may ask of torch's safe reader: the calls of a state dict, and no more numbers than the file has.

That reader runs no code. But it makes a tensor or an array of any size that it is told, lets a file name the encoding
of a text, and sets attributes of whatever a call returns.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator
from typing import Any

import torch

from vfconvert.errors import TruncatedModelError, UntrustedModelError
from vfconvert.loading.globals import Asked
from vfconvert.loading.opcodes import TUPLE, Made, Named, Stored

REPEATED = 256 * 2**20  # bytes that tensors may show beyond those stored, by steps of 0 (`expand`)
_MAKES_NUMBERS = re.compile(r"torch\.(\w+\.)*\w*(Tensor|Storage)")
_FROM_STORAGE = {f"torch._utils._rebuild_tensor{version}" for version in ("", "_v2", "_v3")}
_FROM_TYPE = "torch._tensor._rebuild_from_type_v2"  # calls a function, and sets what it returns
_NOT_BESIDE_MODULES = {
    _FROM_TYPE,
    *(f"torch._utils._rebuild_{what}" for what in ("wrapper_subclass", "nested_tensor", "sparse_tensor")),
    *(f"torch._utils._rebuild_device_tensor_from_{what}" for what in ("numpy", "cpu_tensor")),
}
_LATIN = ("latin1", "latin-1")


def check_claims(asked: Asked, where: str, *, modules: bool) -> None:
    """Raise `UntrustedModelError` for calls no state dict needs, `TruncatedModelError` for numbers that are not there.

    `modules`: the file holds modules, and its tensors are to be plain ones.
    """
    if modules and (odd := next((name for name in asked.names if name in _NOT_BESIDE_MODULES), None)):
        raise UntrustedModelError(
            f"{where}: calls {odd!r}, which no module of torch's own needs; save its state_dict()"
        )
    try:
        _check_storages(asked)
        beyond = sum(_beyond(function, arguments) for function, arguments in asked.traced.calls)
    except _RefusedError as error:
        raise UntrustedModelError(
            f"{where}: asks for what the safe reader does not do ({error}); save the network's state_dict()"
        ) from error
    except (AttributeError, TypeError, ValueError, IndexError, KeyError) as error:
        raise TruncatedModelError(
            f"{where}: cut off or damaged: its tensors do not fit the numbers in it; download or save it again"
        ) from error
    if beyond > REPEATED:
        raise UntrustedModelError(
            f"{where}: its tensors show {beyond:,} bytes more than it holds; save them as contiguous() tensors"
        )
    for target in asked.traced.filled:
        made_of = target.function if isinstance(target, Made) else None
        if isinstance(target, Stored) or (isinstance(made_of, Named) and _is_numbers(made_of.name)):
            raise UntrustedModelError(
                f"{where}: replaces the numbers of a tensor that it has made; save the network's state_dict()"
            )


class _RefusedError(Exception):
    pass


def _is_numbers(name: str) -> bool:
    return bool(_MAKES_NUMBERS.fullmatch(name)) or name.startswith(("torch._utils.", "torch.nn.parameter."))


def _check_storages(asked: Asked) -> None:
    needed = dict[str, int]()
    for stored in asked.traced.stored:
        key, size = _storage(stored)
        needed[key] = max(needed.get(key, 0), size)
    if asked.records is None:
        fits = sum(needed.values()) <= asked.bytes
    else:
        fits = all(size <= asked.records.get(f"data/{key}", -1) for key, size in needed.items())
    if not fits:
        raise ValueError("numbers beyond the end of the file")


def _storage(stored: Stored) -> tuple[str, int]:
    """Key and bytes of a whole storage."""
    _, kind, key, _, count, *_ = _items(stored.identifier)
    return str(key), _natural(count) * _item_bytes()[kind.name]


def _available(stored: Stored) -> int:
    """Bytes of a storage, or of the view of one."""
    _, kind, _, _, count, *view = _items(stored.identifier)
    if view and view[0] is not None:
        count = _items(view[0])[2]
    return _natural(count) * _item_bytes()[kind.name]


def _beyond(function: Any, arguments: Any) -> int:
    """Bytes that the tensor made by a call shows more than are stored; 0 for any other call that is let pass."""
    if not isinstance(function, Named) or not isinstance(arguments, Made):
        raise _RefusedError("a call that no writer makes")
    name, items = function.name, _items(arguments)
    if name in _FROM_STORAGE:
        return _beyond_storage(name, items)
    if name == _FROM_TYPE:
        return _beyond(items[0], items[2])
    latin = len(items) == 2 and isinstance(items[0], str) and items[1] in _LATIN
    if name == "_codecs.encode" and not latin:
        raise _RefusedError("a text in a code other than latin1")
    if name == "builtins.bytearray" and not (latin or not items or isinstance(items[0], Made)):
        raise _RefusedError("an array of so many bytes")
    if _MAKES_NUMBERS.fullmatch(name):
        raise _RefusedError(f"a call of {name}")
    return 0


def _beyond_storage(name: str, items: tuple[Any, ...]) -> int:
    storage, offset, sizes, strides, *rest = items
    shape, steps = [_natural(one) for one in _items(sizes)], [_natural(one) for one in _items(strides)]
    bytes_each = _item_bytes()[_items(storage.identifier)[1].name]
    if name.endswith("_v3"):  # of untyped storages
        bytes_each = getattr(torch, rest[2].name.removeprefix("torch.")).itemsize
    there, count = _available(storage), math.prod(shape)
    last = _natural(offset) + sum((size - 1) * step for size, step in zip(shape, steps, strict=True))
    if count and (last + 1) * bytes_each > there:
        raise ValueError("a tensor beyond its storage")
    return max(count * bytes_each - there, 0)


def _items(value: Any) -> tuple[Any, ...]:
    """Of a tuple, or of what a call of `torch.Size` makes of one."""
    if isinstance(value, Made) and isinstance(value.function, Named) and value.function.name == "torch.Size":
        value = _items(value.items[0])[0]
    if not isinstance(value, Made) or value.function is not TUPLE:
        raise TypeError("no tuple")
    return value.items


def _natural(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("no number of anything")
    return value


@functools.cache
def _item_bytes() -> dict[str, int]:
    """Bytes of an element, by the name of the class of a storage."""
    return dict(_storage_classes())


def _storage_classes() -> Iterator[tuple[str, int]]:
    for dtype, name in torch.storage._dtype_to_storage_type_map().items():
        yield f"torch.{name}", dtype.itemsize
        yield f"torch.cuda.{name}", dtype.itemsize
    yield "torch.storage.UntypedStorage", 1
    yield "torch.storage.TypedStorage", 1
