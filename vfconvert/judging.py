"""How far a converted network is still the original, on images held out for that, and some of them to look at."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from vfconvert.inputs import Images, Source
from vfconvert.reporting.describe import agreement_of, answers_of
from vfconvert.reporting.report import AgreementReport
from vfconvert.reporting.sample import SampleReport
from vfconvert.samples import knows_class_maps, samples_of


def agreement_on(
    teacher: nn.Module, student: nn.Module, images: Images, part: slice, source: Source
) -> AgreementReport:
    """On a part of the images that judge."""
    return judged(teacher, student, images, part, source, 0)[0]


def judged(
    teacher: nn.Module, student: nn.Module, images: Images, part: slice, source: Source, samples: int
) -> tuple[AgreementReport, tuple[SampleReport, ...]]:
    """On a part of the images that judge, and at most so many samples of them, read again from `source`."""
    judging = images.judging[part]
    labels = images.labels[part] if images.labels is not None else None
    answers = answers_of(teacher, student, judging)
    if knows_class_maps(source, images.indices[part], answers.wanted):
        answers = replace(answers, class_maps=True)
    agreement = agreement_of(answers, judging, labels, images.classes, images.report)
    return agreement, samples_of(
        source, images, part, answers.wanted, answers.got, samples, class_maps=answers.class_maps
    )
