"""What the user should know of a conversion, a sentence each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from vfconvert.planning import Plan
from vfconvert.reporting.describe import VARYING
from vfconvert.reporting.report import AgreementReport, ArtefactReport, ImagesReport
from vfconvert.reporting.units import is_share, percent, plural

ENOUGH_AGREEMENT = 0.95
ENOUGH_RELATIVE_ERROR = 0.05
ENOUGH_RELATIVE_CHANGE = 0.2
_ENOUGH_IMAGES = 4  # to be of more than one kind


def layout_warning(channels_last: bool) -> tuple[str, ...]:
    """Where the original takes `(B, H, W, C)`, that what is written does not."""
    if not channels_last:
        return ()
    return (
        "The original takes images with their channels last, (B, H, W, C); the files written take (B, C, H, W). "
        "Transpose the images, or put a transposition before the network.",
    )


def rounded(artefacts: Sequence[ArtefactReport], usual: float) -> tuple[str, ...]:
    """Of each file that differs by more than the `usual` tolerance, whose network enlarges rounding, a sentence."""
    return tuple(
        f"The {file.format} file differs from the converted network by {file.parity.relative_error:.2g} of the largest "
        f"output, where {usual:g} is usual. This network enlarges rounding: in float64 it differs from itself so far "
        "that this may be no fault. Compare the file with the network on data of your own."
        for file in artefacts
        if file.parity is not None and file.parity.relative_error > usual
    )


def linears_unknown(*, asked: bool, traced: bool) -> tuple[str, ...]:
    """What `--linear` cannot do in a network that is not traced, a sentence or none."""
    if not asked or traced:
        return ()
    return ("--linear: which Linear reads a flattened map is not known without a trace, so all stay as they are",)


def warnings_of(
    plan: Plan,
    original: nn.Module,
    images: ImagesReport | None,
    found: AgreementReport | None,
    *,
    alone: int | None,
    parts: Sequence[str] = (),
    left_out: str = "",
    plain: int = 0,
    varying: bool = False,
) -> tuple[str, ...]:
    """What the user should know, a sentence each.

    `alone` layers were fitted one by one, of a network that cannot be traced but for `parts`; None where it can.
    """
    sentences = []
    if alone is not None:
        sentences.append(_untraced(alone, parts))
    if varying:
        sentences.append(VARYING)
    if plain:
        sentences.append(
            f"plain layers that compute the same stand in for {plural(plain, 'layer')} of other classes: weights that "
            "are computed (standardised, normalised, masked) are constants from here on"
        )
    if left_out:
        sentences.append(
            f"the network is too large for the time allowed to {left_out}: the result is that of the closed-form fit "
            "without it"
        )
    if found is not None and is_share(found.measure) and found.value < ENOUGH_AGREEMENT:
        counted = "pixels" if found.measure.startswith("pixel") else "images"
        sentences.append(
            f"the converted network agrees with the original on {percent(found.value)} of the {counted}, below "
            f"{ENOUGH_AGREEMENT:.0%}: convert fewer layers (--exclude, or --spatial alone), give more "
            "--calibration-images, or fine-tune it (--epochs)"
        )
    if found is not None and not is_share(found.measure) and not found.relative_error <= ENOUGH_RELATIVE_ERROR:
        sentences.append(
            f"the outputs differ from the original's by {percent(found.relative_error)} of their size: convert fewer "
            "layers (--exclude, or --spatial alone), give more --calibration-images, or fine-tune it (--epochs)"
        )
    sentences += _alike(found, images) if found is not None else ()
    if images is not None and images.source == "synthetic":
        sentences.append(
            f"no --data was given: fitted on {images.calibration} synthetic images ({images.method}), and agreement is "
            "measured on such images too; real images fit better and judge better"
        )
    change = found.relative_change if found is not None else None
    if change is not None and not change <= ENOUGH_RELATIVE_CHANGE:
        sentences.append(
            f"what the network changes in its input differs from the original's by {percent(change)} of its size: "
            "convert fewer layers, give more --calibration-images, or fine-tune it (--epochs)"
        )
    grouped = [d.layer for d in plan.converted if d.spec.is_group_convolution(d.geometry)]
    if grouped:
        sentences.append(
            f"windows that share nothing make group convolutions of {plural(len(grouped), 'layer')}: {grouped[0]}"
            + (", …" if len(grouped) > 1 else "")
        )
    kinds = {p.dtype for p in original.parameters() if p.is_floating_point()} - {torch.float32}
    if kinds:
        names = ", ".join(sorted(str(kind) for kind in kinds))
        sentences.append(f"the network's {names} weights were converted to float32, in which it is fitted and written")
    return tuple(sentences)


def _alike(found: AgreementReport, images: ImagesReport | None) -> tuple[str, ...]:
    """That what agrees is one answer to all images, a sentence or none."""
    if found.distinct != 1 or found.images < _ENOUGH_IMAGES:
        return ()
    where, told = plural(found.images, "image"), "agreement with it tells little"
    if not is_share(found.measure):
        return (f"the original answers {where} alike, so that {told}, and so does the comparison of files",)
    asked = ""
    if images is not None and images.source != "synthetic":
        given = images.preprocessing.startswith("none")  # what was given as it goes in is prepared elsewhere
        asked = f": are they prepared as in training{'' if given else ' (--preset, or --mean, --std and --size)'}?"
    return (f"the original finds one class in all of {where}, so that {told}{asked}",)


def _untraced(alone: int, parts: Sequence[str]) -> str:
    one_by_one = "one by one without their norms, which is slower and less exact"
    if not parts:
        return f"the network's control flow cannot be traced: layers are fitted {one_by_one}"
    fitted = f"the network's control flow cannot be traced as a whole: {' and '.join(parts)} fitted as traced networks"
    return f"{fitted}, {plural(alone, 'other layer')} {one_by_one}" if alone else fitted
