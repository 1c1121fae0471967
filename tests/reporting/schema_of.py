"""The JSON Schema of a report's JSON, read off the dataclasses: what the published file must be."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from vfconvert.reporting.latency import LatencyReport
from vfconvert.reporting.report import SCHEMA_VERSION, ConversionReport, Size

_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": ["number", "null"]},  # what is not finite is null
    Any: {},
    type(None): {"type": "null"},
}


def report_schema() -> dict[str, Any]:
    """The schema of everything that `ConversionReport` holds, each class once under `$defs`."""
    definitions: dict[str, Any] = {}
    _define(ConversionReport, definitions)
    whole = definitions.pop("ConversionReport")
    whole["properties"]["schema_version"] = {"const": SCHEMA_VERSION}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The report of one conversion by vfconvert",
        **whole,
        "$defs": dict(sorted(definitions.items())),
    }


def _define(kind: type, definitions: dict[str, Any]) -> None:
    if kind.__name__ in definitions:
        return
    definitions[kind.__name__] = {}  # taken, should it hold itself
    hints = typing.get_type_hints(kind)
    named = {field.name: hints[field.name] for field in fields(kind) if hints[field.name] is not bytes}
    if kind is Size:
        named |= {"flops_method": int, "flops_executed": int}
    if kind is LatencyReport:
        named |= {"ratio": float, "settled": bool}
    definitions[kind.__name__] = {
        "description": " ".join((kind.__doc__ or "").split()),
        "type": "object",
        "properties": {name: _of(hint, definitions) for name, hint in named.items()},
        "required": list(named),
    }


def _of(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if hint in _PLAIN:
        return dict(_PLAIN[hint])
    if is_dataclass(hint):
        _define(typing.cast(type, hint), definitions)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        options = [_of(argument, definitions) for argument in arguments]
        kinds = [kind for option in options if set(option) == {"type"} for kind in _listed(option["type"])]
        rest = [option for option in options if set(option) != {"type"}]
        plain = [{"type": list(dict.fromkeys(kinds))}]
        return {"anyOf": rest + plain} if rest else plain[0]
    if origin is tuple:
        each = arguments[:-1] if arguments[-1] is ... else arguments
        if arguments[-1] is ...:
            return {"type": "array", "items": _of(each[0], definitions)}
        return {"type": "array", "prefixItems": [_of(one, definitions) for one in each], "minItems": len(each)}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _of(arguments[1], definitions)}
    raise TypeError(f"no JSON is known for {hint}")


def _listed(kind: str | list[str]) -> list[str]:
    return [kind] if isinstance(kind, str) else kind


def lost(older: Any, newer: Any, where: str = "$") -> list[str]:
    """What a newer schema no longer promises: keys, required names, kinds, items. Texts for people may change."""
    if isinstance(older, dict) and isinstance(newer, dict):
        told = [key for key in older if key not in ("description", "title")]
        gone = [f"{where}.{key}" for key in told if key not in newer]
        return gone + [line for key in told if key in newer for line in lost(older[key], newer[key], f"{where}.{key}")]
    if isinstance(older, list) and where.endswith(".required") and isinstance(newer, list):
        return [f"{where}: {name}" for name in older if name not in newer]
    return [] if older == newer else [where]
