"""What a batch is to do: models from the command line, from manifests, or from standard input."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from vfconvert.errors import ManifestError
from vfconvert.files import read_small
from vfconvert.json_fields import Checked, JsonObject, is_line, parse

MANIFESTS = (".yaml", ".yml", ".json")
_MOST_BYTES = 1 << 24
_FIELDS = ("model", "name", "config", "arguments")
FOLDER = "records"
_TAKEN, _REPORT = ("summary", FOLDER), ".report"  # what the batch itself writes
_BESIDE = (".fp16", ".int8", ".versatile")  # what a conversion adds to its name for files beside the first
_NAME = re.compile(r"[\w.+-]+", re.ASCII)


class _Plain(yaml.SafeLoader):  # type: ignore[misc]
    """Without aliases, by which a few lines become more than any memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """The node, which must be written where it is used."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias (*), expected plain values")
        return super().compose_node(parent, index)


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One conversion: its outputs are called `name`, `arguments` follow those that `config` stands for."""

    name: str
    model: Path
    config: Path | None = None
    arguments: tuple[str, ...] = ()


Check = Callable[[Sequence[str], bool], list[str]]  # what is wrong with arguments, and whether the user gave them


def read_items(
    sources: Sequence[str | Mapping[str, Any]],
    *,
    config: Path | None,
    arguments: Sequence[str],
    lines: Iterable[str],
    check: Check = lambda arguments, own: [],
) -> tuple[Item, ...]:
    """The items of all sources in their order, each of its own name.

    A source is a model file; a manifest (`MANIFESTS`); "-", which takes `lines`: paths, or JSON objects with the fields
    of a manifest's entries; or a mapping of these fields, whose paths are as they are. `config` is the recipe of items
    that name none; `arguments` go before their own. `check` tells what is wrong with arguments: the user's own (True),
    or those of a manifest, line or mapping. Raises `ManifestError` with everything that is wrong.
    """
    errors: list[str] = []
    found: list[Item] = []
    for number, source in enumerate(sources, 1):
        if isinstance(source, Mapping):
            found += _entry(source, f"model {number}: ", Path(), errors)
        elif source == "-":
            found += _of_lines(lines, errors)
        elif Path(source).suffix.lower() in MANIFESTS:
            found += _of_manifest(Path(source), errors)
        else:
            found.append(Item(name="", model=Path(source)))
    if not found and not errors:
        errors.append("no models: got an empty manifest, expected one model or more")
    errors += check(arguments, True)
    errors += [f"{item.model}: {wrong}" for item in found for wrong in check(item.arguments, False)]
    found = [replace(item, config=item.config or config, arguments=(*arguments, *item.arguments)) for item in found]
    named = _named(found, errors)
    if errors:
        raise ManifestError("; ".join(dict.fromkeys(errors)))
    return named


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
        value = parse(content) if path.suffix.lower() == ".json" else yaml.load(content, Loader=_Plain)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        errors.append(f"{path}: no manifest ({' '.join(str(error).split())[:200]})")
        return
    top = value.get("models") if isinstance(value, Mapping) else value
    if not isinstance(top, list):
        got = f"a {type(top).__name__}" if top is not None else "no key models"
        errors.append(f"{path}: got {got}, expected a list of models")
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
        errors.append(f"{where}got a {type(value).__name__}, expected a path or the fields {', '.join(_FIELDS)}")
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
    for name in names:
        if name.lower() in _TAKEN or name.lower().endswith(_REPORT):
            errors.append(f"a model has the name {name}, as the batch's own files; give it another in a manifest")
    for name, count in Counter(name.lower() for name in names).items():  # some file systems fold case
        if count > 1:
            errors.append(f"{count} models have the name {name}; give them names in a manifest")
    folded = {name.lower() for name in names}
    for name in names:
        stem, suffix = name[: name.rfind(".")], name[name.rfind(".") :].lower()
        if suffix in _BESIDE and stem.lower() in folded:
            errors.append(f"the name {name} is what further files of {stem} are called; give it another in a manifest")
    return tuple(replace(item, name=name) for item, name in zip(items, names, strict=True))
