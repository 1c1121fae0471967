"""The keywords of `vfconvert.convert`, generated: fields of the options, with what the command line says of each.

In the page `python` the line `<!-- fields of ConversionOptions -->` becomes a table, and that of `TrainingOptions` too.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from docs.extensions.commands import prose
from vfconvert.cli.convert import convert
from vfconvert.combinations import TRAINING_PREFIX
from vfconvert.keywords import KEYWORDS
from vfconvert.options import ConversionOptions
from vfconvert.training_options import TrainingOptions

PAGE = "python"
_PREFIXES = {ConversionOptions: "", TrainingOptions: TRAINING_PREFIX}


def table(options: type[Any]) -> str:
    """Name, default and meaning of every field that is a keyword of `convert`."""
    said = {parameter.name: parameter for parameter in convert.params}
    rows = ["| keyword | default | |", "|---|---|---|"]
    for field in dataclasses.fields(options):
        if field.name not in KEYWORDS:
            continue
        text = getattr(said[_PREFIXES[options] + field.name], "help", "") or ""
        default = "{}" if field.default is dataclasses.MISSING else repr(field.default)
        rows.append(f"| `{field.name}` | `{default}` | {prose(text.split('  [default')[0])} |")
    return "\n".join(rows)


def _fill(_app: Any, page: str, source: list[str]) -> None:
    if page == PAGE:
        for options in _PREFIXES:
            source[0] = source[0].replace(f"<!-- fields of {options.__name__} -->", table(options))


def setup(app: Any) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("source-read", _fill)
    return {"version": "1", "parallel_read_safe": True}
