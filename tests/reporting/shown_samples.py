"""Reports with pictures, a training and a plan; and one whose every text tries to be more than a text."""

import io
from dataclasses import replace

from PIL import Image

from tests.reporting.samples import FULL
from vfconvert.reporting.report import BudgetReport, TargetReport, TrainingReport, TrialReport
from vfconvert.reporting.sample import AnswerReport, PictureReport, SampleReport


def picture(colour: int, size: tuple[int, int] = (8, 6)) -> PictureReport:
    """One grey."""
    made = io.BytesIO()
    Image.new("L", size, colour).save(made, "PNG")
    return PictureReport(width=size[0], height=size[1], png=made.getvalue())


def classified(name: str, before: int, after: int, chosen: str = "drawn", label: str | None = "cat") -> SampleReport:
    """Both answers to one image; classes are cat and dog."""
    names = ("cat", "dog")
    return SampleReport(
        name=name,
        chosen=chosen,
        given=picture(90),
        label=label,
        original=AnswerReport(class_index=before, class_name=names[before], probability=0.98765),
        converted=AnswerReport(class_index=after, class_name=names[after], probability=0.5),
    )


TRAINED = replace(
    FULL,
    training=TrainingReport(
        task="classification",
        metric="top1",
        higher_is_better=True,
        optimizer="adamw",
        rate=1e-3,
        norms="frozen",
        precision="bf16",
        batch=32,
        processes=1,
        epochs=(
            {"epoch": 0, "step": 0, "top1": 90.5, "seconds": 0.1},
            {"epoch": 1, "step": 20, "top1": 92.25, "seconds": 2.0},
            {"epoch": 2, "step": 40, "top1": 91.75, "seconds": 4.0},
        ),
        losses=((1, 0.9), (20, 0.5), (40, 0.25)),
        steps=40,
        resumed_from=0,
        best_epoch=1,
        norms_estimated=False,
        unreadable=("b/7.png",),
        seconds=4.25,
        folder="a.training",
    ),
    samples=(classified("a/1.png", 0, 0), classified("a/2.png", 0, 1, "differs")),
)

RESTORED = replace(
    FULL,
    samples=(
        SampleReport(
            name="butterfly.png",
            chosen="drawn",
            given=picture(90, (120, 100)),
            original=AnswerReport(picture=picture(100, (120, 100)), psnr=37.66),
            converted=AnswerReport(picture=picture(102, (120, 100)), psnr=36.79),
            clean=picture(101, (120, 100)),
            psnr=42.5,
            difference=picture(16, (120, 100)),
            amplified=8.0,
        ),
        SampleReport(
            name="same.png",
            chosen="differs",
            given=picture(90),
            original=AnswerReport(picture=picture(100)),
            converted=AnswerReport(picture=picture(100)),
            difference=picture(0),
            amplified=8.0,
        ),
    ),
)

SEGMENTED = replace(
    FULL,
    samples=(
        SampleReport(
            name="street.png",
            chosen="drawn",
            given=picture(90, (120, 100)),
            original=AnswerReport(picture=picture(100, (120, 100)), right_pixels=0.91),
            converted=AnswerReport(picture=picture(102, (120, 100)), right_pixels=0.875),
            clean=picture(101, (120, 100)),
            same_pixels=0.96875,
            difference=picture(16, (120, 100)),
        ),
        SampleReport(
            name="open.png",
            chosen="differs",
            given=picture(90),
            original=AnswerReport(picture=picture(100)),
            converted=AnswerReport(picture=picture(100)),
            same_pixels=1.0,
            difference=picture(0),
        ),
    ),
)

BUDGETED = replace(
    FULL,
    layers=tuple(
        replace(row, damage=None if row.code == "first" else 0.01 * index) for index, row in enumerate(FULL.layers)
    ),
    budget=BudgetReport(
        targets=(TargetReport(target="params=50%", allowed=4925.0, predicted=4900.0, reached=5274.0),),
        damage=0.1,
        measure="nats",
        gap=0.02,
        trials=(TrialReport(kinds=("lines", "both"), damage=0.1, loss=0.2, chosen=True),),
    ),
)

HOSTILE = (
    "<script>console.error('ran')</script>",
    '"><img src=x onerror="console.error(1)">',
    "</style></script><h1>broken</h1>",
    "{{ 7 * 7 }}{% raw %}",
    "| a | `b` ``c`` \\| *d* _e_ ~~f~~",
    "[link](https://example.invalid/x) ![picture](https://example.invalid/y.png) <https://example.invalid>",
    "@someone #1 www.example.invalid https://example.invalid",
    '=HYPERLINK("https://example.invalid")',
    "line\nbreak\r\n# heading\n```\nfence",
    "$math$ \\(x\\) &amp; &lt;b&gt; \u202e\u2066",
)


def hostile(text: str):
    """A report in which everything that comes from the model, the data or the command line is this text."""
    sample = classified("a", 0, 1)
    answers = {side: replace(getattr(sample, side), class_name=text) for side in ("original", "converted")}
    rows = tuple(replace(row, name=text, reason=row.reason and f"{text} {row.reason}") for row in TRAINED.layers)
    return replace(
        TRAINED,
        command=f"vfconvert {text}",
        layers=rows,
        input=replace(TRAINED.input, path=text),
        output=replace(TRAINED.output, path=text),
        artefacts=tuple(replace(file, path=text) for file in TRAINED.artefacts),
        images=replace(TRAINED.images, source=text, method=text, preprocessing=text),
        warnings=(text,),
        training=replace(TRAINED.training, unreadable=(text,), folder=text),
        samples=(replace(sample, name=text, label=text, **answers), *RESTORED.samples),
        precisions=tuple(replace(row, path=text) for row in TRAINED.precisions),
    )
