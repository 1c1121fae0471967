"""A few images of a conversion with what both networks make of them, for renderers that show pictures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureReport:
    """Pixels to show, perhaps the middle of a larger image: `width` and `height` as shown; `png` is not in the JSON."""

    width: int
    height: int
    png: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerReport:
    """What one network says: a class (counted from 0, with its name if known), or a picture.

    `probability` is the share of 1 that the network gives that class. `psnr` compares the whole picture with the clean
    image, where there is one: dB with the peak 1 = pixel 255, None where they are equal. Of a map of classes
    `right_pixels` is the share (0 to 1) of the labelled pixels whose class it is, None where there are none.
    """

    class_index: int | None = None
    class_name: str | None = None
    probability: float | None = None
    picture: PictureReport | None = None
    psnr: float | None = None
    right_pixels: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleReport:
    """One of the images that judge. `chosen`: "drawn" at random, or "differs" as one of those that differ most.

    `given` is what both networks were given; `label` the class that the data names, `clean` the image that was to be
    restored. Of pictures `psnr` compares the converted network's whole answer with the original's (dB, peak 1, None
    where equal), and `difference` shows their absolute difference, `amplified` so many times. Maps of classes are shown
    as colours over the image, `clean` from the labels; `same_pixels` is the share (0 to 1) that have the same class in
    both, and `difference` shows the others.
    """

    name: str
    chosen: str
    given: PictureReport
    original: AnswerReport
    converted: AnswerReport
    label: str | None = None
    clean: PictureReport | None = None
    psnr: float | None = None
    difference: PictureReport | None = None
    amplified: float | None = None
    same_pixels: float | None = None

    @property
    def same(self) -> bool:
        """Whether both networks name the same class (of every pixel); of pictures, whether all bits are equal."""
        if self.same_pixels is not None:
            return self.same_pixels == 1
        if self.original.class_index is None:
            return self.psnr is None
        return self.original.class_index == self.converted.class_index
