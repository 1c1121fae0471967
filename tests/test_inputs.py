"""Which images choose and which judge: the two halves stay apart whatever of them cannot be decoded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from vfconvert.errors import NoImagesError
from vfconvert.inputs import Images, Source, images_of, source_of
from vfconvert.options import ConversionOptions
from vfconvert.progress import no_progress
from vfconvert.training_options import TrainingOptions


def folder_of_shades(folder: Path, count: int) -> Path:
    """Images of one colour, each another."""
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (8, 8), (number, number, number)).save(folder / f"{number:03}.png")
    return folder


def read(folder: Path, damaged: list[int]) -> tuple[Source, ConversionOptions, Images]:
    options = ConversionOptions(
        model=Path("m.pt"), data=folder, training=TrainingOptions(epochs=1, most_unreadable=0.5)
    )
    model = nn.Conv2d(3, 4, 3)
    source = source_of(options, model)
    held_out = source.split(options, 1).held_out
    assert source.examples is not None
    for place in damaged:
        (folder / source.examples.name(held_out[place])).write_bytes(b"no image")
    return source, options, images_of(source, options, model, no_progress)


def shades(images: torch.Tensor) -> set[int]:
    return {round(255 * float(image.mean())) for image in images}


@pytest.mark.parametrize("damaged", [[], [0, 1, 2, 3], [15, 16, 17, 18, 19], [0, 9, 10, 19]])
def test_images_that_choose_never_judge(tmp_path: Path, damaged: list[int]) -> None:
    source, options, images = read(folder_of_shades(tmp_path / "images", 100), damaged)
    split = source.split(options, 1)
    chosen, at = images.half("--epochs"), set(damaged)
    choosing = {index for place, index in enumerate(split.held_out) if place < 10 and place not in at}
    judging = {index for place, index in enumerate(split.held_out) if place >= 10 and place not in at}
    assert set(split.choosing) >= choosing
    assert not set(split.choosing) & judging
    assert shades(images.judging[:chosen]) == choosing
    assert shades(images.judging[chosen:]) == judging


def test_a_half_of_which_nothing_can_be_decoded_is_an_error(tmp_path: Path) -> None:
    _, _, images = read(folder_of_shades(tmp_path / "images", 20), [2, 3])
    with pytest.raises(
        NoImagesError,
        match=r"--epochs chooses on half of the images held out and judges on the other: got 2 and 0",
    ):
        images.half("--epochs")


def drawn(folder: Path, calibration: int | None, *, untraced_macs: int = 0) -> Images:
    options = ConversionOptions(model=Path("m.pt"), data=folder, calibration_images=calibration)
    model = nn.Conv2d(3, 4, 3)
    return images_of(source_of(options, model), options, model, no_progress, untraced_macs)


def test_images_to_fit_on_take_so_much_memory_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of_shades(tmp_path / "images", 50)
    assert (len(drawn(folder, None).calibration), drawn(folder, None).notes) == (40, ())
    monkeypatch.setattr("vfconvert.inputs._CALIBRATION_BYTES", 20 * 4 * 3 * 8 * 8 + 1)
    bounded = drawn(folder, None)
    assert len(bounded.calibration) == bounded.report.calibration == 20
    assert bounded.notes == (
        "1,024 images of 3x8x8 take 0.000732 GiB of memory: 20 images of 40 were used to fit on; "
        "--calibration-images N takes more",
    )
    for count in (30, 1024):
        asked = drawn(folder, count)
        assert (len(asked.calibration), asked.notes) == (min(count, 40), ())


def test_images_to_fit_on_are_fewer_where_an_untraced_network_is_large(tmp_path: Path) -> None:
    folder = folder_of_shades(tmp_path / "images", 50)
    assert len(drawn(folder, None, untraced_macs=10**9).calibration) == 40
    bounded = drawn(folder, None, untraced_macs=10**12)
    assert len(bounded.calibration) == 20
    assert bounded.notes == (
        "the network cannot be traced, so that it is run many times, of 1e+03 GMACs an image: 20 images of 40 were "
        "used to fit on; --calibration-images N takes more",
    )
    assert len(drawn(folder, None, untraced_macs=10**15).calibration) == 16  # a fit needs some
    assert len(drawn(folder, 30, untraced_macs=10**15).calibration) == 30
