"""What the JSON of a conversion's report looks like, for programs that read it."""

from __future__ import annotations

import click

from vfconvert.cli.group import SectionCommand


@click.command(cls=SectionCommand)
def schema() -> None:
    """Print the JSON Schema of a report: what --json prints and --report FILE.json writes.

    Within one schema_version keys are only ever added.
    """
    from importlib.resources import files

    text = files("vfconvert.reporting").joinpath("report-1.schema.json").read_text(encoding="utf-8")
    click.echo(text, nl=False)
