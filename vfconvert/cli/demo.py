"""The demo: the main job on a network that is trained in seconds, with nothing to download."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from vfconvert.cli.convert import convert
from vfconvert.cli.group import SectionCommand, SectionOption
from vfconvert.cli.screen import progress_bars, show, silent_libraries
from vfconvert.cli.values import SEED


@click.command(cls=SectionCommand)
@click.option(
    "--directory",
    cls=SectionOption,
    section="Options",
    type=click.Path(path_type=Path),
    default="vfconvert-demo",
    show_default=True,
    metavar="DIR",
    help="Where its images, its model and the results go.",
)
@click.option(
    "--seed",
    cls=SectionOption,
    section="Options",
    type=SEED,
    default=0,
    show_default=True,
    metavar="N",
    help="Random seed.",
)
def demo(directory: Path, seed: int) -> None:
    """Train a small network on handwritten digits and convert it.

    The 1,797 digits ship inside scikit-learn (pip install vfconvert[demo]). They become folders of images, the network
    becomes an ordinary model.pt, and both go through the command that is printed. Images in DIR are used again, other
    files of an earlier demo are overwritten.
    """
    from vfconvert.cli import demo_steps as steps
    from vfconvert.data.digits import DIGITS_MEAN, DIGITS_STD
    from vfconvert.reporting.terminal import render_test

    model, onnx = directory / "model.pt", directory / "model.onnx"
    reports = [directory / name for name in ("report.html", "report.json")]
    written = steps.prepare_images(directory, seed)
    click.echo(f"Images {'written to' if written else 'used again:'} {directory / 'train'} and {directory / 'test'}")
    if replaced := [path.name for path in (model, onnx, *reports) if path.exists()]:
        click.echo(f"Files of an earlier demo that will be overwritten: {', '.join(replaced)}")
    with silent_libraries(verbose=False), progress_bars(quiet=False) as progress:
        steps.train_model(directory, model, seed, progress)
    click.echo(f"Network trained on {directory / 'train'} and saved as {model}")
    numbers = ["--mean", str(DIGITS_MEAN), "--std", str(DIGITS_STD), "--seed", str(seed)]
    images = ["--data", str(directory / "train"), *numbers]
    line = [str(model), "--spatial", "--channel", *images, "-o", str(onnx)]
    line += [part for path in reports for part in ("--report", str(path))]
    click.echo(f"\n$ {shlex.join(['vfconvert', *line])}\n")
    with convert.make_context("vfconvert", line) as context:
        report = convert.invoke(context)
    with silent_libraries(verbose=False):
        result = steps.judge(directory, model, onnx)
    show(render_test(report, result.images, result.accuracy_before, result.accuracy_after))
