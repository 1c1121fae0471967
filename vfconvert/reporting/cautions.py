"""What the user should know of a conversion, a sentence each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from vfconvert.options import ConversionOptions
from vfconvert.planning import Plan
from vfconvert.reporting.describe import VARYING
from vfconvert.reporting.report import AgreementReport, ArtefactReport, ImagesReport
from vfconvert.reporting.units import is_share, percent, plural

ENOUGH_AGREEMENT = 0.95
ENOUGH_RELATIVE_ERROR = 0.05
ENOUGH_RELATIVE_CHANGE = 0.2
_ENOUGH_IMAGES = 4  # to be of more than one kind
_ENOUGH_TO_JUDGE = 20  # held out: of fewer one alone is worth more than 5 points


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
    options: ConversionOptions,
    *,
    alone: int | None,
    chosen_by: int = 0,
    parts: Sequence[str] = (),
    left_out: str = "",
    plain: int = 0,
    varying: bool = False,
) -> tuple[str, ...]:
    """What the user should know, a sentence each.

    `alone` layers were fitted one by one, of a network that cannot be traced but for `parts`; None where it can.
    The first `chosen_by` images held out have helped to choose the plan, and judge nothing.
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
            f"{ENOUGH_AGREEMENT:.0%}: {_advice(options)}"
        )
    if found is not None and not is_share(found.measure) and not found.relative_error <= ENOUGH_RELATIVE_ERROR:
        sentences.append(
            f"the outputs differ from the original's by {percent(found.relative_error)} of their size: "
            f"{_advice(options)}"
        )
    if found is not None:
        sentences += _alike(found, images)
        sentences += _few(found, images, options, chosen_by)
    if images is not None and images.source == "synthetic":
        sentences.append(
            f"no --data was given: fitted on {images.calibration} synthetic images ({images.method}), and agreement is "
            "measured on such images too; real images fit better and judge better"
        )
    change = found.relative_change if found is not None else None
    if change is not None and not change <= ENOUGH_RELATIVE_CHANGE:
        sentences.append(
            f"what the network changes in its input differs from the original's by {percent(change)} of its size: "
            f"{_advice(options)}"
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


def _advice(options: ConversionOptions) -> str:
    """What may bring the network nearer to the original, of what was not done."""
    if options.searches:
        steps = ["allow a higher --target" if options.targets else "allow a smaller --max-drop"]
    elif options.plan is not None:
        steps = ["convert fewer layers in the plan"]
    else:
        alone = ", --spatial alone" if options.spatial and options.channel else ""
        steps = [f"convert fewer layers (--exclude{alone} or --target)"]
        if options.spatial and not options.channel and options.crops != "lines":
            steps.append("use --crops lines")
    if not options.reconstruct:
        steps.append("drop --no-reconstruct")
    if options.data is not None:
        steps.append("give more --calibration-images")
    steps.append("train for more --epochs" if options.training.epochs else "fine-tune it (--epochs)")
    return f"{', '.join(steps[:-1])}, or {steps[-1]}"


def _few(
    found: AgreementReport, images: ImagesReport | None, options: ConversionOptions, chosen_by: int
) -> tuple[str, ...]:
    """That one image decides too much, in what is judged and in limits on what may be lost."""
    if images is None or images.source == "synthetic" or not found.held_out or not found.images:
        return ()
    whole = is_share(found.measure) and not found.measure.startswith("pixel")  # an image is right or wrong
    said = []
    if found.images < _ENOUGH_TO_JUDGE:
        worth = f", of which one is worth {100 / found.images:.3g} points" if whole else ""
        said.append(f"only {plural(found.images, 'image')} held out to judge by{worth}: give more images")
    limits = (
        ("--fail-over-drop", options.fail_over_drop, found.images, "judge"),
        ("--max-drop", options.max_drop, chosen_by, "choose the plan"),
    )
    for flag, limit, count, does in limits:
        # A limit of 0 asks for no loss, and is what it says of however few images.
        if whole and limit is not None and count and 0 < limit < 100 / count:
            said.append(
                f"{flag} {limit:g} is less than the {100 / count:.3g} points that one of the {count:,} images is worth "
                f"which {does}: give more images"
            )
    return tuple(said)


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
