"""What a batch is to do: models from the command line, from manifests, or from standard input."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from vfconvert.errors import ManifestError
from vfconvert.files import read_small
from vfconvert.json_fields import Checked, JsonObject, is_line, parse, shown

MANIFESTS = (".yaml", ".yml", ".json")
_MOST_BYTES = 1 << 24
_FIELDS = ("model", "name", "config", "arguments")
_OWN = ("-o", "--output", "--report", "--json", "-q", "--quiet", "-v", "--verbose", "--config", "--resume")
_NAME = re.compile(r"[\w.+-]+", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One conversion: its outputs are called `name`, `arguments` follow those that `config` stands for."""

    name: str
    model: Path
    config: Path | None = None
    arguments: tuple[str, ...] = ()


def read_items(
    sources: Sequence[str], *, config: Path | None, arguments: Sequence[str], lines: Iterable[str]
) -> tuple[Item, ...]:
    """The items of all sources in their order, each of its own name.

    A source is a model file; a manifest (`MANIFESTS`); or "-", which takes `lines`: paths, or JSON objects with the
    fields of a manifest's entries. `config` is the recipe of items that name none; `arguments` go before their own.
    Raises `ManifestError` with everything that is wrong.
    """
    errors: list[str] = []
    found: list[Item] = []
    for source in sources:
        if source == "-":
            found += _of_lines(lines, errors)
        elif Path(source).suffix.lower() in MANIFESTS:
            found += _of_manifest(Path(source), errors)
        else:
            found.append(Item(name="", model=Path(source)))
    if not found and not errors:
        errors.append("no models: got an empty manifest, expected one model or more")
    found = [replace(item, config=item.config or config, arguments=(*arguments, *item.arguments)) for item in found]
    for item in found:
        errors += [f"{item.model}: {flag} is the batch's own; drop it" for flag in _stated(item.arguments)]
    named = _named(found, errors)
    if errors:
        raise ManifestError("; ".join(dict.fromkeys(errors)))
    return named


def _stated(arguments: Sequence[str]) -> list[str]:
    """Options among the arguments that the batch gives itself."""
    said = [argument.partition("=")[0] for argument in arguments]
    return [flag for flag in _OWN if flag in said]


def _of_lines(lines: Iterable[str], errors: list[str]) -> Iterator[Item]:
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text.startswith("{"):
            try:
                value = parse(text.encode())
            except ValueError as error:
                errors.append(f"standard input, line {number}: {error}")
                continue
            yield from _entry(value, f"standard input, line {number}: ", Path(), errors)
        elif text:
            yield Item(name="", model=Path(text))


def _of_manifest(path: Path, errors: list[str]) -> Iterator[Item]:
    content = read_small(path, _MOST_BYTES, "manifest", "the documentation", ManifestError)
    try:
        value = parse(content) if path.suffix.lower() == ".json" else yaml.safe_load(content)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        errors.append(f"{path}: no manifest ({' '.join(str(error).split())[:200]})")
        return
    top = value.get("models") if isinstance(value, Mapping) else value
    if not isinstance(top, list):
        errors.append(f"{path}: got {shown(top) if top is not None else 'no key models'}, expected a list of models")
        return
    if isinstance(value, Mapping) and (others := [str(key) for key in value if key != "models"]):
        errors.append(f"{path}: got the keys {', '.join(others)}, expected models alone")
    for number, entry in enumerate(top, 1):
        yield from _entry(entry, f"{path}, model {number}: ", path.parent, errors)


def _entry(value: Any, where: str, folder: Path, errors: list[str]) -> Iterator[Item]:
    """The item of an entry; paths in it count from `folder`."""
    if isinstance(value, str) and is_line(value):
        yield Item(name="", model=folder / value)
        return
    if not isinstance(value, Mapping):
        errors.append(f"{where}got {shown(str(value))}, expected a path or the fields {', '.join(_FIELDS)}")
        return
    said = JsonObject([(str(key), one) for key, one in value.items()])
    said.repeated = getattr(value, "repeated", [])
    fields = Checked(where, said, errors)
    fields.only(_FIELDS)
    model = fields.read("model", "", lambda one: is_line(one) and bool(one), "a path")
    name = fields.read("name", "", _is_name, "letters, digits and .+-_")
    config = fields.read("config", None, is_line, "a path")
    arguments = fields.read("arguments", [], _is_arguments, "a list of texts")
    if "model" not in value:
        errors.append(f"{where}field model: is missing, expected a path")
    yield Item(
        name=name,
        model=folder / model,
        config=folder / config if config else None,
        arguments=tuple(str(one) for one in arguments),
    )


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _is_arguments(value: Any) -> bool:
    plain = isinstance(value, list) and all(isinstance(one, (str, int, float)) for one in value)
    return plain and not any(isinstance(one, bool) for one in value)


def _named(items: Sequence[Item], errors: list[str]) -> tuple[Item, ...]:
    """Every item with a name of its own: the file's, with that of its folder where several have it."""

    def plain(text: str) -> str:
        return "-".join(_NAME.findall(text)) or "model"

    stems = [item.name or plain(item.model.stem) for item in items]
    taken = Counter(stems)
    names = [
        stem if item.name or taken[stem] == 1 else f"{plain(item.model.resolve().parent.name)}-{stem}"
        for item, stem in zip(items, stems, strict=True)
    ]
    for name, count in Counter(name.lower() for name in names).items():  # some file systems fold case
        if count > 1:
            errors.append(f"{count} models have the name {name}; give them names in a manifest")
    return tuple(replace(item, name=name) for item, name in zip(items, names, strict=True))
