"""The weights that an ONNX file holds itself, left where they lie: parsed, they would be in memory several times.

A file is a `ModelProto` in protocol buffers' wire format (protobuf.dev/programming-guides/encoding). Its large weights
are told by their place in the file, in ONNX's own words for weights outside of it: one way of reading serves both.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import onnx

LARGE = 2**20  # bytes of a tensor that is worth it
_MOST_FIELDS = 200_000
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Numbers of the fields, from onnx.proto.
_GRAPH, _INITIALIZER = 7, 5  # of ModelProto, of GraphProto
_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 9, 13, 14  # of TensorProto


class _UnusualError(Exception):
    """The bytes are not laid out as writers do it; onnx itself is to say what they are."""


class _Field(NamedTuple):
    number: int
    kind: int
    begin: int  # of its tag
    value: int  # where its content begins
    end: int


def load_without_weights(path: Path) -> onnx.ModelProto:
    """The model in a file, large weights of its graph as outside ones whose file is this very one.

    Raises what onnx raises for bytes that are no model.
    """
    import onnx

    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            slim = b"".join(_model(content, path.name))
        except _UnusualError:
            return onnx.load(path, load_external_data=False)
    return onnx.load_model_from_string(slim)


def _model(content: mmap.mmap, name: str) -> Iterator[bytes]:
    budget = iter(range(_MOST_FIELDS))
    fields = list(_fields(content, 0, len(content), budget))
    if sum(field.number == _GRAPH for field in fields) != 1:  # several are merged
        raise _UnusualError
    for field in fields:
        if field.number == _GRAPH and field.kind == _BYTES:
            yield _bytes_field(_GRAPH, b"".join(_graph(content, field, name, budget)))
        else:
            yield content[field.begin : field.end]


def _graph(content: mmap.mmap, graph: _Field, name: str, budget: Iterator[int]) -> Iterator[bytes]:
    for field in _fields(content, graph.value, graph.end, budget):
        large = field.number == _INITIALIZER and field.kind == _BYTES and field.end - field.value > LARGE
        parts = _tensor(content, field, name, budget) if large else (content[field.begin : field.end],)
        yield from parts


def _tensor(content: mmap.mmap, tensor: _Field, name: str, budget: Iterator[int]) -> Iterator[bytes]:
    fields = list(_fields(content, tensor.value, tensor.end, budget))
    raw = [field for field in fields if field.number == _RAW_DATA and field.kind == _BYTES]
    if len(raw) != 1 or any(field.number in (_EXTERNAL_DATA, _DATA_LOCATION) for field in fields):
        yield content[tensor.begin : tensor.end]
        return
    place = {"location": name, "offset": raw[0].value, "length": raw[0].end - raw[0].value}
    kept = [content[field.begin : field.end] for field in fields if field is not raw[0]]
    entries = [
        _bytes_field(_EXTERNAL_DATA, _bytes_field(1, key.encode()) + _bytes_field(2, str(value).encode()))
        for key, value in place.items()
    ]
    yield _bytes_field(_INITIALIZER, b"".join([*kept, *entries, _varint(_DATA_LOCATION << 3 | _VARINT), _varint(1)]))


def _fields(content: mmap.mmap, begin: int, end: int, budget: Iterator[int]) -> Iterator[_Field]:
    """The fields of a message between two places. Raises `_UnusualError`."""
    while begin < end:
        if next(budget, None) is None:
            raise _UnusualError
        tag, value = _read_varint(content, begin, end)
        kind = tag & 7
        if kind == _VARINT:
            after = _read_varint(content, value, end)[1]
        elif kind == _BYTES:
            length, value = _read_varint(content, value, end)
            after = value + length
        elif kind in (_FIXED32, _FIXED64):
            after = value + (4 if kind == _FIXED32 else 8)
        else:
            raise _UnusualError
        if after > end or tag >> 3 == 0:
            raise _UnusualError
        yield _Field(tag >> 3, kind, begin, value, after)
        begin = after


def _read_varint(content: mmap.mmap, begin: int, end: int) -> tuple[int, int]:
    """The number that begins there, and where it ends."""
    number = 0
    for place in range(begin, min(end, begin + 10)):
        byte = content[place]
        number |= (byte & 0x7F) << 7 * (place - begin)
        if byte < 0x80:
            return number, place + 1
    raise _UnusualError


def _varint(number: int) -> bytes:
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def _bytes_field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content
