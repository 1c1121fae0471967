"""stub"""

import click
from vfconvert.cli.group import SectionCommand


@click.command(cls=SectionCommand)
def demo() -> None:
    """Train a small network on handwritten digits and convert it."""
