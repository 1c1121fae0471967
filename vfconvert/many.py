"""Many models from Python: what `vfconvert batch` does, with its summary as a value."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vfconvert.batch_summary import BatchSummary, conducted
from vfconvert.batching.items import read_items
from vfconvert.batching.running import Progressed
from vfconvert.cli.batch import read_part
from vfconvert.cli.batch_arguments import wrong_arguments, wrong_items
from vfconvert.cli.option_words import arguments_of
from vfconvert.cli.step_summary import STEP_SUMMARY
from vfconvert.errors import ManifestError
from vfconvert.keyword_values import check_callable, read_value, shown
from vfconvert.reporting.batch import Row, rows_of

Entry = str | os.PathLike[str] | Mapping[str, Any]
_NONE: Mapping[str, Any] = {}


def batch(
    models: Entry | Iterable[Entry],
    output: str | os.PathLike[str],
    *,
    options: Mapping[str, Any] | None = None,
    config: str | os.PathLike[str] | None = None,
    arguments: Sequence[str] = (),
    jobs: int | None = None,
    part: str | tuple[int, int] | None = None,
    again: bool = False,
    resume: bool = False,
    told: Callable[[Row], None] = lambda row: None,
) -> BatchSummary:
    """Convert many models into the folder `output`, each in a process of its own; one that fails stops no other.

    `models` are paths of models or of manifests, or mappings of a manifest's fields (`model`, `name`, `config`,
    `arguments`, and `options`). `options` of every conversion have the keys of a recipe, like `{"spatial": True,
    "data": "images/", "target": {"params": "50%"}}`; `config` is the recipe of models that name none; `arguments` are
    words as after the command's `--`, and stand after `options`. `jobs` run at a time (None: one for 2 cores); `part`
    `(3, 12)` does every twelfth model from the third; what is done already is skipped unless `again`; `resume` goes on
    with interrupted trainings. `told` gets the row of each model as it ends.

    Nothing is printed, and a failed model raises nothing: the summary has it, and its `check` raises. Raises
    `TypeError` and `ValueError` for arguments of another kind, `ManifestError` with all that is wrong with models and
    options, before anything starts, and `UnwritableOutputError`.
    """
    folder: Path = read_value("batch(): output", "Path", output)
    recipe: Path | None = read_value("batch(): config", "Path | None", config)
    count: int | None = read_value("batch(): jobs", "int | None", jobs, least=1 if jobs is not None else None)
    chosen = _part(part)
    flags = {name: read_value(f"batch(): {name}", "bool", on) for name, on in (("again", again), ("resume", resume))}
    check_callable("batch(): told", told, "told(row)")
    words = (*_options(options, "options"), *read_value("batch(): arguments", "tuple[str, ...]", arguments))
    sources = [_source(number, model) for number, model in enumerate(_several(models), 1)]
    items = read_items(sources, config=recipe, arguments=words, lines=(), check=wrong_arguments)
    if wrong := wrong_items(items):
        raise ManifestError("; ".join(wrong))

    def step(progressed: Progressed) -> None:
        if progressed.record is not None:
            told(*rows_of([(progressed.item, progressed.record)]))

    return conducted(items, folder, jobs=count, part=chosen, without=(STEP_SUMMARY,), told=step, **flags)


def _several(models: Entry | Iterable[Entry]) -> Iterable[Entry]:
    if isinstance(models, (str, os.PathLike, Mapping)):
        return (models,)
    if not isinstance(models, Iterable):
        raise TypeError(f"batch(): models: got {shown(models)}, expected paths, or mappings with a model each")
    return models


def _source(number: int, model: Entry) -> str | Mapping[str, Any]:
    """One source as the command has it."""
    if isinstance(model, Mapping):
        fields = {key: os.fspath(value) if isinstance(value, os.PathLike) else value for key, value in model.items()}
        own = _options(fields.pop("options", None), f"model {number}: options")
        words = fields.get("arguments", [])
        if not isinstance(words, (list, tuple)):
            return fields  # refused with all else that is wrong
        return {**fields, "arguments": [*own, *words]}
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(f"batch(): model {number}: got {shown(model)}, expected a path, or a mapping with a model")
    if model == "-":
        raise ValueError("batch(): got '-', which is standard input on the command line only; give the models")
    return os.fspath(model)


def _options(options: Mapping[str, Any] | None, name: str) -> tuple[str, ...]:
    if not isinstance(options, (Mapping, type(None))):
        raise TypeError(f'batch(): {name}: got {shown(options)}, expected a mapping like {{"spatial": True}}')
    return arguments_of(options or _NONE, f"batch(): {name}")


def _part(part: str | tuple[int, int] | None) -> tuple[int, int] | None:
    """Which part of how many. Raises `TypeError` for what is none, `ValueError` for numbers that are none."""
    if part is None:
        return None
    try:
        first, count = read_part(part) if isinstance(part, str) else part
        read_part(f"{first}/{count}")
    except TypeError as error:
        raise TypeError(f"batch(): part: got {shown(part)}, expected two numbers like (3, 12)") from error
    except ValueError as error:
        raise ValueError(f"batch(): part: got {shown(part)}, expected a part like (3, 12) or '3/12'") from error
    return first, count
