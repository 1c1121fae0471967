"""A recipe as text: YAML read to keys, texts and line numbers, with everything that is wrong in it, and written.

Only the structure of the YAML is used. A value stays the text that the file has, and is read as the command line reads
its own: `1e-3`, `1/4`, `32x64` and `no` mean there what they mean here. No tag builds an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from vfconvert.errors import ConfigError
from vfconvert.files import atomic_path, read_small
from vfconvert.json_fields import printable

MOST_BYTES = 1 << 20
_TAG = "tag:yaml.org,2002:"
_PLAIN = frozenset(f"{_TAG}{name}" for name in ("str", "int", "float", "bool", "null", "timestamp"))
_NULLS = ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One key and its value: one text, several of a list, or those of a mapping with their names.

    `kind` is "none" (a null, or nothing), "one", "list" or "mapping".
    """

    key: str
    line: int
    kind: str
    texts: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Document:
    """The entries of a recipe in their order, and what is wrong with its structure: the lines and what to say."""

    entries: tuple[Entry, ...]
    errors: list[tuple[int, str]] = field(default_factory=list)


def read_document(path: Path) -> Document:
    """Read a recipe. Raises `ConfigError` where it cannot be read or is no YAML mapping."""
    content = read_small(path, MOST_BYTES, "recipe", "--save-config", ConfigError)
    try:
        text = content.decode("utf-8-sig")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start}: got no UTF-8 text, expected YAML; save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {_said(error)}; correct the YAML") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: its values are nested too deeply, expected keys with values") from error
    if root is None or root.tag == f"{_TAG}null":
        return Document(entries=())
    if not isinstance(root, yaml.MappingNode) or root.tag != f"{_TAG}map":
        raise ConfigError(f"{path}: line {_line(root)}: expected keys with values, like `spatial: true`")
    errors: list[tuple[int, str]] = []
    first: dict[str, int] = {}
    entries = []
    for name, value in root.value:
        key = _text(name, errors)
        if key is None:
            continue
        if key in first:
            errors.append((_line(name), f"{printable(key)}: given on line {first[key]} already; give it once"))
            continue
        first[key] = _line(name)
        if (entry := _entry(key, _line(name), value, errors)) is not None:
            entries.append(entry)
    return Document(entries=tuple(entries), errors=errors)


def write_recipe(text: str, path: Path) -> None:
    """Write a recipe: the whole file or none. Raises `UnwritableOutputError`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", errors="backslashreplace"))


def written(key: str, value: str | Sequence[str] | None) -> str:
    """The lines of one entry, with no newline at the end; None: a comment that names the key."""
    if value is None:
        return f"# {key}:"
    if isinstance(value, str):
        node: yaml.Node = _scalar(value)
    else:
        node = yaml.SequenceNode(f"{_TAG}seq", [_scalar(text) for text in value], flow_style=not value)
    mapping = yaml.MappingNode(f"{_TAG}map", [(_scalar(key), node)], flow_style=False)
    return str(yaml.serialize(mapping, Dumper=yaml.SafeDumper, width=1 << 20)).rstrip("\n")


def _entry(key: str, line: int, value: yaml.Node, errors: list[tuple[int, str]]) -> Entry | None:
    """The entry, or None and an error."""
    if isinstance(value, yaml.ScalarNode) and value.tag == f"{_TAG}null" and value.value in _NULLS:
        return Entry(key=key, line=line, kind="none")
    items, names, kind = [value], [], "one"
    if isinstance(value, yaml.SequenceNode) and value.tag == f"{_TAG}seq":
        items, kind = value.value, "list"
    elif isinstance(value, yaml.MappingNode) and value.tag == f"{_TAG}map":
        names, items, kind = [name for name, _ in value.value], [item for _, item in value.value], "mapping"
    texts, told = ([_text(node, errors) for node in nodes] for nodes in (items, names))
    if None in texts or None in told:
        return None
    if kind == "mapping" and len(set(told)) < len(told):
        errors.append((line, f"{printable(key)}: a name is given twice in it; give each once"))
        return None
    return Entry(
        key=key,
        line=line,
        kind=kind,
        texts=tuple(text for text in texts if text is not None),
        names=tuple(name for name in told if name is not None),
    )


def _text(node: yaml.Node, errors: list[tuple[int, str]]) -> str | None:
    """The text of a plain value, or None and an error."""
    if isinstance(node, yaml.ScalarNode) and node.tag in _PLAIN:
        return str(node.value)
    kind = {yaml.SequenceNode: "a list", yaml.MappingNode: "a mapping"}.get(type(node), "a value")
    tag = str(node.tag).removeprefix(_TAG)
    got = kind if tag in ("seq", "map") else f"{kind} tagged {printable(tag[:60])}"
    errors.append((_line(node), f"got {got}, expected a plain text, number, true or false"))
    return None


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _said(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return where + printable(" ".join(str(problem).split()))


def _scalar(text: str) -> yaml.ScalarNode:
    """A text, in quotes only where YAML would not read this very text back without them."""
    tag = yaml.SafeLoader("").resolve(yaml.ScalarNode, text, (True, False))
    return yaml.ScalarNode(tag if tag in _PLAIN and tag != f"{_TAG}null" else f"{_TAG}str", text)
