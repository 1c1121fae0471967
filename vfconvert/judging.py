"""How far a converted network is still the original, on images held out for that, and some of them to look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vfconvert.class_maps import could_be_class_maps
from vfconvert.data.examples import FolderExamples
from vfconvert.exporting.outputs import MAIN_KEY, main_output
from vfconvert.inputs import Images, Source
from vfconvert.reporting.describe import agreement_of, answers_of
from vfconvert.reporting.report import AgreementReport
from vfconvert.reporting.sample import SampleReport
from vfconvert.reporting.units import plural
from vfconvert.samples import knows_class_maps, samples_of

_PARTS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})  # of a data set


def agreement_on(
    teacher: nn.Module, student: nn.Module, images: Images, part: slice, source: Source
) -> AgreementReport:
    """On a part of the images that judge."""
    return judged(teacher, student, images, part, source, 0)[0]


def judged(
    teacher: nn.Module, student: nn.Module, images: Images, part: slice, source: Source, samples: int
) -> tuple[AgreementReport, tuple[SampleReport, ...], tuple[str, ...]]:
    """On a part of the images that judge, and at most so many samples of them, read again from `source`.

    And what is to be known of the labels, a sentence or none.
    """
    judging = images.judging[part]
    labels = images.labels[part] if images.labels is not None else None
    answers = answers_of(teacher, student, judging)
    maps = are_class_maps(answers.example, source, images)
    agreement = agreement_of(answers, judging, labels, images.classes, images.report, class_maps=maps)
    shown = samples_of(source, images, part, answers.wanted, answers.got, samples, class_maps=maps)
    return agreement, shown, doubtful_labels(answers.wanted, images, source)


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


def doubtful_labels(outputs: Tensor, images: Images, source: Source) -> tuple[str, ...]:
    """That labels are not of the classes which outputs `(N, …)` tell apart, or look as if they were none.

    A sentence, or none: also where outputs are no rows of classes, or labels tell nothing apart.
    """
    if images.labels is None or source.examples is None or outputs.dim() != 2:
        return ()
    names, classes = source.examples.class_names, outputs.shape[1]
    in_folders = isinstance(source.examples, FolderExamples)
    parts = in_folders and all(name.lower() in _PARTS for name in names)
    if not parts and (images.classes == classes or images.classes < 2):
        return ()
    has = f"{plural(images.classes, 'subfolder')}" if in_folders else f"labels of {images.classes:,} classes"
    instead = ""
    if parts:
        has += f" ({', '.join(names)})"
        instead = f"; as parts of a data set give one of them, like --data {source.examples.root}/{names[-1]}"
    if images.classes == classes:
        return (f"--data has {has}, which count as the network's classes{instead}",)
    known = f"{classes:,} classes" if classes > 1 else "one output"
    return (
        f"--data has {has} and the network {known}: they do not count as labels, so no accuracy is reported, and "
        f"neither gates nor --epochs go by it{instead}",
    )
