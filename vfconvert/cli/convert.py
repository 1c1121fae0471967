"""The main job: a model file in, a smaller and verified ONNX file out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vfconvert.cli.convert_options import convert_options
from vfconvert.cli.group import COMMAND_LINE, MAIN_JOB, SectionCommand
from vfconvert.cli.screen import progress_bars, show, silent_libraries
from vfconvert.cli.values import mapping_of
from vfconvert.options import ConversionOptions

if TYPE_CHECKING:
    from vfconvert.reporting.report import ConversionReport

TRUST_WARNING = "Warning: --trust-pickle lets the model file run any code it holds; use it only on files you trust."


@click.command(MAIN_JOB, cls=SectionCommand)
@convert_options
@click.pass_context
def convert(ctx: click.Context, /, quiet: bool, verbose: bool, **values: Any) -> ConversionReport:
    """Convert MODEL, the same as without the word "convert"."""
    if quiet and verbose:
        raise click.UsageError("-q and -v exclude each other; drop one")
    if not (values["spatial"] or values["channel"]):
        raise click.UsageError("nothing to do: add --spatial, --channel or both")
    for flag, needed in (("windows", "channel"), ("channel_stride", "channel"), ("crops", "spatial")):
        given = ctx.get_parameter_source(flag) is click.core.ParameterSource.COMMANDLINE
        if given and not values[needed]:
            raise click.UsageError(f"--{flag.replace('_', '-')} says nothing without --{needed}; add that or drop it")
    values["arch_args"] = mapping_of(values["arch_args"])
    options = ConversionOptions(**values, command=ctx.meta[COMMAND_LINE])
    if options.trust_pickle:
        click.echo(TRUST_WARNING, err=True)
    with silent_libraries(verbose=verbose), progress_bars(quiet=quiet) as progress:
        from vfconvert.pipeline import convert as run

        report = run(options, progress)
    if not quiet:
        from vfconvert.reporting.terminal import render

        show(render(report, verbose=verbose))
    elif report.output is not None:
        click.echo(report.output.path)
    return report
