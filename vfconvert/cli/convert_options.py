"""The options of the main job, one for each field of `ConversionOptions` and of its name, under headings for help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from vfconvert.cli.gate_options import GATES
from vfconvert.cli.group import SectionOption
from vfconvert.cli.recipe import use_recipe
from vfconvert.cli.training_options import TRAINING
from vfconvert.cli.values import FINITE, LAYER, NUMBERS, PAIR, SEED, SHAPE, SIZE, STRIDE, TARGET
from vfconvert.formats import SUFFIXES
from vfconvert.options import FORMS, OPSETS, ConversionOptions

Function = TypeVar("Function", bound=Callable[..., Any])

DEFAULTS = {field.name: field.default for field in fields(ConversionOptions) if field.default is not MISSING}
CROPS = ("squares", "lines")
_FILE = click.Path(path_type=Path)


def _option(section: str, *names: str, help: str, **settings: Any) -> Callable[[Function], Function]:
    return click.option(*names, cls=SectionOption, section=section, help=help, **settings)


_method = partial(_option, "Method (these, or --target, --layer or --plan)")
_layers = partial(_option, "Which layers")
_budget = partial(_option, "A plan under a budget")
_images = partial(_option, "Images to fit on and to judge by")
_loading = partial(_option, "Files that hold only weights, or more than a network")
_writing = partial(_option, "Output")
_speed = partial(_option, "Speed of the written file")
_recipe = partial(_option, "Recipes")

_ALL: tuple[Callable[[Any], Any], ...] = (
    click.argument("model", type=_FILE),
    _method("--spatial", is_flag=True, help="Cut smaller kernels out of each primary filter."),
    _method("--channel", is_flag=True, help="Cut channel windows out of each primary filter."),
    _method(
        "--windows",
        type=int,
        default=DEFAULTS["windows"],
        show_default=True,
        metavar="N",
        help="Channel windows of each primary filter.",
    ),
    _method(
        "--channel-stride",
        type=STRIDE,
        default=DEFAULTS["channel_stride"],
        show_default=True,
        metavar="G",
        help="Channels from one window to the next: a count like 16, or a share of the layer's like 0.25 or 1/4.",
    ),
    _method(
        "--crops",
        type=click.Choice(CROPS),
        default=DEFAULTS["crops"],
        show_default=True,
        help="Nested centred squares, or also 1xk and kx1 lines, chosen for each output by the fit.",
    ),
    _method(
        "--reconstruct/--no-reconstruct",
        default=DEFAULTS["reconstruct"],
        show_default=True,
        help="After the closed-form fit, tune block after block towards the original's outputs.",
    ),
    _method(
        "--augment/--no-augment",
        default=DEFAULTS["augment"],
        show_default=True,
        help="Mirror and shift images at random in the pass on the output.",
    ),
    _layers(
        "--linear",
        is_flag=True,
        help="Convert the Linear that reads a flattened map of features too, as a convolution of the whole map.",
    ),
    _layers("--include", multiple=True, metavar="GLOB", help="Convert only layers of such a name; repeatable."),
    _layers("--exclude", multiple=True, metavar="GLOB", help="Keep layers of such a name; repeatable."),
    _layers("--include-first", is_flag=True, help="Convert the first convolution too, which is kept otherwise."),
    _layers(
        "--layer",
        "layers",
        multiple=True,
        type=LAYER,
        metavar="GLOB=KIND",
        help="What becomes of layers of such a name: keep, spatial, lines, channel or both, as in 'layer4.*=spatial' "
        "or '*.conv2=both:windows=2,stride=1/4,primaries=0.75'; repeatable, the last that matches counts.",
    ),
    _budget(
        "--target",
        "targets",
        multiple=True,
        type=TARGET,
        metavar="COST=LIMIT",
        help="Choose the least harmful plan within a limit: params=50%, macs=1.2G, size=5MB or latency=60%; "
        "repeatable. "
        "Alone it may use every kind of filter; --spatial and --channel, where given, say which.",
    ),
    _budget(
        "--max-drop",
        type=FINITE,
        metavar="POINTS",
        help="Choose the smallest plan that loses at most so many points, of accuracy where images are labelled, else "
        "of agreement, on half of the images held out.",
    ),
    _budget(
        "--refine",
        type=click.IntRange(min=0),
        metavar="N",
        default=DEFAULTS["refine"],
        show_default=True,
        help="Fit N other plans within the targets too, of fewer kinds of filter, and take the one whose outputs are "
        "nearest to the original's on half of the images held out.",
    ),
    _budget(
        "--damage-cache",
        type=_FILE,
        metavar="PATH",
        help="Where the measured damage is kept for the next plan.  [default: MODEL.damage.json]",
    ),
    _layers("--plan", type=_FILE, metavar="FILE", help="Convert as this file says, which --save-plan wrote."),
    _images(
        "--data",
        type=_FILE,
        metavar="DIR",
        help="Folder of images, in one subfolder per class or flat; or torchvision:NAME:FOLDER, WebDataset shards like "
        "'train-{0000..0009}.tar', or MODULE:FUNCTION. No label is used but to report accuracy, and in training by "
        "--label-weight. Without it, images are synthesised.",
    ),
    _images(
        "--target-data",
        type=_FILE,
        metavar="DIR",
        help="Folder of the clean images (restoration) or masks (segmentation) of those in --data, of the same names.",
    ),
    _images("--trust-data-code", is_flag=True, help="Let --data name code, which is run."),
    _images("--size", type=SIZE, metavar="N|HxW", help="Scale and crop images to this size."),
    _images("--mean", type=NUMBERS, metavar="M,…", help="Mean of each channel, of pixels between 0 and 1."),
    _images("--std", type=NUMBERS, metavar="S,…", help="Standard deviation of each channel."),
    _images(
        "--preset",
        metavar="NAME",
        help="torchvision weights whose transforms prepare the images, like ResNet50_Weights.IMAGENET1K_V2.",
    ),
    _images(
        "--input-shape",
        multiple=True,
        type=SHAPE,
        metavar="C,H,W",
        help="Shape of the input, where no images tell it. Of a network of several inputs, once for each in order; "
        "then --data is images in a row, or items that hold as many.",
    ),
    _images(
        "--calibration-images",
        type=click.IntRange(1),
        metavar="N",
        help="Images to fit on, at most. Without: 1,024, of 2 GiB at most, fewer where an untraced network is large.",
    ),
    _loading(
        "--arch",
        metavar="ARCH",
        help="Network that the weights belong to: torchvision:resnet50, timm:NAME, package.module:factory or "
        "file.py:factory.",
    ),
    _loading(
        "--arch-arg",
        "arch_args",
        multiple=True,
        type=PAIR,
        metavar="KEY=VALUE",
        help="Argument for the factory of --arch; repeatable.",
    ),
    _loading("--trust-pickle", is_flag=True, help="Let MODEL run any code it holds. Only for files you trust."),
    _writing(
        "-o",
        "--output",
        type=_FILE,
        metavar="PATH",
        help="The file, whose suffix says the format where --format does not; of several, the stem.  "
        "[default: MODEL.onnx]",
    ),
    _writing(
        "--format",
        "formats",
        multiple=True,
        type=click.Choice(tuple(SUFFIXES)),
        default=DEFAULTS["formats"],
        show_default=True,
        help="What to write; repeatable. safetensors holds a recipe that vfconvert.load rebuilds the network from.",
    ),
    _writing(
        "--report",
        "reports",
        multiple=True,
        type=_FILE,
        metavar="PATH",
        help="Write the report too: .html a page for people, .md Markdown for a pull request, .json all of it for "
        "programs, .csv the layers; repeatable.",
    ),
    _writing(
        "--samples",
        type=click.IntRange(min=0),
        default=DEFAULTS["samples"],
        show_default=True,
        metavar="N",
        help="Images that the page shows with both networks' answers.",
    ),
    _writing("--save-plan", type=_FILE, metavar="FILE", help="Write what becomes of each layer, for --plan to read."),
    _writing(
        "--opset",
        type=click.IntRange(*OPSETS),
        default=DEFAULTS["opset"],
        show_default=True,
        metavar="N",
        help="ONNX opset.",
    ),
    _writing("--dynamic-size", is_flag=True, help="Let the files take any height and width."),
    _speed(
        "--measure/--no-measure",
        default=DEFAULTS["measure"],
        show_default=True,
        help="Time each layer's inference forms and take the fastest, and time the network before and after. Without, "
        "forms are chosen by their products.",
    ),
    _speed(
        "--forms",
        type=click.Choice(FORMS),
        default=DEFAULTS["forms"],
        show_default=True,
        help="How the files compute converted layers: each as is fastest here, or all as ordinary convolutions, which "
        "take the original's time: for GPUs, which several small convolutions keep longer than a large one.",
    ),
    _speed(
        "--threads",
        type=click.IntRange(1),
        default=DEFAULTS["threads"],
        show_default=True,
        help="Threads of the runtime that is timed.",
    ),
    _speed(
        "--costs",
        type=_FILE,
        metavar="PATH",
        help="Table of layer timings: used where the file is there (perhaps from the target machine), else written.",
    ),
    _speed(
        "--precision",
        type=click.Choice(("fp32", "fp16")),
        default=DEFAULTS["precision"],
        show_default=True,
        help="fp16 writes the ONNX file in half precision besides.",
    ),
    _speed("--int8", is_flag=True, help="Write the ONNX file in eight bits besides, calibrated on the same images."),
    *TRAINING,
    *GATES,
    _writing("--dry-run", is_flag=True, help="Print the decisions; fit nothing, write nothing but --save-plan."),
    _writing("--seed", type=SEED, default=DEFAULTS["seed"], show_default=True, metavar="N", help="Random seed."),
    _writing(
        "--device",
        default=DEFAULTS["device"],
        show_default=True,
        metavar="NAME",
        help="Where to compute: cpu, cuda, cuda:1.",
    ),
    _writing("--json", "as_json", is_flag=True, help="Print the report as one JSON object instead of text."),
    _writing("-q", "--quiet", is_flag=True, help="Print nothing but errors and the paths of the files written."),
    _writing("-v", "--verbose", is_flag=True, help="List every layer, times, versions and checksums."),
    _recipe(
        "--config",
        type=_FILE,
        metavar="FILE",
        is_eager=True,
        callback=use_recipe,
        help="Take options from this YAML file, by their names without dashes. The command line wins, and --no-FLAG "
        "switches a flag of the file off.",
    ),
    _recipe("--save-config", type=_FILE, metavar="FILE", help="Write what is run as such a file."),
)


def convert_options(function: Function) -> Function:
    """Give a command the argument MODEL and all options, in the order in which help lists them."""
    for decorate in reversed(_ALL):
        function = decorate(function)
    return function
