"""The main job: a model file in, a smaller and verified ONNX file out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vfconvert.cli.convert_options import convert_options
from vfconvert.cli.failures import Asked, ToldCommand, is_not_first, telling
from vfconvert.cli.group import MAIN_JOB
from vfconvert.cli.recipe import command_line, is_stated, recipe_text
from vfconvert.cli.screen import progress_bars, show, silent_libraries
from vfconvert.cli.step_summary import STEP_SUMMARY, append_step_summary
from vfconvert.cli.stopping import telling_of_stops
from vfconvert.cli.training_options import training_of
from vfconvert.cli.training_screen import Screen
from vfconvert.cli.values import mapping_of, one_or_all
from vfconvert.combinations import wrong_combination
from vfconvert.formats import format_of
from vfconvert.options import ConversionOptions

if TYPE_CHECKING:
    from vfconvert.reporting.report import ConversionReport

_OF_THE_COMMAND = ("quiet", "verbose", "as_json", "config", "save_config")  # what is no field of the options
_TRUST_WARNING = "Warning: --trust-pickle lets the model file run any code it holds; use it only on files you trust."
_CODE_WARNING = "Warning: --trust-data-code runs the code that --data names; use it only on code you trust."


@click.command(MAIN_JOB, cls=ToldCommand)
@convert_options
@click.pass_context
def convert(
    ctx: click.Context,
    /,
    quiet: bool,
    verbose: bool,
    as_json: bool,
    config: Path | None,
    save_config: Path | None,
    **values: Any,
) -> ConversionReport | None:
    """Convert MODEL, the same as without the word "convert"."""
    with telling(ctx) as asked:
        if quiet and verbose:
            raise click.UsageError("-q and -v exclude each other; drop one")
        asked.options = options = options_of(ctx, values)
        report = _converted(ctx, asked, options, quiet=quiet, verbose=verbose)
    if report is None:
        return None
    append_step_summary(report, os.environ.get(STEP_SUMMARY))
    if as_json:
        from vfconvert.reporting.json_report import to_json

        click.echo(to_json(report).encode("utf-8", errors="backslashreplace"), nl=False)
    elif not quiet:
        from vfconvert.reporting.terminal import render

        show(render(report, verbose=verbose))
        beside = () if report.dry else (*options.reports, *((options.junit,) if options.junit is not None else ()))
        for path in beside:
            click.echo(f"Written: {path}")
    else:
        from vfconvert.reporting.figures import further_files

        for path in (*(file.path for file in report.artefacts), *(row.path for row in further_files(report))):
            click.echo(path)
    from vfconvert.gating import refuse_failed

    refuse_failed(report)
    return report


def _converted(
    ctx: click.Context, asked: Asked, options: ConversionOptions, *, quiet: bool, verbose: bool
) -> ConversionReport | None:
    """Convert, with what the command adds; of processes that train together the first speaks for all."""
    asked.silent = others = bool(options.training.epochs) and is_not_first()
    config, save_config = ctx.params["config"], ctx.params["save_config"]
    if not others:
        warn_of_trust(options)
    with silent_libraries(verbose=verbose), progress_bars(quiet=quiet or others) as progress:
        from vfconvert.config.document import write_recipe
        from vfconvert.outputs import check_outputs
        from vfconvert.pipeline import convert as run

        if (config is not None or save_config is not None) and not others:
            check_outputs(options, config, save_config)
        if save_config is not None and not others:
            write_recipe(recipe_text(ctx), save_config)
        with telling_of_stops(quiet=quiet or others or not options.training.epochs):
            return run(options, progress, Screen(progress, quiet=quiet))


def warn_of_trust(options: ConversionOptions) -> None:
    """Say on stderr what may run the code of others, as the options ask."""
    for given, warning in ((options.trust_pickle, _TRUST_WARNING), (options.trust_data_code, _CODE_WARNING)):
        if given:
            click.echo(warning, err=True)


def options_of(ctx: click.Context, values: Mapping[str, Any]) -> ConversionOptions:
    """The options that a parsed command line says, `values` being those of its parameters.

    Raises `click.UsageError` where they do not go together, and what the values' own checks raise.
    """
    values = {name: value for name, value in values.items() if name not in _OF_THE_COMMAND}
    values["arch_args"] = mapping_of(values["arch_args"])
    values["input_shape"] = one_or_all(values["input_shape"])
    stated = any(parameter.name == "formats" and is_stated(ctx, parameter) for parameter in ctx.command.params)
    if not stated and (named := format_of(values["output"])) is not None:
        values["formats"] = (named,)
    training = training_of(values)
    options = ConversionOptions(**values, training=training, command=command_line(ctx))
    _check(ctx, options)
    return options


def _check(ctx: click.Context, options: ConversionOptions) -> None:
    """Raise `click.UsageError` where nothing says how to convert, or an option says nothing beside the others."""
    parameters = {str(parameter.name): parameter for parameter in ctx.command.params}
    stated = {name for name, parameter in parameters.items() if is_stated(ctx, parameter)}
    problem = wrong_combination(
        options, stated, lambda name: parameters[name].opts[0], has_images=options.data is not None
    )
    if problem is not None:
        raise click.UsageError(problem)
