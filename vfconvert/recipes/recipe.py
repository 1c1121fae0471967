"""The recipe of a converted network: what its `.safetensors` file says of it besides the numbers, as JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from vfconvert.errors import NotAModelError, TruncatedModelError, UnsupportedModelError, first_line
from vfconvert.ops.blocks import PLAIN, VARIANTS
from vfconvert.specs import ConvGeometry, VersatileSpec

SCHEMA = 1
KEY = "vfconvert"  # of the recipe in the header
_ADDED = (
    "group_primaries",
    "whole_window",
    "linear",
    "plain",
    "input_channels",
)  # fields that files of before do not have
KNOWN_VARIANTS = (*VARIANTS, PLAIN)
_SHOWN = 80  # characters of a value in a message


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerRecipe:
    """One versatile layer. `variant` is how lowering computes it; None: as it does by default."""

    name: str
    geometry: ConvGeometry
    spec: VersatileSpec
    scale: bool
    order: bool
    variant: str | None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor of the layer, by its name in the layer."""
        g = self.geometry
        found: dict[str, tuple[int, ...]] = {
            "weight": (self.spec.primaries(g), g.group_inputs, *g.kernel_size),
            "rows": (g.out_channels,),
        }
        if self.scale:
            found["scale"] = (g.out_channels,)
        if g.bias:
            found["bias"] = (g.out_channels,)
        if self.order:
            found["order"] = (g.group_inputs,)
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """All that rebuilds a converted network but its numbers.

    `shared`: the name under which a tensor is stored. `plain`: what `vfconvert.plain` makes of the original was
    converted. `linear`: the Linear layers that are convolutions of a flattened map, and the map's `(C, h, w)`.
    `input_channels`: how `input_shape` is shared out where the network has several inputs.
    """

    schema: int
    architecture: str | None
    architecture_arguments: Mapping[str, object]
    input_shape: tuple[int, int, int]
    layers: tuple[LayerRecipe, ...]
    shared: Mapping[str, str]
    metadata: Mapping[str, str]
    plain: bool = False
    linear: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    input_channels: tuple[int, ...] = ()


def read_recipe(text: str | None, path: Path) -> Recipe:
    """The recipe in a header, every field of it checked, but for what only the architecture can tell."""
    if text is None:
        raise NotAModelError(f"{path}: has no recipe in its header; open it as weights, with --arch")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"no JSON: {first_line(error)}") from error
    schema = value.get("schema") if isinstance(value, dict) else None
    if type(schema) is int and schema != SCHEMA:
        raise UnsupportedModelError(
            f"{path}: recipe schema {shown(schema)}, expected {SCHEMA}; it takes another version of vfconvert"
        )
    try:
        return recipe_of(value)
    except FieldError as error:
        raise damaged(path, str(error)) from error


class FieldError(ValueError):
    """What is wrong with a field of a recipe."""


def recipe_of(value: object) -> Recipe:
    """A recipe from what JSON holds; raises `FieldError`."""
    recipe: Recipe = _decoded(Recipe, value, "recipe")
    _check(recipe)
    return recipe


def _decoded(kind: Any, value: Any, where: str) -> Any:
    """A value of JSON as the type that the annotation `kind` names, every field there and no other."""
    arguments = get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        names = [each.name for each in dataclasses.fields(kind)]
        given = _of_type(dict, value, where)
        if wrong := next((name for name in names if name not in given and name not in _ADDED), None):
            raise FieldError(f"{where} has no {wrong!r}")
        if odd := next((name for name in given if name not in names), None):
            raise FieldError(f"{where} has an unknown {shown(odd)}")
        return kind(**{name: _decoded(hints[name], given[name], f"{where}.{name}") for name in names if name in given})
    if get_origin(kind) is tuple:
        items = _of_type(list, value, where)
        kinds = arguments[:1] * len(items) if arguments[-1] is Ellipsis else arguments
        if len(items) != len(kinds):
            raise FieldError(f"{where}: got {len(items)} entries, expected {len(kinds)}")
        return tuple(
            _decoded(k, item, f"{where}[{index}]") for index, (k, item) in enumerate(zip(kinds, items, strict=True))
        )
    if get_origin(kind) is Mapping:
        return {
            key: _decoded(arguments[1], item, f"{where}[{shown(key)}]")
            for key, item in _of_type(dict, value, where).items()
        }
    if isinstance(kind, types.UnionType):
        for choice in arguments[:-1]:
            with contextlib.suppress(FieldError):
                return _decoded(choice, value, where)
        return _decoded(arguments[-1], value, where)
    return value if kind is object else _of_type(kind, value, where)


def _of_type(kind: type, value: Any, where: str) -> Any:
    if type(value) is not kind and not (kind is types.NoneType and value is None):
        raise FieldError(f"{where}: got {shown(value)}, expected {_WORDS[kind]}")
    return value


_WORDS = {
    int: "a number",
    str: "a text",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    types.NoneType: "nothing",
}


def _check(recipe: Recipe) -> None:
    """Raise `FieldError` on values that the types allow and no recipe has."""
    if not recipe.layers:
        raise FieldError("recipe.layers is empty")
    if min(recipe.input_shape) < 1:
        raise FieldError(f"recipe.input_shape: got {shown(recipe.input_shape)}, expected numbers above 0")
    if recipe.input_channels and (
        min(recipe.input_channels) < 1 or sum(recipe.input_channels) != recipe.input_shape[0]
    ):
        channels = shown(recipe.input_channels)
        raise FieldError(f"recipe.input_channels: got {channels}, expected numbers of {recipe.input_shape[0]} in all")
    for name, features in recipe.linear.items():
        if min(features) < 1:
            raise FieldError(f"linear {shown(name)}: got {shown(features)}, expected numbers above 0")
    seen = set[str]()
    for layer in recipe.layers:
        where, g = f"layer {shown(layer.name)}", layer.geometry
        if not layer.name or layer.name in seen:
            raise FieldError(f"{where}: expected a name that no other layer has")
        seen.add(layer.name)
        if layer.variant not in (None, *KNOWN_VARIANTS):
            raise FieldError(
                f"{where}: variant: got {shown(layer.variant)}, expected one of {', '.join(KNOWN_VARIANTS)}"
            )
        if min(g.in_channels, g.out_channels, g.groups, *g.kernel_size) < 1:
            raise FieldError(f"{where}: channels, groups and kernel size are numbers above 0")


def damaged(path: Path, what: str) -> TruncatedModelError:
    """The refusal of a file whose recipe is none."""
    return TruncatedModelError(f"{path}: the recipe in its header is damaged ({what}); download or save it again")


def shown(value: object) -> str:
    """A value from a file as messages show it: on one line, printable, short."""
    try:
        text = ascii(value)
    except ValueError:  # a number with more digits than are shown
        text = "a huge number"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"
