"""Sample images with both networks' answers, as a page shows them; pictures are part of the page."""

from __future__ import annotations

import base64
import math
from typing import Any

from vfconvert.reporting.report import ConversionReport
from vfconvert.reporting.sample import AnswerReport, PictureReport, SampleReport
from vfconvert.reporting.units import decibels, percent

_SMALL = 96  # pixels of a side; a browser would blur these when it enlarges them


def samples_note(report: ConversionReport) -> str:
    """Which images these are."""
    if not report.samples:
        return ""
    drawn = sum(sample.chosen == "drawn" for sample in report.samples)
    differing = len(report.samples) - drawn
    more = f", then {differing} of those on which both networks differ most" if differing else ""
    whose = "of the images that judge"
    if report.samples[0].same_pixels is not None:
        return (
            f"First {drawn} {whose}, drawn at random{more}. Every class has a colour, the first is black; the "
            "difference is white where both networks name different classes."
        )
    if not _has_pictures(report.samples[0]):
        return f"First {drawn} {whose}, drawn at random{more}. Percentages: what the network gives its class."
    amplified = report.samples[0].amplified or 1.0
    return (
        f"First {drawn} {whose}, drawn at random{more}. Of a large image the middle is shown; PSNR is that of the "
        f"whole image, peak 1. The difference is amplified {amplified:g} times."
    )


def sample_view(sample: SampleReport) -> dict[str, Any]:
    """Texts and pictures of one sample; `pictures` is empty for a class."""
    if _has_pictures(sample):
        return {"name": sample.name, "differs": sample.chosen == "differs", "pictures": _pictures(sample)}
    return {
        "name": sample.name,
        "pictures": [],
        "same": sample.same,
        "label": sample.label,
        "alt": f"The image {sample.name}",
        **_shown(sample.given),
        "original": _class_text(sample.original),
        "original_share": _probability(sample.original),
        "converted": _class_text(sample.converted),
        "converted_share": _probability(sample.converted),
    }


def _has_pictures(sample: SampleReport) -> bool:
    return sample.original.picture is not None


def _class_text(answer: AnswerReport) -> str:
    return answer.class_name if answer.class_name is not None else f"class {answer.class_index}"


def _probability(answer: AnswerReport) -> str:
    return "" if answer.probability is None else percent(answer.probability)


def _pictures(sample: SampleReport) -> list[dict[str, Any]]:
    of_classes = sample.same_pixels is not None
    both = f"{percent(sample.same_pixels)} alike" if sample.same_pixels is not None else _psnr(sample.psnr)
    wanted = (
        ("given to both", sample.given, ""),
        ("original network", sample.original.picture, _beside_the_clean(sample, sample.original)),
        ("converted network", sample.converted.picture, _beside_the_clean(sample, sample.converted)),
        ("difference of both", sample.difference, both),
        ("labels" if of_classes else "clean", sample.clean, ""),
    )
    return [
        {"caption": caption, "value": value, "alt": f"{sample.name}: {caption}", **_shown(picture)}
        for caption, picture, value in wanted
        if picture is not None
    ]


def _beside_the_clean(sample: SampleReport, answer: AnswerReport) -> str:
    """How near an answer is to what the data says, where it says anything."""
    if sample.clean is None:
        return ""
    if sample.same_pixels is None:
        return f"{_psnr(answer.psnr)} to the clean"
    return "" if answer.right_pixels is None else f"{percent(answer.right_pixels)} of the labels"


def _psnr(value: float | None) -> str:
    return decibels(math.inf if value is None else value)


def _shown(picture: PictureReport) -> dict[str, Any]:
    return {
        "url": f"data:image/png;base64,{base64.b64encode(picture.png).decode()}",
        "width": picture.width,
        "height": picture.height,
        "small": max(picture.width, picture.height) < _SMALL,
    }
