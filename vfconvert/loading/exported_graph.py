"""The graph of a torch.export archive, from its JSON to `torch.fx`.

torch's own reader unpickles parts of the archive, evaluates expressions and looks functions up by any name. This one
takes the operators of `exported_operators` only, and of those none that is given a text other than a choice of words:
such as the name of a file.
"""

from __future__ import annotations

import json
import keyword
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from vfconvert.loading.exported_operators import may_call
from vfconvert.nn.several_inputs import placeholder

_NAMESPACES = ("aten", "torchvision")
_NAME = re.compile(r"\w+(\.\w+)*", re.ASCII)
_MOST_CALLS = 20_000
LARGEST_SIZE = 2**31 - 1
_CHECKS = ("_assert", "sym_constrain_range", "_check")  # of sizes, which may change here
_TEXTS = frozenset(  # arguments that are a choice between a few words
    (
        "padding",
        "padding_mode",
        "mode",
        "approximate",
        "reduce",
        "rounding_mode",
        "indexing",
        "interpolation",
        "equation",
    )
)
_OPERATORS: dict[str, Callable[..., Any]] = {
    f"_operator.{name}": getattr(operator, name)
    for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "eq", "ne", "lt", "le", "gt", "ge")
}
_OPERATORS |= {f"torch.{name}": getattr(torch, name) for name in ("sym_int", "sym_float", "sym_max", "sym_min")}

# torch._export.serde.schema.ScalarType and MemoryFormat.
DTYPES = {
    **{1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16},
    **{7: torch.float32, 8: torch.float64, 10: torch.complex64, 12: torch.bool, 13: torch.bfloat16},
}
_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 4: torch.preserve_format}


class UnknownGraphError(Exception):
    """A graph that this reader does not take; the message says why."""


class ForbiddenOperatorError(UnknownGraphError):
    """A graph that calls what nothing in a file may call."""


def graph_module_of(program: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> fx.GraphModule:
    """The program of an archive as a module whose calls are those of the graph, with its parameters and buffers.

    `program` is the archive's JSON, `tensors` its weights and constants by name. Tensors carry their shape in
    `meta["shape"]`, None for open sizes. Raises `UnknownGraphError`; of damaged JSON, whatever comes.
    """
    module = program["graph_module"]
    return _Reader(module["graph"], module["signature"], module["module_call_graph"], tensors).read()


class _Reader:
    def __init__(
        self,
        graph: Mapping[str, Any],
        signature: Mapping[str, Any],
        calls: list[Mapping[str, Any]],
        tensors: Mapping[str, Tensor],
    ) -> None:
        self._json, self._signature, self._calls, self._tensors = graph, signature, calls, tensors
        self._root, self._graph = nn.Module(), fx.Graph()
        self._values: dict[str, fx.Node] = {}

    def read(self) -> fx.GraphModule:
        count = len(self._json["nodes"]) + len(self._signature["input_specs"])
        if count > _MOST_CALLS:
            raise UnknownGraphError(f"it has {count:,} weights and calls, expected {_MOST_CALLS:,} at most")
        for spec in self._signature["input_specs"]:
            self._input(*_only(spec))
        for node in self._json["nodes"]:
            self._node(node)
        self._output()
        return fx.GraphModule(self._root, self._graph)

    def _input(self, kind: str, spec: Mapping[str, Any]) -> None:
        if kind == "user_input":
            arg_kind, arg = _only(spec["arg"])
            if arg_kind != "as_tensor":
                raise UnknownGraphError(f"it takes an input that is no tensor ({arg_kind.removeprefix('as_')})")
            self._note(arg["name"], placeholder(self._graph, _identifier(arg["name"])))
            return
        names = {"parameter": "parameter_name", "buffer": "buffer_name", "tensor_constant": "tensor_constant_name"}
        if kind not in names:
            raise UnknownGraphError(f"it takes an input of kind {kind!r}")
        name = str(spec[names[kind]])
        if not _NAME.fullmatch(name):  # fx writes names into code that it compiles
            raise ForbiddenOperatorError(f"it has a weight of the name {name!r}")
        tensor = self._tensors[name]
        _put(self._root, name, nn.Parameter(tensor, tensor.is_floating_point()) if kind == "parameter" else tensor)
        self._values[spec["arg"]["name"]] = self._graph.get_attr(name)

    def _node(self, node: Mapping[str, Any]) -> None:
        target = str(node["target"])
        if target.rpartition(".ops.")[2].partition(".")[2].startswith(_CHECKS):
            return
        operation = _OPERATORS.get(target) or _operator(target)
        given = {entry["name"]: self._argument(*_only(entry["arg"])) for entry in node["inputs"]}
        if target in _OPERATORS:
            made = self._graph.call_function(operation, tuple(given.values()))
        else:
            args, kwargs = _placed(operation, given)
            made = self._graph.call_function(operation, args, kwargs)
        self._outputs(made, node["outputs"])

    def _outputs(self, made: fx.Node, outputs: list[Mapping[str, Any]]) -> None:
        found = [_only(output) for output in outputs]
        if len(found) == 1 and found[0][0] == "as_tensors":
            found = [("as_tensor", value) for value in found[0][1]]
        elif len(found) == 1:
            self._note(_value_name(*found[0]), made)
            return
        for position, (kind, value) in enumerate(found):
            if kind != "as_none":
                item = self._graph.call_function(operator.getitem, (made, position))
                self._note(_value_name(kind, value), item)

    def _note(self, name: str, node: fx.Node) -> None:
        self._values[name] = node
        described = self._json["tensor_values"].get(name)
        if described is not None:
            node.meta["shape"] = tuple(size.get("as_int") for size in described["sizes"])

    def _argument(self, kind: str, value: Any) -> Any:
        if kind == "as_none":
            return None
        if kind in ("as_tensor", "as_tensors", "as_optional_tensors"):
            return self._tensor_argument(value)
        if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
            return self._symbol(value)
        if kind in ("as_sym_ints", "as_sym_floats"):
            return [_size(self._symbol(one)) for one in value]
        if kind == "as_ints":
            return [_size(one) for one in value]
        if kind in ("as_int", "as_bool", "as_string", "as_bools"):
            return value
        if kind == "as_float":
            return float(value)
        if kind == "as_floats":
            return [float(one) for one in value]
        if kind == "as_scalar_type":
            return DTYPES[value]
        if kind == "as_memory_format":
            return _FORMATS[value]
        if kind == "as_layout":
            return torch.strided
        if kind == "as_device":
            return torch.device("cpu")
        raise UnknownGraphError(f"a call is given an argument of kind {kind.removeprefix('as_')!r}")

    def _tensor_argument(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._tensor_argument(_only(one)[1] if "name" not in one else one) for one in value]
        return self._values[value["name"]] if isinstance(value, dict) else None

    def _symbol(self, value: Mapping[str, Any]) -> Any:
        kind, held = _only(value)
        return self._values[held] if kind == "as_name" else held

    def _output(self) -> None:
        values = list[Any]()
        for spec in self._signature["output_specs"]:
            kind, entry = _only(spec)
            if kind == "user_output":
                values.append(self._argument(*_only(entry["arg"])))
            elif kind not in ("buffer_mutation", "loss_output"):  # of statistics: none are kept in evaluation
                raise UnknownGraphError(f"it has an output of kind {kind!r}")
        spec = json.loads(next(call for call in self._calls if call["fqn"] == "")["signature"]["out_spec"])
        leaves = iter(values)
        self._graph.output(_structure(spec[1], leaves))


def _structure(spec: Mapping[str, Any], leaves: Iterator[Any]) -> Any:
    """Outputs in the containers of `torch.utils._pytree`'s specification."""
    kind = spec["type"]
    if kind is None:
        return next(leaves)
    children = [_structure(child, leaves) for child in spec["children_spec"]]
    if kind == "builtins.tuple":
        return tuple(children)
    if kind == "builtins.list":
        return children
    if kind in ("builtins.dict", "collections.OrderedDict"):
        return dict(zip(json.loads(spec["context"]), children, strict=True))
    raise UnknownGraphError(f"it returns a {kind!r}")


def _operator(target: str) -> Any:
    parts = target.split(".")
    if target.startswith("torch.ops.higher_order."):
        raise UnknownGraphError(f"it calls {target!r}, a graph within the graph; export without control flow")
    if len(parts) != 5 or parts[:2] != ["torch", "ops"] or parts[2] not in _NAMESPACES:
        raise ForbiddenOperatorError(f"it calls {target!r}, which is no operator of torch or torchvision")
    space, name, overload = parts[2:]
    if not all(part.isidentifier() and not part.startswith("__") for part in (name, overload)):
        raise ForbiddenOperatorError(f"it calls {target!r}, which is no operator of torch or torchvision")
    if not may_call(space, name, overload):
        raise ForbiddenOperatorError(f"it calls {target!r}, which is none of those that networks are read with")
    packet = getattr(getattr(torch.ops, space), name, None)
    found = getattr(packet, overload, None) if isinstance(packet, torch._ops.OpOverloadPacket) else None
    if not isinstance(found, torch._ops.OpOverload):
        raise UnknownGraphError(f"it calls {target!r}, which this torch does not have")
    texts = [argument.name for argument in found._schema.arguments if "str" in str(argument.type)]
    if not _TEXTS.issuperset(texts):
        raise ForbiddenOperatorError(f"it calls {target!r}, which takes a text ({', '.join(texts)})")
    return found


def _placed(operation: Any, given: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional arguments as far as they go without a gap, the rest by name."""
    args = list[Any]()
    left = dict(given)
    for argument in operation._schema.arguments:
        if argument.kwarg_only or argument.name not in left:
            break
        args.append(left.pop(argument.name))
    return tuple(args), left


def _put(root: nn.Module, name: str, value: Tensor) -> None:
    *parents, leaf = name.split(".")
    for parent in parents:
        if parent not in root._modules:
            root.add_module(parent, nn.Module())
        root = root.get_submodule(parent)
    if isinstance(value, nn.Parameter):
        root.register_parameter(leaf, value)
    else:
        root.register_buffer(leaf, value)


def _size(value: Any) -> Any:
    """One of several whole numbers: of sizes, steps or paddings, which torch multiplies without looking."""
    if isinstance(value, int) and abs(value) > LARGEST_SIZE:
        raise ForbiddenOperatorError(f"a call is given {value} among its sizes")
    return value


def _only(entry: Mapping[str, Any]) -> tuple[str, Any]:
    """The one key and value of a union; older archives write the other keys too, as null."""
    if len(entry) == 1:
        return next(iter(entry.items()))
    held = [(key, value) for key, value in entry.items() if value is not None]
    if len(held) != 1:
        raise UnknownGraphError("a value of it has several kinds")
    return held[0]


def _value_name(kind: str, value: Any) -> str:
    if kind == "as_tensor":
        return str(value["name"])
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        return str(value["as_name"])
    raise UnknownGraphError(f"a call returns a value of kind {kind.removeprefix('as_')!r}")


def _identifier(name: str) -> str:
    return name if _NAME.fullmatch(name) and name.isidentifier() and not keyword.iskeyword(name) else "input"
