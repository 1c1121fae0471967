"""Inspections made by hand: two layers that have a choice, and three that have none."""

from dataclasses import replace

from tests.reporting.samples import FULL, LAYERS
from vfconvert.budget.frontier import Frontier, Point
from vfconvert.budget.table import KEEP, LayerOptions, Option
from vfconvert.reporting.inspect_report import InspectReport
from vfconvert.specs import ConvGeometry, Crop, VersatileSpec

WHOLE, CENTRE = Crop(0, 3, 0, 3), Crop(1, 2, 1, 2)
LINES = (Crop(0, 3, 1, 2), Crop(1, 2, 0, 3))
SPATIAL = VersatileSpec(crops=(WHOLE, CENTRE), levels=((0,), (1,)))
LINED = VersatileSpec(crops=(WHOLE, CENTRE, *LINES), levels=((0,), (1, 2, 3)))
CHANNEL = VersatileSpec(crops=(WHOLE,), levels=((0,),), windows=2, channel_stride=4)
GROUP = VersatileSpec(crops=(WHOLE,), levels=((0,),), windows=2, channel_stride=8)
BOTH = VersatileSpec(crops=(WHOLE, CENTRE), levels=((0,), (1,)), windows=2, channel_stride=4)


def _geometry(inputs: int, outputs: int, stride: int) -> ConvGeometry:
    return ConvGeometry(
        in_channels=inputs,
        out_channels=outputs,
        kernel_size=(3, 3),
        stride=(stride, stride),
        padding=(1, 1),
        dilation=(1, 1),
        groups=1,
        bias=False,
    )


def _option(kind, spec, parameters, macs, unexplained, damage, seconds) -> Option:
    return Option(
        kind=kind,
        spec=spec,
        parameters=parameters,
        macs=macs,
        unexplained=unexplained,
        damage=damage,
        seconds=seconds,
    )


CONV1 = LayerOptions(
    layer="blocks.0.conv1",
    geometry=_geometry(16, 16, 1),
    norm="blocks.0.bn1",
    options=(
        _option(KEEP, None, 2304, 2_359_296, 0.0, 0.0, 0.0004),
        _option("spatial", SPATIAL, 1152, 1_310_720, 0.125, 0.0123, 0.0003),
        _option("spatial", replace(SPATIAL, group_primaries=12), 1728, 1_835_008, 0.05, 0.0051, 0.00035),
        _option("lines", LINED, 1152, 1_572_864, 0.1, 0.0099, 0.0004),
        _option("channel", CHANNEL, 1152, 1_179_648, 0.08, 0.0077, 0.00025),
        _option("both", BOTH, 576, 655_360, 0.3, 0.0456, 0.0002),
    ),
)
CONV2 = LayerOptions(
    layer="blocks.0.conv2_of_a_rather_long_name",
    geometry=_geometry(16, 32, 2),
    norm=None,
    options=(
        _option(KEEP, None, 4608, 1_179_648, 0.0, 0.0, 0.0002),
        _option("spatial", SPATIAL, 2304, 655_360, 0.21, 0.000_345, 0.00015),
        _option("group", GROUP, 2304, 589_824, 0.4, 0.000_612, 0.0001),
        _option("both", BOTH, 1152, 327_680, 0.45, 0.000_789, 0.00011),
    ),
)


def point(parameters: int, macs: int, seconds: float, damage: float, chosen: tuple[int, ...] = (0, 0)) -> Point:
    return Point(
        chosen=chosen,
        damage=damage,
        parameters=parameters,
        macs=macs,
        seconds=seconds,
        parameters_share=parameters / 9_850,
        macs_share=macs / 4_505_920,
        seconds_share=seconds / 0.001,
    )


BY_PARAMETERS = (
    point(9_850, 4_505_920, 0.001, 0.0, (0, 0)),
    point(7_546, 3_981_632, 0.00095, 0.000_345, (0, 1)),
    point(6_394, 3_653_952, 0.00091, 0.000_789, (0, 3)),
    point(5_242, 2_474_304, 0.00076, 0.008_489, (4, 3)),
    point(4_666, 1_950_016, 0.00071, 0.046_389, (5, 3)),
)
BY_MACS = (BY_PARAMETERS[0], BY_PARAMETERS[2], BY_PARAMETERS[3], BY_PARAMETERS[4])
BY_LATENCY = (BY_PARAMETERS[0], point(7_546, 3_915_000, 0.0009, 0.000_612, (0, 2)), *BY_PARAMETERS[3:])

INSPECTED = InspectReport(
    command="vfconvert inspect models/a.pt --data 'my images'",
    versions=FULL.versions,
    seed=3,
    device="cpu",
    input=FULL.input,
    input_shape=(3, 32, 32),
    images=FULL.images,
    measure="nats",
    parameters=9_850,
    macs=4_505_920,
    latency=0.001,
    runtime="onnxruntime 1.32.0",
    layers=(CONV1, CONV2),
    kept=tuple(row for row in LAYERS if row.decision == "keep"),
    frontiers=(
        Frontier(cost="params", points=BY_PARAMETERS),
        Frontier(cost="macs", points=BY_MACS),
        Frontier(cost="latency", points=BY_LATENCY),
    ),
    uniform=(
        ("spatial", point(6_394, 2_932_736, 0.00085, 0.012_645, (1, 1))),
        ("channel", point(8_698, 3_326_272, 0.00085, 0.0077, (4, 0))),
        ("both", point(4_666, 1_950_016, 0.00071, 0.046_389, (5, 3))),
    ),
    warnings=("no --data was given: real images judge better",),
    seconds={"load": 0.25, "fit": 12.34},
)

UNTIMED = replace(
    INSPECTED,
    measure="variance",
    latency=None,
    runtime=None,
    images=None,
    warnings=(),
    layers=tuple(
        replace(layer, options=tuple(replace(option, seconds=None) for option in layer.options))
        for layer in INSPECTED.layers
    ),
    frontiers=tuple(
        replace(frontier, points=tuple(replace(p, seconds=None, seconds_share=None) for p in frontier.points))
        for frontier in INSPECTED.frontiers[:2]
    ),
    uniform=(),
)
