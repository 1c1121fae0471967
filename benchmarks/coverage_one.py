"""One architecture with random weights, converted, lowered, exported to ONNX and compared there: a process of its own.

    python -m benchmarks.coverage_one torchvision resnet18

It goes through the product's own door: the weights are saved as a state dict, noise as a folder of images, and
`vfconvert.pipeline.convert` gets both with `arch`. BatchNorm statistics are those of noise, as a network that was
trained has statistics of what it was trained on. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.detectors import arguments_of, spread_scores
from vfconvert.data.synthetic import noise_images
from vfconvert.errors import NothingEligibleError, VfconvertError
from vfconvert.loading.architectures import build_architecture
from vfconvert.nn.several_inputs import Inputs, input_names, joined, positional_names
from vfconvert.options import ConversionOptions, Shape
from vfconvert.pipeline import convert
from vfconvert.reporting.report import ConversionReport

SIDES = (64, 96, 128, 160, 192, 224, 240, 256, 288, 320, 384, 448, 512)
IMAGES = 20  # a fifth is held out
_MIDDLE, _SPREAD = 128, 48  # of pixels: of mean 0 and variance 1 once prepared, as what the norms' statistics are of
_ASLEEP = 1e-3  # the largest number of a parameter that says nothing
_MOST_INPUTS = 2
_STRIDE = 0.5  # windows side by side: the fit is several times as quick as at the default

# Why a layer that could be shared stays as it is. Layers kept for other reasons have nothing to share (depthwise, too
# few outputs) or are the first, and do not count.
_MISSED = (
    *("subclass", "hooks", "parametrized", "dtype", "shared", "tied"),
    *("called-repeatedly", "never-run", "too-large"),
)


@dataclass(frozen=True)
class Outcome:
    """What one conversion came to; `share` is that of the eligible weights that were replaced."""

    status: str
    reason: str = ""
    share: float = 0.0
    form: str = ""
    parity: float | None = None
    input: str = ""
    flags: str = ""
    parameters: tuple[int, int] = (0, 0)
    kept: tuple[str, ...] = ()  # "code (weights)" of eligible layers that stayed


def main() -> None:
    """Convert the architecture and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=("torchvision", "timm"))
    parser.add_argument("name")
    parser.add_argument("--dry-run", action="store_true", help="decide about every layer, and no more")
    parser.add_argument("--device", default="cpu", help="where the fit is computed")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    begun = time.perf_counter()
    outcome = outcome_of(
        f"{arguments.library}:{arguments.name}",
        dry_run=arguments.dry_run,
        device=arguments.device,
        arguments=arguments_of(arguments.library, arguments.name),
    )
    line = vars(outcome) | {"seconds": round(time.perf_counter() - begun, 1)}
    print(json.dumps({"library": arguments.library, "name": arguments.name} | line), flush=True)


def outcome_of(
    architecture: str,
    *,
    dry_run: bool = False,
    device: str = "cpu",
    arguments: Mapping[str, object] = MappingProxyType({}),
) -> Outcome:
    """Build it, give it weights and the smallest input, and convert it."""
    torch.manual_seed(0)
    try:
        model = build_architecture(architecture, arguments).eval()
    except VfconvertError as error:
        return Outcome("refused", f"{type(error).__name__}: {error}")
    if not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        return Outcome("no Conv2d")
    shapes = smallest_inputs(model)
    if shapes is None:
        return Outcome("refused", "no input of one or two tensors of images was found that the network takes")
    shape, count = shapes[0], len(shapes)
    if count > 1:  # the same network, its tensors shared
        model = joined(model, Inputs(input_names(model, count), tuple(shape[0] for shape in shapes)))
    whole = (count * shape[0], *shape[1:])
    wake(model)
    settle(model, noise_images(whole, 8, 1))
    spread_scores(model, noise_images(whole, 8, 1))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        torch.save(model.state_dict(), root / "weights.pt")
        del model
        options = ConversionOptions(
            model=root / "weights.pt",
            arch=architecture,
            arch_args=dict(arguments),
            spatial=True,
            channel=True,
            channel_stride=_STRIDE,
            reconstruct=False,
            measure=False,
            input_shape=shapes if count > 1 else shape,
            calibration_images=IMAGES,
            output=root / "converted.onnx",
            dry_run=dry_run,
            device=device,
        )
        if shape[0] == 3:
            _write_images(root / "images", shape)
            options = replace(options, data=root / "images", mean=(_MIDDLE / 255,) * 3, std=(_SPREAD / 255,) * 3)
        return _converted(options)


def _converted(options: ConversionOptions) -> Outcome:
    """In ONNX; where the only convolution is the first, with that one."""
    flags = ""
    try:
        try:
            report = convert(options)
        except NothingEligibleError as error:
            if "first: 1" not in str(error):
                raise
            flags, options = "--include-first", replace(options, include_first=True)
            report = convert(options)
    except VfconvertError as error:
        return Outcome("refused", f"{type(error).__name__}: {error}", input=_text(options.input_shapes), flags=flags)
    if report is None:
        raise RuntimeError("one process writes a report")
    return replace(judged(report), flags=flags)


def judged(report: ConversionReport) -> Outcome:
    """Converted only if at least half of the eligible weights were."""
    replaced = sum(row.weights_before for row in report.layers if row.decision == "convert")
    missed = [row for row in report.layers if row.code in _MISSED]
    eligible = replaced + sum(row.weights_before for row in missed)
    share = replaced / eligible if eligible else 0.0
    untraced = any("cannot be traced" in warning for warning in report.warnings)
    kept: dict[str, int] = {}
    for row in missed:
        kept[str(row.code)] = kept.get(str(row.code), 0) + row.weights_before
    return Outcome(
        "too little" if share < 0.5 else "converted" if report.parity is not None else "planned",
        share=round(share, 4),
        form="layer by layer" if untraced else "traced",
        parity=report.parity.relative_error if report.parity is not None else None,
        input=_text(report.input_shapes or (report.input_shape,)),
        parameters=(report.before.parameters, report.after.parameters),
        kept=tuple(f"{code} ({weights:,})" for code, weights in kept.items()),
    )


def smallest_inputs(model: nn.Module) -> tuple[Shape, ...] | None:
    """The first of `SIDES` at which the network takes a batch of 2; of RGB, else of as many channels as it has.

    A forward that needs two arguments is given two such inputs (optical flow).
    """
    count = max(1, positional_names(model)[1])
    if count > _MOST_INPUTS:
        return None
    for channels in (3, 1, 6):
        for side in SIDES:
            try:
                with torch.no_grad():
                    model(*(torch.randn(2, channels, side, side) for _ in range(count)))
                return ((channels, side, side),) * count
            except Exception:  # whatever a network says to a shape that it does not take
                continue
    return None


def _text(shapes: Iterable[Sequence[int]]) -> str:
    return " + ".join("x".join(map(str, shape)) for shape in shapes)


@torch.no_grad()
def wake(model: nn.Module) -> None:
    """Random numbers for weights that start at zero and scales that start near it, in place.

    Heads of zeros answer every image alike, and branches scaled by 1e-6 hide whatever is in them.
    """
    for parameter in model.parameters():
        if not parameter.is_floating_point() or float(parameter.abs().max()) > _ASLEEP:
            continue
        if parameter.dim() >= 2 and min(parameter.shape) > 1:
            parameter.normal_(std=parameter[0].numel() ** -0.5)
        elif bool(parameter.any()) and float(parameter.std()) == 0:  # a scale, and no bias of small random numbers
            parameter.uniform_(0.5, 1.0)


@torch.no_grad()
def settle(model: nn.Module, images: Tensor) -> None:
    """Statistics of norms from images, and no norm that starts at zero; in place."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in norms:
        if norm.affine and not bool(norm.weight.any()):
            norm.weight.uniform_(0.5, 1.0)
        norm.momentum = None
        norm.reset_running_stats()
        norm.train()
    try:
        model(images)
    except Exception:  # statistics as they were made: mean 0, variance 1
        for norm in norms:
            norm.reset_running_stats()
    for norm in norms:
        bad = not bool(torch.isfinite(norm.running_mean).all() and torch.isfinite(norm.running_var).all())
        if bad or not int(norm.num_batches_tracked):
            norm.reset_running_stats()
    model.eval()


def _write_images(folder: Path, shape: tuple[int, int, int]) -> None:
    folder.mkdir()
    images = (noise_images(shape, IMAGES, 0) * _SPREAD + _MIDDLE).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index:03}.png")


if __name__ == "__main__":
    sys.exit(main())
