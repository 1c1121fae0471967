"""The console script `vfconvert`. Importing it imports neither torch nor anything else that takes long."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import click

from vfconvert.cli.batch import batch
from vfconvert.cli.bench import bench
from vfconvert.cli.convert import convert
from vfconvert.cli.demo import demo
from vfconvert.cli.group import MainJobGroup
from vfconvert.cli.inspect import inspect
from vfconvert.cli.schema import schema
from vfconvert.container import processors
from vfconvert.version import __version__

_PACKAGES = ("torch", "torchvision", "onnx", "onnxruntime")


def _print_versions(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        found = {"vfconvert": __version__, **{name: _version(name) for name in _PACKAGES}}
        for name, number in {**found, "python": platform.python_version()}.items():
            click.echo(f"{name} {number}")
        ctx.exit()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


@click.group(cls=MainJobGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_versions,
    help="Show the versions of vfconvert, torch, torchvision, onnx, onnxruntime and Python.",
)
@click.pass_context
def main(ctx: click.Context) -> None:
    """Convert a pretrained convolutional network to versatile filters.

    Reads MODEL, a file of torch.save, safetensors, torch.export (.pt2) or ONNX, fits a smaller network to it layer
    after layer on unlabelled images, writes it as an ONNX file, compares that file with the network, and tells how much
    of the original's behaviour is left. MODEL itself is never changed.
    """
    if "WORLD_SIZE" in os.environ:  # under torchrun DistributedDataParallel tells every process of what it might save
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if ctx.invoked_subcommand != batch.name:  # which shares processors out to those that it starts
        _fit_into_container()


def _fit_into_container() -> None:
    """Threads of torch, before it is loaded, as a container's share of time allows; unless the user says how many."""
    most = processors()
    if most < (os.cpu_count() or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(most))


main.add_command(convert)
main.add_command(batch)
main.add_command(inspect)
main.add_command(bench)
main.add_command(demo)
main.add_command(schema)


if __name__ == "__main__":
    main()
