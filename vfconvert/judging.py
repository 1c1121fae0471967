"""How far a converted network is still the original, on images held out for that, and some of them to look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from vfconvert.class_maps import could_be_class_maps
from vfconvert.exporting.outputs import MAIN_KEY, main_output
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
    maps = are_class_maps(answers.example, source, images)
    agreement = agreement_of(answers, judging, labels, images.classes, images.report, class_maps=maps)
    return agreement, samples_of(source, images, part, answers.wanted, answers.got, samples, class_maps=maps)


def are_class_maps(outputs: Any, source: Source, images: Images) -> bool:
    """Whether what a network answers to some of the images, `outputs`, is logits of every pixel.

    The data tells, by masks or clean images, else the preset, else that the output is called as torchvision's networks
    call such logits and has not as many channels as the images.
    """
    main = main_output(outputs)
    known = knows_class_maps(source, images.indices, main)
    if known is not None:
        return known
    named = isinstance(outputs, Mapping) and outputs.get(MAIN_KEY) is main
    return named and could_be_class_maps(main) and main.shape[1] != images.judging.shape[1]
