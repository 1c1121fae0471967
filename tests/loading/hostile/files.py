"""What a hostile or broken file is, good files to break, and the pieces that hostile ones are made of."""

import io
import random
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import safetensors.torch
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn


@dataclass(frozen=True)
class Hostile:
    """A file: `codes` are the exit codes that answer it (none: damage may go unseen), `beside` other files by name."""

    name: str
    content: bytes
    codes: tuple[int, ...] = ()
    suffix: str = ".pt"
    beside: Mapping[str, bytes] = field(default_factory=dict)
    architecture: bool = False
    length: int | None = None  # of a sparse file


def small_network() -> nn.Sequential:
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), *head).eval()


def saved(value: object, **how: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **how)
    return buffer.getvalue()


def onnx_model(nodes: list[onnx.NodeProto], constants: Mapping[str, Any], **more: Any) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **more)


def good_files() -> dict[str, Hostile]:
    """A good file of every format."""
    network, program = small_network(), io.BytesIO()
    torch.export.save(torch.export.export(network, (torch.zeros(2, 3, 8, 8),)), program)
    weight = torch.rand(8, 4, 3, 3).numpy()
    model = onnx_model(
        [helper.make_node("Conv", ["x", "w"], ["z"]), helper.make_node("Relu", ["z"], ["y"])], {"w": weight}
    )
    state = {"state_dict": network.state_dict(), "epoch": 3}
    return {
        "module": Hostile("module", saved(network)),
        "weights": Hostile("weights", saved(state), architecture=True),
        "legacy": Hostile("legacy", saved(state, _use_new_zipfile_serialization=False), architecture=True),
        "safetensors": Hostile(
            "safetensors", safetensors.torch.save(network.state_dict()), suffix=".safetensors", architecture=True
        ),
        "exported": Hostile("exported", program.getvalue(), suffix=".pt2"),
        "onnx": Hostile("onnx", model.SerializeToString(), suffix=".onnx"),
    }


def records_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(records: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def archive_of(pickled: bytes, storages: Mapping[str, bytes] | None = None) -> bytes:
    """An archive of torch.save around a pickle."""
    records = {f"archive/data/{key}": content for key, content in (storages or {}).items()}
    return packed({"archive/data.pkl": pickled, "archive/version": b"3\n", **records})


# Opcodes of pickles, protocol 2.


def pickle_of(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def tuple_of(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def named(dotted: str) -> bytes:
    module, _, name = dotted.rpartition(".")
    return f"c{module}\n{name}\n".encode()


def call(dotted: str, *arguments: bytes) -> bytes:
    return named(dotted) + tuple_of(*arguments) + b"R"


def made(dotted: str, **state: bytes) -> bytes:
    """An object of a class, new and then filled."""
    items = b"".join(text(name) + value for name, value in state.items())
    return named(dotted) + b")\x81}(" + items + b"ub"


def storage(key: str, count: int, kind: str = "FloatStorage") -> bytes:
    return tuple_of(text("storage"), named(f"torch.{kind}"), text(key), text("cpu"), number(count)) + b"Q"


def tensor(stored: bytes, sizes: list[int], steps: list[int], offset: int = 0) -> bytes:
    shape, strides = (tuple_of(*map(number, values)) for values in (sizes, steps))
    hooks = call("collections.OrderedDict")
    return call("torch._utils._rebuild_tensor_v2", stored, number(offset), shape, strides, b"\x89", hooks)


def module(dotted: str = "torch.nn.modules.linear.Identity", parts: bytes = b"", **state: bytes) -> bytes:
    """A module of torch's, with submodules (pairs of a name and a module) and attributes."""
    hooks = (f"_{way}_{moment}hooks" for way in ("forward", "backward") for moment in ("", "pre_"))
    empty = dict.fromkeys(("_parameters", "_buffers", *hooks), b"}")
    return made(dotted, **{"training": b"\x88", **empty, "_modules": b"}(" + parts + b"u", **state})


def fuzzed(good: Mapping[str, Hostile], each: int, seed: int = 0) -> Iterator[Hostile]:
    """Good files cut short, overwritten and spliced, by chance of a seed."""
    numbers = random.Random(seed)
    for kind, file in good.items():
        for count in range(each):
            bad = _mutated(bytearray(file.content), numbers, count % 4)
            yield Hostile(f"fuzz-{kind}-{count}", bytes(bad), (), file.suffix, file.beside, file.architecture)


def _mutated(content: bytearray, numbers: random.Random, how: int) -> bytearray:
    if how == 0:
        return content[: numbers.randrange(len(content))]
    if how == 1:
        begin, end = sorted(numbers.randrange(len(content)) for _ in range(2))
        return content[:begin] + content[end:] if numbers.random() < 0.5 else content[:end] + content[begin:]
    interesting = (0, 1, 0x7F, 0x80, 0xFF)
    pick: Callable[[], int] = lambda: numbers.choice(interesting) if how == 2 else numbers.randrange(256)  # noqa: E731
    for _ in range(numbers.choice((1, 3, 20))):
        content[numbers.randrange(len(content))] = pick()
    return content


def written(file: Hostile, folder: Path) -> Path:
    """The file and those beside it, in a folder of their own."""
    home = folder / file.name
    home.mkdir()
    for name, content in file.beside.items():
        (home / name).write_bytes(content)
    path = home / f"model{file.suffix}"
    path.write_bytes(file.content)
    if file.length is not None:
        with path.open("r+b") as opened:
            opened.truncate(file.length)
    return path
