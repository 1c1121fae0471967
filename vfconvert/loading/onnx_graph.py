"""The graph of an ONNX file as `torch.fx`: layers with weights and pooling are modules, the rest functions."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, fx, nn
from torch.fx.proxy import GraphAppendingTracer

from vfconvert.loading.exported_graph import UnknownGraphError
from vfconvert.loading.onnx_layers import LAYERS
from vfconvert.loading.onnx_operators import FUNCTIONS
from vfconvert.loading.onnx_values import Call, Sizes, Value

Shape = tuple[int | None, ...]
_OWN_DOMAINS = ("", "ai.onnx")


class Importer:
    """Builds a module node by node; `constants` are the file's initializers by name, `shapes` what is inferred."""

    def __init__(self, constants: Mapping[str, Tensor], shapes: Mapping[str, Shape], initial: Sequence[str]) -> None:
        self._constants, self._shapes = constants, shapes
        self._root, self._graph = nn.Module(), fx.Graph()
        self._tracer = GraphAppendingTracer(self._graph)
        self._values: dict[str, Value] = dict(constants)
        self._kept: dict[int, fx.Proxy] = {}
        self._batch: int | None = None
        for position, name in enumerate(initial):
            shape = shapes.get(name)
            self._batch = shape[0] if shape and position == 0 else self._batch
            self._values[name] = fx.Proxy(self._graph.placeholder(f"input_{position}"), self._tracer)

    def add(
        self,
        kind: str,
        domain: str,
        name: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        attributes: dict[str, Any],
    ) -> None:
        """One node, after those that it reads. Raises `UnknownGraphError`."""
        if domain not in _OWN_DOMAINS or (kind not in FUNCTIONS and kind not in LAYERS):
            of = f" of {domain}" if domain not in _OWN_DOMAINS else ""
            raise UnknownGraphError(f"operator {kind}{of} is not known here")
        call = Call(
            kind=kind,
            inputs=tuple(self._values[given] if given else None for given in inputs),
            attributes=attributes,
            shapes=tuple(self._shape(given) for given in inputs),
            outputs=len(outputs),
            batch=self._batch,
        )
        if kind in LAYERS:
            found = LAYERS[kind](call, functools.partial(self._layer, self._name(name, inputs)))
        else:
            found = FUNCTIONS[kind](self._as_values(call))
        for output, value in zip(outputs, found if isinstance(found, list) else [found], strict=False):
            self._values[output] = value

    def finish(self, outputs: Sequence[str]) -> fx.GraphModule:
        """The module, returning the one output or a tuple of several."""
        found = [self._tensor(self._values[name]).node for name in outputs]
        self._graph.output(found[0] if len(found) == 1 else tuple(found))
        module = fx.GraphModule(self._root, self._graph)
        module.graph.eliminate_dead_code()
        module.recompile()
        return module.eval()

    def _layer(self, name: str, module: nn.Module, value: Value) -> fx.Proxy:
        """A call of a new submodule; of a name that is taken, under another."""
        free, count = name, 1
        while hasattr(self._root, free.partition(".")[0]) and _taken(self._root, free):
            free, count = f"{name}_{count}", count + 1
        *parents, leaf = free.split(".")
        holder = self._root
        for parent in parents:
            if parent not in holder._modules:
                holder.add_module(parent, nn.Module())
            holder = holder.get_submodule(parent)
        holder.add_module(leaf, module)
        return fx.Proxy(self._graph.call_module(free, (self._tensor(value).node,)), self._tracer)

    def _tensor(self, value: Value) -> fx.Proxy:
        if isinstance(value, fx.Proxy):
            return value
        if isinstance(value, Sizes):
            raise UnknownGraphError("the sizes of a tensor are used as numbers")
        if id(value) not in self._kept:
            name = f"constant_{len(self._kept)}"
            self._root.register_buffer(name, value)
            self._kept[id(value)] = fx.Proxy(self._graph.get_attr(name), self._tracer)
            self._values[f"kept {name}"] = value  # so that no other tensor gets its id
        return self._kept[id(value)]

    def _as_values(self, call: Call) -> Call:
        """With constants that a tensor is combined with as attributes of the module."""
        combined = any(isinstance(value, fx.Proxy) for value in call.inputs)
        if not combined or call.kind not in _COMBINING:
            return call
        fewest = 2 if call.kind in _ARITHMETIC else 1
        inputs = tuple(
            self._tensor(value) if isinstance(value, Tensor) and value.numel() >= fewest else value
            for value in call.inputs
        )
        return Call(call.kind, inputs, call.attributes, call.shapes, call.outputs, call.batch)

    def _shape(self, name: str) -> Shape | None:
        if name in self._constants:
            return tuple(self._constants[name].shape)
        return self._shapes.get(name)

    def _name(self, node: str, inputs: Sequence[str]) -> str:
        """After the weight where that has a torch-like name ("layer1.0.weight"), else after the node."""
        weight = inputs[1] if len(inputs) > 1 else ""
        if re.fullmatch(r"\w+(\.\w+)*\.weight", weight, re.ASCII):
            return weight.removesuffix(".weight")
        plain = "_".join(re.findall(r"\w+", node, re.ASCII)) or "_".join(re.findall(r"\w+", weight, re.ASCII))
        return plain if plain and not plain[0].isdigit() else f"layer_{plain}"


def _taken(root: nn.Module, name: str) -> bool:
    for part in name.split("."):
        if part not in root._modules:
            return hasattr(root, part)
        root = root.get_submodule(part)
    return True


_ARITHMETIC = frozenset(  # take numbers in the place of tensors of one
    ("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
)
_COMBINING = _ARITHMETIC | {"Min", "Max", "Sum", "Where", "MatMul", "Concat", "PRelu"}


def known_operators() -> Iterator[str]:
    """Names of the operators that are read."""
    yield from sorted({*FUNCTIONS, *LAYERS})
