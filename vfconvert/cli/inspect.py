"""What could become of every layer, and what that would save and harm; nothing is converted."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from vfconvert.cli.convert import convert, warn_of_trust
from vfconvert.cli.group import SectionCommand, SectionOption
from vfconvert.cli.recipe import command_line, use_recipe
from vfconvert.cli.screen import progress_bars, show, silent_libraries
from vfconvert.cli.values import mapping_of, one_or_all
from vfconvert.combinations import wrong_combination
from vfconvert.options import ConversionOptions

# Options that mean here what they mean for a conversion.
_SHARED = (
    *("model", "spatial", "channel", "crops", "linear", "include", "exclude", "include_first", "damage_cache"),
    *("data", "size", "mean", "std", "preset", "input_shape", "calibration_images", "target_data", "trust_data_code"),
    *("arch", "arch_args", "trust_pickle", "threads", "costs", "seed", "device", "quiet", "verbose"),
)
_output = partial(click.option, cls=SectionOption, section="Output")


@click.command(cls=SectionCommand, params=[option for option in convert.params if option.name in _SHARED])
@_output("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@_output(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help="Draw damage against parameters, MACs and latency, as .svg or .png (needs vfconvert[plot]).",
)
@click.option(
    "--measure/--no-measure",
    cls=SectionOption,
    section="Speed of the written file",
    default=False,
    show_default=True,
    help="Time every option of every layer too, for the frontier by latency; takes minutes.",
)
@click.option(
    "--config",
    cls=SectionOption,
    section="Recipes",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    is_eager=True,
    callback=partial(use_recipe, written_for=convert),
    help="Take options from this recipe of a conversion, as far as they are options here. The command line wins.",
)
@click.pass_context
def inspect(
    ctx: click.Context,
    /,
    as_json: bool,
    plot: Path | None,
    quiet: bool,
    verbose: bool,
    config: Path | None,
    **values: Any,
) -> None:
    """Show what each layer of MODEL could become, what that saves and harms, and what the best plans would cost.

    Without --spatial and --channel every kind of filter is tried. What is measured is kept beside the model, so that a
    --target of a later conversion, with the same images, is a matter of a moment.
    """
    if quiet and verbose:
        raise click.UsageError("-q and -v exclude each other; drop one")
    values["arch_args"] = mapping_of(values["arch_args"])
    values["input_shape"] = one_or_all(values["input_shape"])
    options = ConversionOptions(**values, max_drop=0.0, command=command_line(ctx))
    _check(ctx, options)
    warn_of_trust(options)
    with silent_libraries(verbose=verbose), progress_bars(quiet=quiet) as progress:
        from vfconvert.inspection import inspect as run
        from vfconvert.reporting.frontier_plot import check_picture, draw_frontier
        from vfconvert.reporting.inspect_json import inspect_to_json
        from vfconvert.reporting.inspect_terminal import render_inspect

        if plot is not None:
            check_picture(plot)
        report = run(options, progress)
    if as_json:
        click.echo(inspect_to_json(report), nl=False)
    elif not quiet:
        show(render_inspect(report, verbose=verbose))
    if plot is not None:  # last, so that a disk which is full by now costs the picture alone
        with silent_libraries(verbose=verbose):
            draw_frontier(report, plot)
        if not as_json:
            click.echo(plot if quiet else f"Written: {plot}")


def _check(ctx: click.Context, options: ConversionOptions) -> None:
    """Raise `click.UsageError` where an option of the command line says nothing beside the others.

    A recipe of a conversion may say what means something there alone.
    """
    parameters = {str(parameter.name): parameter for parameter in (*convert.params, *ctx.command.params)}
    typed = click.core.ParameterSource.COMMANDLINE
    stated = [name for name in parameters if name in ctx.params and ctx.get_parameter_source(name) is typed]
    problem = wrong_combination(
        options, stated, lambda name: parameters[name].opts[0], has_images=options.data is not None
    )
    if problem is not None:
        raise click.UsageError(problem)
