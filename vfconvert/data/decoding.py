"""Bytes into pixels: the one place where a damaged image of a training set becomes an error that names it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from vfconvert.errors import UnreadableImageError, first_line

# Formats of pixels that Pillow decodes in this process, whatever a file is called; its EPS reader runs Ghostscript.
# The common ones first: for the others Pillow imports all of its readers. "JPEG" opens MPO too.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "JPEG2000", "TGA")


def decode_image(source: Path | BinaryIO, name: str) -> Image.Image:
    """The whole image, decoded, in the mode it was stored in; `name` is what errors call it.

    Raises `UnreadableImageError` where it cannot be decoded, is of none of the `FORMATS`, and where it has so many
    pixels (Pillow's limit, about 90 million) that it looks like a trap.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata is no matter, and worker processes would print it
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source, formats=FORMATS) as image:
                image.load()
    except Exception as error:  # decoders raise whatever a damaged file provokes: OSError, SyntaxError, struct's
        raise UnreadableImageError(
            f"cannot decode the image {name}: {first_line(error)}; replace or remove it"
        ) from error
    return image
