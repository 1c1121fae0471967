"""Before any work: whether everything that a conversion writes can be written."""

from __future__ import annotations

from pathlib import Path

from vfconvert.budget.cache import cache_path, is_cache
from vfconvert.delivery import paths_of, precision_paths, readable_of
from vfconvert.errors import UnwritableOutputError
from vfconvert.files import check_own_name, check_writable
from vfconvert.options import ConversionOptions
from vfconvert.reporting.writing import check_reports

_READABLE = "--format safetensors"  # beside it goes its recipe for people


def check_outputs(options: ConversionOptions, recipe: Path | None = None, new_recipe: Path | None = None) -> None:
    """Raise `UnwritableOutputError` where an output cannot be written, or is the input or another output.

    `recipe` is the file that `--config` reads, `new_recipe` that of `--save-config`.
    """
    check_reports(options.reports)
    taken = {options.model.resolve(): "the input model"}
    if recipe is not None:
        taken[recipe.resolve()] = "the recipe that --config reads"
    if options.searches:
        check_cache(options)
        taken[(options.damage_cache or cache_path(options.model)).resolve()] = "where damage is kept"
    if options.plan is not None:
        taken[options.plan.resolve()] = "the plan that --plan reads"
    written = [] if options.dry_run else _written(options)
    for flag, path in (("--save-config", new_recipe), ("--save-plan", options.save_plan), *written):
        if path is None:
            continue
        if path.resolve() in taken:
            raise UnwritableOutputError(f"{flag} {path} is {taken[path.resolve()]}; give another path")
        taken[path.resolve()] = f"also what {flag} writes{' (its recipe to read)' if flag == _READABLE else ''}"
        if options.output is None and flag in ("--output", _READABLE):
            check_own_name(path, "--output")
        check_writable(path)


def check_cache(options: ConversionOptions) -> None:
    """Raise `UnwritableOutputError` where `--damage-cache` names a file that holds something else.

    A file of the name that is usual for it is ours: where it is damaged it is put aside, and measured anew.
    """
    path = options.damage_cache
    if path is None:
        check_own_name(cache_path(options.model), "--damage-cache")
    elif path.exists() and not is_cache(path):
        raise UnwritableOutputError(f"{path} holds no measured damage and is left alone; give another --damage-cache")


def folders_of(options: ConversionOptions) -> set[Path]:
    """The folders of all files that a run writes at its end."""
    return {path.parent for _, path in _written(options) if path is not None}


def _written(options: ConversionOptions) -> list[tuple[str, Path | None]]:
    """What a run that is not dry writes besides a plan, each file with the flag that names it."""
    new_costs = None if options.costs is not None and options.costs.exists() else options.costs
    files = paths_of(options)
    written: list[tuple[str, Path | None]] = [("--output", path) for path in files.values()]
    if "safetensors" in files:
        written.append((_READABLE, readable_of(files["safetensors"])))
    written += [("--output", path) for path in precision_paths(options).values()]
    reports = [("--report", path) for path in options.reports]
    return [*written, *reports, ("--junit", options.junit), ("--costs", new_costs)]
