"""Many models with one command."""

from __future__ import annotations

import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vfconvert.cli.batch_arguments import is_option_of_conversions, wrong_arguments, wrong_items
from vfconvert.cli.group import SectionCommand, SectionOption
from vfconvert.cli.step_summary import STEP_SUMMARY, append_text
from vfconvert.cli.values import Value

if TYPE_CHECKING:
    from vfconvert.batching.running import Progressed

_ARGUMENTS = "vfconvert.batch.arguments"
_PATH = click.Path(path_type=Path)
_option = partial(click.option, cls=SectionOption, section="Batch")


class _Command(SectionCommand):
    """What stands after "--" goes to every conversion."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own, given = (args[: (at := args.index("--"))], args[at + 1 :]) if "--" in args else (args, [])
        ctx.meta[_ARGUMENTS] = tuple(given)
        try:
            return super().parse_args(ctx, own)
        except click.NoSuchOption as error:
            if not is_option_of_conversions(error.option_name):
                raise
            raise click.UsageError(
                f"{error.option_name} is an option of conversions, which stand after --: "
                f"vfconvert batch MODELS... -o DIR -- {error.option_name}",
                ctx,
            ) from error

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "MODELS... -o DIR [OPTIONS] [-- OPTIONS OF EVERY CONVERSION]")


def read_part(text: str) -> tuple[int, int]:
    """`3/12` as two numbers; raises `ValueError` where it is no part."""
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(text)
    return int(found[1]), int(found[2])


_PART = Value("I/N", read_part, "a part like 3/12")


@click.command(cls=_Command)
@click.argument("models", nargs=-1, required=True)
@_option("-o", "--output", type=_PATH, required=True, metavar="DIR", help="Folder for all that is written.")
@_option("--config", type=_PATH, metavar="FILE", help="Recipe of every model that names none of its own.")
@_option("--jobs", type=click.IntRange(1), metavar="N", help="Conversions at a time.  [default: one for 2 cores]")
@_option("--part", type=_PART, metavar="I/N", help="Do every N-th model from the I-th: for one job of an array.")
@_option("--resume", is_flag=True, help="Go on from the checkpoints of trainings that were interrupted.")
@_option("--again", is_flag=True, help="Convert again what is done already.")
@_option("--json", "as_json", is_flag=True, help="Print a line of JSON for every model as it ends.")
@_option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.pass_context
def batch(
    ctx: click.Context,
    /,
    models: tuple[str, ...],
    output: Path,
    config: Path | None,
    jobs: int | None,
    part: tuple[int, int] | None,
    resume: bool,
    again: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Convert many models, each in a process of its own; one that fails stops no other.

    MODELS are model files; manifests (.yaml or .json: a list under "models" of paths, or of the fields model, name,
    config and arguments); or "-" for lines on standard input, each a path or a JSON object of those fields.

    Run it again, and what is done (the same model, recipe, arguments and version) is skipped.
    """
    from vfconvert.batch_summary import conducted
    from vfconvert.batching.items import read_items
    from vfconvert.batching.running import part_of
    from vfconvert.cli.batch_screen import Table
    from vfconvert.errors import ManifestError
    from vfconvert.reporting.batch import headline, row_to_json, rows_of, to_markdown

    arguments = ctx.meta[_ARGUMENTS]
    items = read_items(models, config=config, arguments=arguments, lines=sys.stdin, check=wrong_arguments)
    if wrong := wrong_items(items):
        raise ManifestError("; ".join(wrong))
    with Table(part_of(items, part) if part is not None else items, quiet=quiet) as table:

        def told(step: Progressed) -> None:
            table.told(step)
            if as_json and step.record is not None:
                click.echo(row_to_json(*rows_of([(step.item, step.record)])))

        found = conducted(
            items,
            output,
            jobs=jobs,
            part=part,
            again=again,
            resume=resume,
            without=(STEP_SUMMARY,),
            told=told,
            idle=table.refresh,
        )
    if summary := os.environ.get(STEP_SUMMARY):
        append_text(to_markdown(found.rows), summary)
    if not as_json:
        click.echo(headline(found.rows))
        click.echo(str(output / "summary.md"))
    found.check()
