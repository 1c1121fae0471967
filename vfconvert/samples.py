"""A few of the images that judge, with what the original and the converted network make of them.

Half of them are drawn at random, as all that judge are; the others are those on which both networks differ most.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from vfconvert.class_maps import alike, classes_of, coloured, could_be_class_maps, resized
from vfconvert.data.preprocessing import Preprocessing
from vfconvert.errors import PreprocessingError
from vfconvert.inputs import Images, Source
from vfconvert.reporting.sample import AnswerReport, PictureReport, SampleReport

_THUMBNAIL = 160  # pixels of the longer side of what a classifier was given
_PART = 256  # pixels of a side of the part of a picture that is shown
_AMPLIFIED = 8.0
_OUTSIDE, _MOST_OUTSIDE = 0.25, 0.05  # how far, and which share of, the values of a picture leave 0 to 1
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class _Judged:
    """Inputs `(N, C, H, W)` of the examples `indices`, the outputs of the original and of the converted network."""

    source: Source
    preprocessing: Preprocessing
    indices: tuple[int, ...]
    inputs: Tensor
    labels: Tensor | None
    wanted: Tensor
    got: Tensor


def samples_of(
    source: Source,
    images: Images,
    part: slice,
    wanted: Tensor,
    got: Tensor,
    count: int,
    *,
    class_maps: bool = False,
) -> tuple[SampleReport, ...]:
    """At most `count` of a part of the images that judge, each with its two answers.

    `wanted` and `got` `(N, …)` are the outputs of the original and of the converted network on those. None where
    images are synthetic, or outputs are neither rows of classes, nor maps of classes (`class_maps`), nor pictures of as
    many channels as the input.
    """
    preprocessing = getattr(source.transform, "preprocessing", None)
    if not count or source.examples is None or not isinstance(preprocessing, Preprocessing):
        return ()
    indices, inputs = images.indices[part], images.judging[part]
    if not bool(torch.isfinite(wanted).all() and torch.isfinite(got).all()):
        return ()
    known = images.labels is not None and wanted.dim() == 2 and images.classes == wanted.shape[1]
    labels = images.labels[part] if known and images.labels is not None else None
    judged = _Judged(source, preprocessing, indices, inputs, labels, wanted, got)
    if wanted.dim() == 2 and wanted.shape[1] > 1:
        shown = _chosen(_disagreement(wanted, got), count)
        return tuple(_classified(judged, place, chosen) for place, chosen in shown)
    if class_maps:
        differing = (classes_of(wanted) != classes_of(got)).flatten(1).double().mean(1)
        return tuple(_segmented(judged, place, chosen) for place, chosen in _chosen(differing, count))
    if _are_pictures(judged):
        shown = _chosen((wanted - got).flatten(1).square().mean(1), count)
        return tuple(_restored(judged, place, chosen) for place, chosen in shown)
    return ()


def _chosen(distance: Tensor, count: int) -> list[tuple[int, str]]:
    """Places of samples: the first half of `count`, then of the rest those of the largest `distance` `(N,)` above 0."""
    drawn = min(math.ceil(count / 2), len(distance))
    order = torch.argsort(distance[drawn:], descending=True, stable=True) + drawn
    differing = [int(place) for place in order[: count - drawn] if distance[place] > 0]
    return [(place, "drawn") for place in range(drawn)] + [(place, "differs") for place in differing]


def _probabilities(outputs: Tensor) -> Tensor:
    """Rows `(N, K)` that sum to 1: as they are where they do, else by softmax."""
    outputs = outputs.double()
    if bool((outputs >= 0).all()) and bool(((outputs.sum(1) - 1).abs() < _SUM_TOLERANCE).all()):
        return outputs
    return outputs.softmax(1)


def _disagreement(wanted: Tensor, got: Tensor) -> Tensor:
    """By how much the converted network is surer of its class than the original; 0 where both name the same."""
    before, after = _probabilities(wanted), _probabilities(got)
    chosen = after.argmax(1, keepdim=True)
    surer = (after.gather(1, chosen) - before.gather(1, chosen)).squeeze(1).clamp_min(1e-12)
    return surer * (wanted.argmax(1) != got.argmax(1))


def _classified(judged: _Judged, place: int, chosen: str) -> SampleReport:
    names = _names(judged, judged.wanted.shape[1])
    number = int(judged.labels[place]) if judged.labels is not None else None
    before, after = (_class_answer(outputs[place : place + 1], names) for outputs in (judged.wanted, judged.got))
    return SampleReport(
        name=_name(judged, place),
        chosen=chosen,
        given=_picture(_thumbnail(judged.preprocessing.pixels(judged.inputs[place]))),
        original=before,
        converted=after,
        label=None if number is None else names[number] if names else str(number),
    )


def _names(judged: _Judged, classes: int) -> tuple[str, ...]:
    """The data's names of the network's classes, or those of the preset; none where their number is another."""
    preset = judged.preprocessing.preset
    examples = judged.source.examples
    for names in (examples.class_names if examples is not None else (), categories(preset) if preset else ()):
        if len(names) == classes:
            return names
    return ()


def categories(preset: str) -> tuple[str, ...]:
    """The classes that torchvision's weights of this name tell apart; none where they do not say."""
    from torchvision.models import get_weight

    return tuple(str(name) for name in get_weight(preset).meta.get("categories", ()))


def _class_answer(outputs: Tensor, names: Sequence[str]) -> AnswerReport:
    index = int(outputs.argmax(1))
    return AnswerReport(
        class_index=index,
        class_name=names[index] if names else None,
        probability=float(_probabilities(outputs)[0, index]),
    )


def knows_class_maps(source: Source, indices: Sequence[int], outputs: Tensor) -> bool | None:
    """Whether outputs are logits of every pixel: the data has masks, or the preset as many classes as channels.

    None where neither tells. `indices` are of examples that can be read.
    """
    if not could_be_class_maps(outputs):
        return False
    if source.examples is None or not indices:
        return None
    target = source.pair(indices[0])[1]
    if target is not None and target.dim() > 0:
        return _is_mask(target)
    preset = getattr(getattr(source.transform, "preprocessing", None), "preset", None)
    return True if preset is not None and len(categories(preset)) == outputs.shape[1] else None


def _is_mask(target: Tensor) -> bool:
    return target.dim() == 2 and not target.is_floating_point()


def _mask(source: Source, index: int) -> Tensor | None:
    """The classes `(H, W)` of the pixels of one image, where the data has them."""
    target = source.pair(index)[1]
    return target if target is not None and _is_mask(target) else None


def _segmented(judged: _Judged, place: int, chosen: str) -> SampleReport:
    shown = _thumbnail(judged.preprocessing.pixels(judged.inputs[place]), _PART)
    before, after = (classes_of(outputs[place : place + 1])[0] for outputs in (judged.wanted, judged.got))
    mask, classes = _mask(judged.source, judged.indices[place]), judged.wanted.shape[1]
    right: list[float | None] = [None, None]
    if mask is not None:
        mask = mask.where((mask >= 0) & (mask < classes), -1)  # what masks leave open has another number, 255 mostly
        labels = resized(mask, (before.shape[0], before.shape[1]))
        right = [alike(answer, labels, labels >= 0) for answer in (before, after)]
    difference = resized((before != after).long(), (shown.shape[-2], shown.shape[-1]))[None].to(shown)
    return SampleReport(
        name=_name(judged, place),
        chosen=chosen,
        given=_picture(shown),
        original=AnswerReport(picture=_picture(coloured(before, shown)), right_pixels=right[0]),
        converted=AnswerReport(picture=_picture(coloured(after, shown)), right_pixels=right[1]),
        clean=_picture(coloured(mask, shown)) if mask is not None else None,
        same_pixels=alike(before, after),
        difference=_picture(difference),
    )


def _are_pictures(judged: _Judged) -> bool:
    """Whether outputs have the channels of the input, and values that are nearly all those of pixels."""
    wanted, inputs = judged.wanted, judged.inputs
    if wanted.dim() != 4 or wanted.shape[1] != inputs.shape[1]:
        return False
    pixels = judged.preprocessing.pixels(wanted)
    outside = (pixels < -_OUTSIDE) | (pixels > 1 + _OUTSIDE)
    return float(outside.double().mean()) <= _MOST_OUTSIDE


def _restored(judged: _Judged, place: int, chosen: str) -> SampleReport:
    pixels = judged.preprocessing.pixels
    given, before, after = (pixels(batch[place]) for batch in (judged.inputs, judged.wanted, judged.got))
    clean = _clean(judged, place, before)
    factor = before.shape[-1] / given.shape[-1]
    return SampleReport(
        name=_name(judged, place),
        chosen=chosen,
        given=_picture(_middle(given, factor)),
        original=AnswerReport(picture=_picture(_middle(before)), psnr=_psnr(before, clean)),
        converted=AnswerReport(picture=_picture(_middle(after)), psnr=_psnr(after, clean)),
        clean=_picture(_middle(clean)) if clean is not None else None,
        psnr=_psnr(after, before),
        difference=_picture(_middle((after - before).abs() * _AMPLIFIED)),
        amplified=_AMPLIFIED,
    )


def _clean(judged: _Judged, place: int, like: Tensor) -> Tensor | None:
    """The image that was to be restored, where the data has one of the answer's size."""
    target = judged.source.pair(judged.indices[place])[1]
    if target is None or target.shape != like.shape:
        return None
    return judged.preprocessing.pixels(target)


def _psnr(got: Tensor, wanted: Tensor | None) -> float | None:
    """`-10 log10(mean squared error)` of pixels, clamped to 0 to 1; None where they are equal, or there is nothing."""
    if wanted is None:
        return None
    error = float((got.clamp(0, 1) - wanted.clamp(0, 1)).double().square().mean())
    return -10 * math.log10(error) if error else None


def _name(judged: _Judged, place: int) -> str:
    if judged.source.examples is None:
        raise ValueError("there are no images to name")
    return judged.source.examples.name(judged.indices[place])


def _thumbnail(pixels: Tensor, most: int = _THUMBNAIL) -> Tensor:
    """`(C, H, W)` with at most so many pixels a side."""
    factor = most / max(pixels.shape[-2:])
    if factor >= 1:
        return pixels
    size = [max(1, round(side * factor)) for side in pixels.shape[-2:]]
    return F.interpolate(pixels[None], size, mode="bicubic", antialias=True)[0]


def _middle(pixels: Tensor, factor: float = 1.0) -> Tensor:
    """At most 256 pixels a side of an answer; of its input, `factor` times smaller, the same part."""
    height, width = (max(1, min(side, round(_PART / factor))) for side in pixels.shape[-2:])
    top, left = (pixels.shape[-2] - height) // 2, (pixels.shape[-1] - width) // 2
    return pixels[:, top : top + height, left : left + width]


def _picture(pixels: Tensor) -> PictureReport:
    """Pixels / 255 `(1 or 3, H, W)` as PNG; other values are clamped. Raises `PreprocessingError`."""
    if pixels.shape[0] not in (1, 3):
        raise PreprocessingError(f"a picture has 1 or 3 channels, got {pixels.shape[0]}")
    levels = (pixels.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    made = io.BytesIO()
    Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels).save(made, "PNG", optimize=True)
    return PictureReport(width=levels.shape[1], height=levels.shape[0], png=made.getvalue())
