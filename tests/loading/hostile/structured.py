"""Hostile safetensors, archives of torch.export and ONNX files."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.loading.hostile.files import Hostile, onnx_model, packed, records_of, saved

DAMAGED, UNTRUSTED, UNREAD = (11,), (13,), (26,)


def safetensors_files() -> Iterator[Hostile]:
    def file(name: str, header: bytes, numbers: bytes = bytes(16), length: int | None = None) -> Hostile:
        size = len(header) if length is None else length
        content = size.to_bytes(8, "little") + header + numbers
        return Hostile(f"safetensors-{name}", content, DAMAGED, ".safetensors", architecture=True)

    def entry(name: str, kind: str, shape: list[int], place: list[int], more: dict[str, Any] | None = None) -> Hostile:
        header = {"w": {"dtype": kind, "shape": shape, "data_offsets": place}, **(more or {})}
        return file(name, json.dumps(header).encode())

    yield file("length", b"{}", length=2**63)
    yield file("length-most", b"{}", length=2**64 - 1)
    yield file("length-allowed", b"{}", length=99_999_999)
    yield entry("beyond", "F32", [4], [0, 10**12])
    yield entry("shape", "F32", [10**6, 10**6], [0, 16])
    yield entry("overflow", "F32", [2**62, 2**62], [0, 16])
    yield entry("negative", "F32", [-4], [0, 16])
    yield entry("backwards", "F32", [4], [16, 0])
    yield entry("kind", "F31", [4], [0, 16])
    yield entry("hole", "F32", [2], [8, 16])
    yield entry("overlap", "F32", [4], [0, 16], {"v": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}})
    yield file("nested", b'{"w":' + b"[" * 10**5 + b"]" * 10**5 + b"}")
    yield file("text", b'{"w": \xff\xfe}')
    yield file("list", b"[1, 2, 3]")
    yield file("cut", b'{"w": {"dtype"')


def exported_files(good: bytes) -> Iterator[Hostile]:
    records = {name.partition("/")[2]: content for name, content in records_of(good).items()}
    graph, config = "models/model.json", "data/weights/model_weights_config.json"

    def file(name: str, codes: tuple[int, ...], changed: dict[str, bytes]) -> Hostile:
        content = packed({f"top/{key}": value for key, value in {**records, **changed}.items()})
        return Hostile(f"exported-{name}", content, codes, ".pt2")

    def with_graph(name: str, codes: tuple[int, ...], change: Callable[[dict[str, Any]], object]) -> Hostile:
        program = json.loads(records[graph])
        change(program["graph_module"])
        return file(name, codes, {graph: json.dumps(program).encode()})

    def with_weight(name: str, codes: tuple[int, ...], change: Callable[[dict[str, Any]], object]) -> Hostile:
        weights = json.loads(records[config])
        change(next(iter(weights["config"].values())))
        return file(name, codes, {config: json.dumps(weights).encode()})

    targets = (
        *("os.system", "builtins.eval", "builtins.exec", "torch.load", "torch.ops.load_library", "torch.hub.load"),
        *("torch.ops.aten.from_file.default", "torch.ops.aten.set_.source_Storage", "torch.ops.aten.resize_.default"),
        *("torch.ops.aten.__class__.default", "torch.ops.prim.Print.default", "torch.ops.aten._embedding_bag.default"),
        *(
            "torch.ops.aten.save.default",
            "torch.ops..aten.relu",
            "torch.ops.aten.relu.__init__",
            "torch.ops.vf.x.default",
        ),
    )
    for target in targets:
        yield with_graph(f"call-{target}", UNTRUSTED, lambda m, t=target: m["graph"]["nodes"][0].update(target=t))
    name = 'x"), open("canary", "w"), ("'
    yield with_graph("name", UNTRUSTED, lambda m: _first_weight(m).update(parameter_name=name))
    yield with_graph("missing", DAMAGED, lambda m: _first_weight(m).update(parameter_name="no_such"))
    yield with_graph("calls", UNREAD, lambda m: m["graph"].update(nodes=m["graph"]["nodes"][:1] * 20_001))
    yield with_graph("spec", DAMAGED, lambda m: m["module_call_graph"][0]["signature"].update(out_spec="[" * 10**5))
    yield file("nested", DAMAGED, {graph: b"[" * 10**6 + b"]" * 10**6})
    yield file("number", DAMAGED, {graph: b"1" * 10**6})
    yield file("list", DAMAGED, {graph: b"[]"})
    yield file("cut", DAMAGED, {graph: records[graph][:1000]})
    yield with_weight("beyond", DAMAGED, lambda w: w["tensor_meta"]["sizes"][0].update(as_int=10**12))
    yield with_weight("below", DAMAGED, lambda w: w["tensor_meta"]["storage_offset"].update(as_int=-1))
    yield with_weight("path", DAMAGED, lambda w: w.update(path_name="../../../../etc/passwd"))
    yield with_weight("kind", DAMAGED, lambda w: w["tensor_meta"].update(dtype=99))
    yield with_weight("repeated", UNTRUSTED, _repeat)
    yield file("programs", UNREAD, {"models/other.json": records[graph]})
    pickled = {"use_pickle": True}
    entry = next(iter(json.loads(records[config])["config"].values()))["path_name"]
    bad = json.loads(records[config])
    next(iter(bad["config"].values())).update(pickled)
    changed = {config: json.dumps(bad).encode()}
    for kind, content in {"text": saved("text"), "alien": b"hello", "zeros": bytes(100), "empty": b""}.items():
        yield file(f"pickle-{kind}", UNTRUSTED, {**changed, f"data/weights/{entry}": content})


def _first_weight(program: dict[str, Any]) -> dict[str, Any]:
    specs = program["signature"]["input_specs"]
    found: dict[str, Any] = next(spec["parameter"] for spec in specs if spec.get("parameter"))
    return found


def _repeat(weight: dict[str, Any]) -> None:
    for size, stride in zip(weight["tensor_meta"]["sizes"], weight["tensor_meta"]["strides"], strict=True):
        size["as_int"], stride["as_int"] = 10**3, 0


def onnx_files() -> Iterator[Hostile]:
    weight, node = np.zeros((8, 4, 3, 3), np.float32), helper.make_node
    conv = node("Conv", ["x", "w"], ["y"])

    def file(name: str, codes: tuple[int, ...], model: onnx.ModelProto, **more: Any) -> Hostile:
        return Hostile(f"onnx-{name}", model.SerializeToString(), codes, ".onnx", **more)

    def constants(name: str, nodes: list[onnx.NodeProto], codes: tuple[int, ...] = UNREAD, **values: Any) -> Hostile:
        arrays = {key: np.asarray(value) for key, value in values.items()}
        return file(name, codes, onnx_model([*nodes, conv], {**arrays, "w": weight}))

    def outside(location: str, size: int = weight.nbytes, offset: int = 0) -> onnx.TensorProto:
        tensor = numpy_helper.from_array(weight, "w")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, "offset": str(offset), "length": str(size)}.items():
            tensor.external_data.add(key=key, value=value)
        return tensor

    def in_graph(tensor: onnx.TensorProto) -> onnx.ModelProto:
        model = onnx_model([conv], {})
        model.graph.initializer.append(tensor)
        return model

    for place in ("../secret", "/etc/passwd", "a/../../secret", "..", "/proc/self/mem", "/dev/zero"):
        yield file(f"outside-{place.replace('/', '-')}", UNTRUSTED, in_graph(outside(place)))
        constant = node("Constant", [], ["w"], value=outside(place))
        yield file(f"attribute-{place.replace('/', '-')}", UNTRUSTED, onnx_model([constant, conv], {}))
    inner = helper.make_graph([node("Constant", [], ["c"], value=outside("../secret"))], "inner", [], [])
    chosen = node("If", ["x"], ["w"], then_branch=inner, else_branch=inner)
    yield file("subgraph", UNTRUSTED, onnx_model([chosen, conv], {}))
    function = helper.make_function("own", "f", [], ["c"], list(inner.node), [helper.make_opsetid("", 18)])
    yield file("function", UNTRUSTED, onnx_model([node("f", [], ["w"], domain="own"), conv], {}, functions=[function]))
    sparse = onnx_model([conv], {})
    sparse.graph.sparse_initializer.add().values.CopyFrom(outside("../secret"))
    yield file("sparse", UNTRUSTED, sparse)
    beside = {"weights": bytes(100)}
    for name, size, offset in (("cut", weight.nbytes, 0), ("terabytes", 10**12, 0), ("before", weight.nbytes, -8)):
        yield file(f"outside-{name}", DAMAGED, in_graph(outside("weights", size, offset)), beside=beside)
    yield file("outside-missing", DAMAGED, in_graph(outside("weights")))
    for name, sizes in {"huge": [10**6, 10**6], "more": [8, 4, 3, 4], "negative": [-8, 4, 3, 3], "none": []}.items():
        tensor = numpy_helper.from_array(weight, "w")
        tensor.ClearField("dims")
        tensor.dims.extend(sizes)
        yield file(f"sizes-{name}", (11, 26), in_graph(tensor))
    for kind in (0, 8, 14, 99):
        tensor = numpy_helper.from_array(weight, "w")
        tensor.data_type = kind
        yield file(f"kind-{kind}", (11, 26), in_graph(tensor))
    long, pair = np.array([10**12]), np.array([10**6, 10**6])
    ones = np.ones((1, 10**5), np.float32)
    yield constants("fill", [node("ConstantOfShape", ["n"], ["c"])], n=long)
    yield constants("expand", [node("Expand", ["v", "n"], ["c"])], v=np.float32([1]), n=pair)
    yield constants("outer", [node("Mul", ["a", "b"], ["c"])], a=ones, b=ones.T)
    yield constants("product", [node("MatMul", ["b", "a"], ["c"])], a=ones, b=ones.T)
    yield constants(
        "pad", [node("Pad", ["a", "n"], ["c"])], (11, 26), a=np.zeros(4, np.float32), n=np.array([0, 10**12])
    )
    yield constants("range", [node("Range", ["a", "b", "d"], ["c"])], a=0, b=10**12, d=1)
    yield constants("tile", [node("Tile", ["a", "n"], ["c"])], a=np.float32([1]), n=long)
    both = [node("Concat", [f"c{i}", f"c{i}"], [f"c{i + 1}"], axis=0) for i in range(50)]
    yield constants("doubled", both, c0=np.zeros(1000, np.float32))
    shape = node("Shape", ["x"], ["s0"])
    yield constants(
        "sizes-doubled", [shape, *(node("Concat", [f"s{i}"] * 2, [f"s{i + 1}"], axis=0) for i in range(50))]
    )
    yield constants("sizes-squared", [shape, *(node("Mul", [f"s{i}"] * 2, [f"s{i + 1}"]) for i in range(60))])
    laughs = [
        helper.make_function(
            "own", f"f{i + 1}", ["a"], ["b"],
            [node(f"f{i}", ["a"], ["m"], domain="own"), node(f"f{i}", ["m"], ["b"], domain="own")]
            if i else [node("Relu", ["a"], ["b"])],
            [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)],
        )
        for i in range(60)
    ]  # fmt: skip
    used = node("f60", ["x"], ["y"], domain="own")
    yield file("functions", UNREAD, onnx_model([used], {}, functions=laughs))
    ring = helper.make_function("own", "f60", ["a"], ["b"], [used], [helper.make_opsetid("own", 1)])
    yield file("ring", UNREAD, onnx_model([used], {}, functions=[ring]))
    yield file("nodes", UNREAD, onnx_model([node("Relu", ["x"], ["y"])] * 20_001, {}))
    deep = b""
    for _ in range(500):  # graphs in attributes of nodes
        node_of = b"\x2a" + _varint(len(deep) + 1 + len(_varint(len(deep)))) + b"\x32" + _varint(len(deep)) + deep
        deep = b"\x0a" + _varint(len(node_of)) + node_of
    yield Hostile("onnx-deep", b"\x08\x08\x3a" + _varint(len(deep)) + deep, (11, 26), ".onnx")
    yield Hostile("onnx-length", b"\x08\x08\x3a\xff\xff\xff\xff\x07" + bytes(20), DAMAGED, ".onnx")
    yield Hostile("onnx-varint", b"\x08\x08\x12" + b"\xff" * 50, DAMAGED, ".onnx")
    yield Hostile("onnx-sparse-3GiB", b"\x08\x08\x3a", UNREAD, ".onnx", length=3 * 2**30)
    evil = 'w"), open("canary", "w"), ("'
    named = helper.make_node("Conv", ["x", evil], ["y"], name='n"); import os; ("')
    yield file("name", (), onnx_model([named], {evil: weight}))
    yield file("domain", UNREAD, onnx_model([helper.make_node("Run", ["x"], ["y"], domain="evil")], {}))
    cyclic = [node("Relu", ["b"], ["a"]), node("Relu", ["a"], ["b"]), conv]
    yield file("cycle", (11, 26), onnx_model(cyclic, {"w": weight}))


def _varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])
