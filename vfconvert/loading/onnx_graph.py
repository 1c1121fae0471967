"""The graph of an ONNX file as `torch.fx`: layers with weights and pooling are modules, the rest functions."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.proxy import GraphAppendingTracer

from vfconvert.errors import first_line
from vfconvert.json_fields import printable
from vfconvert.loading.exported_graph import UnknownGraphError
from vfconvert.loading.onnx_inputs import Shape, StatedInput, batch_of
from vfconvert.loading.onnx_layers import LAYERS
from vfconvert.loading.onnx_operators import FUNCTIONS
from vfconvert.loading.onnx_values import Call, Sizes, Value
from vfconvert.nn.several_inputs import placeholder

_OWN_DOMAINS = ("", "ai.onnx")


class Importer:
    """Builds a module node by node; `constants` are the file's initializers by name, `shapes` what is inferred."""

    def __init__(
        self,
        constants: Mapping[str, Tensor],
        shapes: dict[str, Shape],
        given: Sequence[StatedInput],
        *,
        opset: int = 18,
    ) -> None:
        """`given` are the inputs; where one has its channels last, the module still takes `(B, C, H, W)`."""
        self._constants, self._shapes, self._opset = constants, shapes, opset
        self._root, self._graph = nn.Module(), fx.Graph()
        self._tracer = GraphAppendingTracer(self._graph)
        self._values: dict[str, Value] = dict(constants)
        self._kept: dict[int, fx.Proxy] = {}
        self._batch = batch_of(given)
        images: list[Value] = [fx.Proxy(placeholder(self._graph, one.argument), self._tracer) for one in given]
        for one, image in zip(given, images, strict=True):
            # by torch.permute, which a transposition back to channels first is merged with
            self._values[one.name] = torch.permute(image, (0, 2, 3, 1)) if one.channels_last else image

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
        check_known(kind, domain)
        if kind in ("Add", "Mul") and inputs[0] in self._constants:  # a number stands second in torch
            inputs = inputs[::-1]
        call = Call(
            kind=kind,
            inputs=tuple(self._values[given] if given else None for given in inputs),
            attributes=attributes,
            shapes=tuple(self.shape(given) for given in inputs),
            outputs=sum(map(bool, outputs)),
            batch=self._batch,
            opset=self._opset,
            constant=lambda value: self._tensor(value) if isinstance(value, Tensor) else value,
        )
        try:
            found = self._called(call, self._name(name, inputs))
        except UnknownGraphError:
            raise
        except Exception as error:  # any type: what a function of torch does with arguments that are not its own
            raise UnknownGraphError(f"{kind} ({printable(name or outputs[0])}): {first_line(error)}") from error
        for output, value in zip(outputs, found if isinstance(found, list) else [found], strict=False):
            self._values[output] = value

    def shape(self, name: str) -> Shape | None:
        """What is known of the shape of a value."""
        if name in self._constants:
            return tuple(self._constants[name].shape)
        value = self._values.get(name)
        return tuple(value.shape) if isinstance(value, Tensor) else self._shapes.get(name)

    def numbers(self, name: str) -> tuple[Any, ...] | None:
        """The integers of a shape that is computed; None of any other value."""
        value = self._values.get(name)
        return value.values if isinstance(value, Sizes) else None

    def _called(self, call: Call, name: str) -> Value:
        if call.kind in LAYERS:
            return LAYERS[call.kind](call, functools.partial(self._layer, name))
        return FUNCTIONS[call.kind](self._as_values(call))

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
        numbers = (1,) if call.kind in _ARITHMETIC else ()  # where one number may stay one
        inputs = tuple(
            value if position in numbers and isinstance(value, Tensor) and value.numel() == 1 else call.constant(value)
            for position, value in enumerate(call.inputs)
        )
        return replace(call, inputs=inputs)

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


_QUANTIZED = ("Quantize", "Dequantize", "DynamicQuantize", "QLinear", "QGemm", "ConvInteger", "MatMulInteger")
_ARITHMETIC = frozenset(  # take a number in the place of a second tensor
    ("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
)
_COMBINING = _ARITHMETIC | {"Min", "Max", "Mean", "Sum", "Where", "Concat", "Einsum", "And", "Or", "Xor"}


def check_known(kind: str, domain: str) -> None:
    """Raise `UnknownGraphError` for an operator that is not read."""
    if kind.startswith(_QUANTIZED):
        raise UnknownGraphError(
            f"it is quantized (operator {printable(kind)}); take the float32 network that it was made from"
        )
    if domain not in _OWN_DOMAINS or (kind not in FUNCTIONS and kind not in LAYERS):
        of = f" of {printable(domain)}" if domain not in _OWN_DOMAINS else ""
        raise UnknownGraphError(f"operator {printable(kind)}{of} is not known here")


def known_operators() -> Iterator[str]:
    """Names of the operators that are read."""
    yield from sorted({*FUNCTIONS, *LAYERS})
