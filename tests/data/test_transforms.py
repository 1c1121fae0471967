import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vfconvert.data.preprocessing import Preprocessing
from vfconvert.data.restoration import RestorationTransform
from vfconvert.data.transforms import TrainTransform
from vfconvert.errors import PreprocessingError

SEGMENTATION_PRESET = "FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1"


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def squares(height: int, width: int) -> Image.Image:
    """Blocks of 8x8 pixels, each of one of 4 greys, the same in all channels."""
    rows, columns = np.indices((height, width)) // 8
    return Image.fromarray(((rows * 5 + columns * 3) % 4).astype(np.uint8))


def views(transform, image, label=None, seeds=range(8)) -> list[Tensor]:
    return [transform(image, label, seed, True)[0] for seed in seeds]


TRANSFORMS = {
    "crop": TrainTransform(preprocessing=Preprocessing(size=(8, 8))),
    "shift": TrainTransform(padding=2, flip=False),
    "flip": TrainTransform(),
    "preset": TrainTransform(preprocessing=Preprocessing(preset="ResNet50_Weights.IMAGENET1K_V2")),
    "restoration": RestorationTransform(scale=2, patch=8),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_a_view_follows_from_its_seed_alone(transform) -> None:
    image, before = picture(16, 20), torch.get_rng_state()
    first = views(transform, image)
    torch.rand(3)
    again = views(pickle.loads(pickle.dumps(transform)), image)
    torch.set_rng_state(before)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({view.numpy().tobytes() for view in first}) > 1  # other seeds give other views
    assert {view.dtype for view in first} == {torch.float32}
    views(transform, image)
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_is_the_preprocessing_whatever_the_seed() -> None:
    preprocessing = Preprocessing(size=(8, 8), mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    transform = TrainTransform(preprocessing=preprocessing, padding=2)
    for seed in (0, 1):
        images, target = transform(picture(16, 20), 7, seed, False)
        assert torch.equal(images, preprocessing(picture(16, 20)))
        assert (target.tolist(), target.dtype) == (7, torch.int64)
    assert transform(picture(16, 20), None, 0, False)[1] is None


def test_training_without_randomness_is_the_preprocessing() -> None:
    preprocessing = Preprocessing(size=(8, 8), mean=(0.1, 0.2, 0.3))
    transform = TrainTransform(preprocessing=preprocessing, flip=False)
    for size in ((8, 8), (6, 7)):  # not larger than the size, so not cut
        assert torch.equal(transform(picture(*size), None, 0, True)[0], preprocessing(picture(*size)))
    assert not torch.equal(transform(picture(9, 8), None, 0, True)[0], preprocessing(picture(9, 8)))


def test_a_random_part_is_normalised_like_an_evaluation() -> None:
    grey = Image.new("RGB", (30, 20), (10, 100, 200))
    for preprocessing in (Preprocessing(size=(8, 8), mean=(0.1, 0.2, 0.3)), TRANSFORMS["preset"].preprocessing):
        transform = TrainTransform(preprocessing=preprocessing, crop_scale=(0.5, 1))
        torch.testing.assert_close(transform(grey, None, 0, True)[0], preprocessing(grey), rtol=0, atol=1e-6)


def test_crop_scale_bounds_the_part_that_is_seen() -> None:
    ramp = Image.fromarray(np.broadcast_to(np.arange(0, 256, 2, dtype=np.uint8), (128, 128)).copy())

    def least(scale: tuple[float, float]) -> float:
        preprocessing = Preprocessing(channels=1, size=(16, 16))
        seen = views(TrainTransform(preprocessing=preprocessing, crop_scale=scale), ramp, seeds=range(30))
        return min(float(view.max() - view.min()) for view in seen)  # the share of the width, as grey

    assert least((0.8, 1.0)) > 0.7
    assert least((0.1, 1.0)) < 0.5


def test_shift_moves_by_at_most_the_padding_and_mirrors_the_border() -> None:
    image = picture(6, 6)
    plain = Preprocessing()(image)
    padded = torch.nn.functional.pad(plain, (2, 2, 2, 2), mode="reflect")
    allowed = {
        padded[:, row : row + 6, column : column + 6].numpy().tobytes() for row in range(5) for column in range(5)
    }
    seen = {view.numpy().tobytes() for view in views(TrainTransform(padding=2, flip=False), image, seeds=range(60))}
    assert seen <= allowed
    assert len(seen) > 10


def test_flip_mirrors_half_of_the_images() -> None:
    image = picture(4, 4)
    plain = Preprocessing()(image)
    mirrored = [not torch.equal(view, plain) for view in views(TrainTransform(), image, seeds=range(60))]
    assert 15 < sum(mirrored) < 45
    assert torch.equal(views(TrainTransform(), image, seeds=[mirrored.index(True)])[0], plain.flip(-1))
    assert all(torch.equal(view, plain) for view in views(TrainTransform(flip=False), image))


@pytest.mark.parametrize("train", [True, False], ids=["train", "evaluate"])
@pytest.mark.parametrize(
    ("size", "padding"), [((36, 48), 0), ((64, 96), 0), (None, 4)], ids=["crop", "enlarge", "shift"]
)
def test_a_mask_goes_where_its_image_goes(size, padding: int, train: bool) -> None:
    mask = squares(48, 64)
    image = mask.point(lambda value: value * 80)
    transform = TrainTransform(preprocessing=Preprocessing(channels=1, size=size), padding=padding)
    for seed in range(6):
        pixels, target = transform(image, mask, seed, train)
        assert (target.shape, target.dtype) == (pixels.shape[1:], torch.int64)
        assert set(target.unique().tolist()) <= {0, 1, 2, 3}
        same = ((pixels[0] * 255 / 80).round() == target).float().mean()
        assert same > 0.75  # all but the edges of the squares, where the image is interpolated
        assert ((pixels[0] * 255 / 80).round() == target.flip(0)).float().mean() < 0.6


def test_a_mask_under_a_preset() -> None:
    transform = TrainTransform(preprocessing=Preprocessing(preset=SEGMENTATION_PRESET))
    pixels, target = transform(squares(48, 64).convert("RGB"), squares(48, 64), 0, False)
    assert pixels.shape == (3, 520, 693)
    assert target.shape == (520, 693)
    pixels, target = transform(picture(600, 600), squares(600, 600), 0, True)
    assert (pixels.shape, target.shape) == ((3, 520, 520), (520, 520))


@pytest.mark.parametrize("mode", ["L", "P", "1", "I"])
def test_a_mask_keeps_its_values(mode: str) -> None:
    mask = Image.new(mode, (4, 4), 0)
    mask.putpixel((0, 0), 1)  # the only pixel of its class
    assert TrainTransform(flip=False)(picture(4, 4), mask, 0, True)[1].tolist() == [[1, 0, 0, 0], *[[0] * 4] * 3]


def test_tensors_of_bytes_are_images_and_of_floats_stay_as_they_are() -> None:
    pixels = torch.arange(48, dtype=torch.uint8).view(3, 4, 4)
    transform = TrainTransform(preprocessing=Preprocessing(std=(0.5, 0.5, 0.5)), flip=False, padding=1)
    assert torch.equal(transform(pixels, None, 0, False)[0], pixels / 255 / 0.5)
    made, target = transform(pixels.double(), 3, 0, True)
    assert torch.equal(made, pixels.float())
    assert target.tolist() == 3


REFUSED = {
    "crop scale": (lambda: TrainTransform(crop_scale=(0.0, 1.0)), r"--crop-scale: got \(0\.0, 1\.0\), expected"),
    "crop without size": (lambda: TrainTransform(crop_scale=(0.5, 1.0)), "give --size or --preset"),
    "padding": (lambda: TrainTransform(padding=-1), "--padding: got -1"),
    "too much padding": (
        lambda: TrainTransform(padding=4)(picture(4, 4), None, 0, True),
        "--padding: got 4, expected less than each side of an image of 4x4",
    ),
    "mask of other size": (
        lambda: TrainTransform()(picture(4, 5), squares(4, 4), 0, True),
        "the mask has 4x4 pixels, its image 4x5",
    ),
    "mask in colour": (lambda: TrainTransform()(picture(4, 4), picture(4, 4), 0, True), "mask has mode RGB, expected"),
    "odd tensor": (
        lambda: TrainTransform()(torch.zeros(2, 4, 4, dtype=torch.uint8), None, 0, True),
        r"\(2, 4, 4\) uint8, expected \(1 or 3, H, W\)",
    ),
    "scale": (lambda: RestorationTransform(scale=0), "--scale: got 0"),
    "patch": (
        lambda: RestorationTransform(scale=3, patch=8),
        "--patch: got 8, expected a multiple of --scale 3",
    ),
    "size": (lambda: RestorationTransform(preprocessing=Preprocessing(size=(4, 4))), "drop --size and --preset"),
    "small image": (
        lambda: RestorationTransform(scale=2, patch=8)(picture(9, 7), None, 0, True),
        "an image has 9x7 pixels, a patch needs 8",
    ),
    "nothing to do": (lambda: RestorationTransform()(picture(4, 4), None, 0, False), "nothing to restore"),
    "odd pair": (
        lambda: RestorationTransform(scale=2)(picture(5, 4), picture(8, 8), 0, False),
        "input has 5x4 pixels and its target 8x8, expected as large, or 2 times",
    ),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_transforms_refuse(make, message: str) -> None:
    with pytest.raises(PreprocessingError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def bicubic(image: Image.Image, width: int, height: int) -> Image.Image:
    return image.resize((width, height), Image.Resampling.BICUBIC)


def test_restoration_degrades_as_pillow_does() -> None:
    image = picture(13, 17)
    clean = image.crop((0, 0, 15, 12))
    small = bicubic(clean, 5, 4)
    for upscaled, expected in ((True, bicubic(small, 15, 12)), (False, small)):
        given, target = RestorationTransform(scale=3, upscaled=upscaled, patch=6)(image, None, 0, False)
        assert torch.equal(target, Preprocessing()(clean))
        assert given.shape == Preprocessing()(expected).shape
        assert float((given - Preprocessing()(expected)).abs().max()) < 2.5 / 255  # two roundings
    assert float((given - Preprocessing()(small.transpose(Image.Transpose.FLIP_LEFT_RIGHT))).abs().max()) > 0.1


@pytest.mark.parametrize(
    ("upscaled", "paired"), [(True, "no"), (False, "no"), (True, "small"), (False, "small"), (True, "large")]
)
def test_restoration_cuts_the_same_part_of_both(upscaled: bool, paired: str) -> None:
    clean = picture(18, 22)
    image, label = {
        "no": (clean, None),
        "small": (bicubic(clean, 11, 9), clean),
        "large": (picture(18, 22, seed=1), clean),
    }[paired]
    transform = RestorationTransform(scale=2, upscaled=upscaled, patch=8, preprocessing=Preprocessing(std=(0.5,) * 3))
    whole, target = transform(image, label, 0, False)
    factor = target.shape[-1] // whole.shape[-1]
    assert factor == (1 if upscaled else 2)
    parts = {
        (part.numpy().tobytes(), goal.numpy().tobytes())
        for top in range(0, 11, 2)
        for left in range(0, 15, 2)
        for part, goal in [
            (
                whole[:, top // factor :, left // factor :][:, : 8 // factor, : 8 // factor],
                target[:, top : top + 8, left : left + 8],
            )
        ]
        for part, goal in [(part, goal), (part.flip(-1), goal.flip(-1))]
    }
    drawn = [transform(image, label, seed, True) for seed in range(40)]
    drawn = {(given.contiguous().numpy().tobytes(), goal.contiguous().numpy().tobytes()) for given, goal in drawn}
    assert drawn <= parts
    assert len(drawn) > 15


def test_transforms_describe_themselves() -> None:
    assert (
        TrainTransform(padding=4).describe().endswith("; in training random shift by up to 4 pixels, random mirroring")
    )
    assert "random 35%-100% of larger images scaled to 8x8" in TRANSFORMS["crop"].describe()
    assert TrainTransform(flip=False).describe().endswith("in training the same")
    described = TRANSFORMS["restoration"].describe()
    assert "input bicubic, smaller by 2, enlarged again; in training random 8x8 pixels, random mirroring" in described
