"""Reports made by hand, the numbers of which are easy to follow: a conversion, and ones that change a part of it."""

from dataclasses import replace

from vfconvert.reporting.latency import LatencyReport, PrecisionReport
from vfconvert.reporting.report import (
    AgreementReport,
    ArtefactReport,
    ConversionReport,
    FileReport,
    ImagesReport,
    LayerRow,
    ParityReport,
    Size,
)

FIRST = "the first convolution has few input channels; --include-first converts it"
SINGLE = "a 1x1 kernel cannot be cropped; --channel would include it"
LAYERS = (
    LayerRow(
        name="stem.0",
        decision="keep",
        shape="3->16 3x3",
        code="first",
        reason=FIRST,
        weights_before=432,
        weights_after=432,
        macs_before=442_368,
        parameters_share=432 / 9_850,
        macs_share=442_368 / 4_505_920,
        flag="--include-first",
        macs_after=442_368,
    ),
    LayerRow(
        name="blocks.0.conv1",
        decision="convert",
        shape="16->16 3x3",
        spec="crops 3x3 1x1",
        weights_before=2304,
        weights_after=1152,
        macs_before=2_359_296,
        parameters_share=2304 / 9_850,
        macs_share=2_359_296 / 4_505_920,
        macs_after=1_310_720,
        unexplained=0.125,
        form="segments",
        macs_executed=1_310_720,
    ),
    LayerRow(
        name="blocks.0.conv2",
        decision="convert",
        shape="16->32 3x3 /2",
        spec="crops 3x3 1x1; 2 windows, stride 8",
        group_convolution=True,
        weights_before=4608,
        weights_after=1152,
        macs_before=1_179_648,
        parameters_share=4608 / 9_850,
        macs_share=1_179_648 / 4_505_920,
        macs_after=327_680,
        unexplained=0.29999,
        form="plain",
        macs_executed=1_179_648,
    ),
    LayerRow(
        name="blocks.1.a_rather_long_name_of_a_layer.projection",
        decision="keep",
        shape="32->32 1x1",
        code="nothing-to-share",
        reason=SINGLE,
        weights_before=1024,
        weights_after=1024,
        macs_before=262_144,
        parameters_share=1024 / 9_850,
        macs_share=262_144 / 4_505_920,
        flag="--channel",
        macs_after=262_144,
    ),
    LayerRow(
        name="blocks.1.skip",
        decision="keep",
        shape="32->32 1x1",
        code="nothing-to-share",
        reason=SINGLE,
        weights_before=1024,
        weights_after=1024,
        macs_before=262_144,
        parameters_share=1024 / 9_850,
        macs_share=262_144 / 4_505_920,
        flag="--channel",
        macs_after=262_144,
    ),
)


def _precision(name, path, size, seconds, agreement, error):
    return PrecisionReport(
        name=name,
        path=path,
        bytes=size,
        seconds=seconds,
        measure="top-1 agreement",
        value=agreement,
        relative_error=error,
    )


FULL = ConversionReport(
    command="vfconvert models/a.pt --spatial --channel --data 'my images'",
    versions={"python": "3.12.1", "torch": "2.14.1", "onnxruntime": "1.32.0"},
    seed=3,
    device="cpu",
    input=FileReport(path="models/a.pt", bytes=45_000, sha256="a" * 64),
    input_shape=(3, 32, 32),
    layers=LAYERS,
    before=Size(
        parameters=9_850, weight_bytes=39_400, macs_method=4_505_920, macs_executed=4_505_920, file_bytes=45_000
    ),
    after=Size(
        parameters=5_274, weight_bytes=21_096, macs_method=2_605_376, macs_executed=3_457_280, file_bytes=30_000
    ),
    images=ImagesReport(
        source="my images", method="a random draw of 1,000 images", calibration=800, held_out=200, preprocessing="RGB"
    ),
    agreement=AgreementReport(
        measure="top-1 agreement",
        value=0.945,
        relative_error=0.2341,
        images=200,
        held_out=True,
        accuracy_before=0.9999999,
        accuracy_after=0.935,
    ),
    parity=ParityReport(
        maximum_error=1.25e-6,
        relative_error=3.5e-7,
        tolerance=1e-4,
        batch_sizes=(1, 2, 5),
        runtime="onnxruntime 1.32.0",
        dynamic_batch=True,
    ),
    output=FileReport(path="models/a.onnx", bytes=30_000, sha256="b" * 64),
    artefacts=(
        ArtefactReport(format="onnx", path="models/a.onnx", bytes=30_000, sha256="b" * 64),
        ArtefactReport(format="pt2", path="models/a.pt2", bytes=31_000, sha256="c" * 64),
    ),
    latency=LatencyReport(
        before=0.0123,
        after=0.00615,
        spread_before=0.0002,
        spread_after=0.0001,
        rounds=15,
        threads=1,
        batch=1,
        runtime="onnxruntime 1.32.0",
    ),
    precisions=(
        _precision("original", None, 45_000, 0.0123, 1.0, 0.0),
        _precision("converted", None, 30_000, 0.00615, 0.945, 0.2341),
        _precision("converted int8", "models/a.int8.onnx", 9_000, 0.005, 0.93, 0.26),
    ),
    seconds={"load": 0.25, "fit": 12.34, "reconstruct": 75.0},
    warnings=(
        "the converted network agrees with the original on 94.5% of the images, below 95%: convert fewer layers",
    ),
)

DRY = replace(
    FULL,
    artefacts=(),
    latency=None,
    precisions=(),
    images=None,
    agreement=None,
    parity=None,
    output=None,
    warnings=(),
    after=replace(FULL.after, file_bytes=None),
    layers=tuple(replace(row, unexplained=None) for row in LAYERS),
)

IMAGES_OUT = replace(
    FULL,
    images=ImagesReport(
        source="synthetic", method="BatchNorm statistics", calibration=64, held_out=0, preprocessing="none"
    ),
    agreement=AgreementReport(measure="PSNR", value=37.414, relative_error=0.02, images=16, held_out=False),
    after=replace(FULL.after, macs_executed=3_000_000, uncounted={"aten.mystery": 2}),
    trusted_pickle=True,
    warnings=(),
)
