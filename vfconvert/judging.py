"""How far a converted network is still the original, on images held out for that, and some of them to look at."""

from __future__ import annotations

from torch import nn

from vfconvert.inputs import Images, Source
from vfconvert.reporting.describe import agreement_of, answers_of
from vfconvert.reporting.report import AgreementReport
from vfconvert.reporting.sample import SampleReport
from vfconvert.samples import samples_of


def agreement_on(teacher: nn.Module, student: nn.Module, images: Images, part: slice) -> AgreementReport:
    """On a part of the images that judge."""
    return judged(teacher, student, images, part)[0]


def judged(
    teacher: nn.Module, student: nn.Module, images: Images, part: slice, source: Source | None = None, samples: int = 0
) -> tuple[AgreementReport, tuple[SampleReport, ...]]:
    """On a part of the images that judge, and at most so many samples of them, read again from `source`."""
    judging = images.judging[part]
    labels = images.labels[part] if images.labels is not None else None
    wanted, got = answers_of(teacher, student, judging)
    agreement = agreement_of(wanted, got, judging, labels, images.classes, images.report)
    if source is None or not samples:
        return agreement, ()
    return agreement, samples_of(source, images, part, wanted, got, samples)
