"""Shapes that the file's own inference left open, found node by node with what the import has learned since."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from vfconvert.loading.onnx_inputs import Shape, shape_of

if TYPE_CHECKING:
    import onnx


class _Known(Protocol):
    def shape(self, name: str) -> Shape | None: ...

    def numbers(self, name: str) -> tuple[object, ...] | None: ...


class Inference:
    """Adds to `shapes` those of a node's outputs; `known` tells what the import knows of its inputs."""

    def __init__(self, model: onnx.ModelProto, shapes: dict[str, Shape], known: _Known) -> None:
        graph = model.graph
        self._shapes, self._known, self._opsets = shapes, known, list(model.opset_import)
        typed = (*graph.input, *graph.output, *graph.value_info)
        self._types = {value.name: value.type.tensor_type.elem_type for value in typed}
        self._types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._version = model.ir_version

    def complete(self, node: onnx.NodeProto) -> None:
        """Where an output has no shape yet, infer it; where that fails, it stays unknown."""
        if all(name in self._shapes for name in node.output if name):
            return
        if node.op_type == "Reshape" and (sizes := self._known.numbers(node.input[1])) is not None:
            known = (size if isinstance(size, int) and size > 0 else None for size in sizes)
            self._shapes[node.output[0]] = tuple(known)
            return
        for name, found in self._inferred(node).items():
            self._types[name] = found.type.tensor_type.elem_type
            shape = shape_of(found)
            if shape is not None:
                self._shapes.setdefault(name, shape)

    def _inferred(self, node: onnx.NodeProto) -> dict[str, onnx.ValueInfoProto]:
        import onnx

        try:
            opset = max(entry.version for entry in self._opsets if entry.domain == node.domain)
            schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
            types = {name: self._type(name) for name in node.input if name}
            data = {name: self._constants[name] for name in node.input if name in self._constants}
            found = onnx.shape_inference.infer_node_outputs(
                schema, node, types, data, opset_imports=self._opsets, ir_version=self._version
            )
        except Exception:  # of onnx's own kinds: then its shape stays unknown, and who needs it says so
            return {}
        return {name: onnx.helper.make_value_info(name, kind) for name, kind in found.items()}

    def _type(self, name: str) -> onnx.TypeProto:
        import onnx

        shape = self._known.shape(name)
        kind = self._types.get(name) or onnx.TensorProto.FLOAT
        return onnx.helper.make_tensor_type_proto(kind, shape)
