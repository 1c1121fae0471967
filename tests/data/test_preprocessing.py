import numpy as np
import pytest
import torch
from PIL import Image

from tests.references import assert_close_enough
from vfconvert.data.preprocessing import Preprocessing
from vfconvert.errors import PreprocessingError


def picture(height: int, width: int, channels: int = 3) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels if channels == 3 else pixels[..., 0])


def as_tensor(image: Image.Image) -> torch.Tensor:
    pixels = torch.from_numpy(np.array(image)).float() / 255
    return pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)


def test_preprocessing_by_default_only_scales_to_one() -> None:
    image = picture(5, 7)
    tensor = Preprocessing()(image)
    assert tensor.dtype is torch.float32
    assert torch.equal(tensor, as_tensor(image))


def test_preprocessing_leaves_an_image_of_the_size_as_it_is() -> None:
    image = picture(6, 9)
    assert torch.equal(Preprocessing(size=(6, 9))(image), as_tensor(image))
    assert not torch.equal(Preprocessing(size=(9, 6))(image), as_tensor(image).transpose(1, 2))


def test_preprocessing_subtracts_the_mean_and_divides_by_std() -> None:
    image = picture(4, 4)
    tensor = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))(image)
    mean, std = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1), torch.tensor([0.5, 1.0, 2.0]).view(3, 1, 1)
    assert_close_enough(tensor, (as_tensor(image) - mean) / std)


def test_preprocessing_with_mean_alone_takes_std_of_one() -> None:
    image = picture(4, 4)
    assert_close_enough(Preprocessing(mean=(0.5, 0.5, 0.5))(image), as_tensor(image) - 0.5)


@pytest.mark.parametrize("size", [(4, 4), (8, 4), (3, 10), (40, 20)], ids=str)
def test_preprocessing_covers_the_size_with_the_aspect_kept(size: tuple[int, int]) -> None:
    columns = np.broadcast_to(np.linspace(0, 250, 30, dtype=np.uint8), (20, 30))
    tensor = Preprocessing(channels=1, size=size)(Image.fromarray(np.ascontiguousarray(columns)))
    assert tensor.shape == (1, *size)
    factor = max(size[0] / 20, size[1] / 30)
    slope = float((tensor[0, :, -1] - tensor[0, :, 0]).mean()) / max(size[1] - 1, 1)
    expected = (250 / 255) / 29 / factor  # a ramp of grey keeps its slope per original pixel
    assert slope == pytest.approx(expected, rel=0.15)


def test_preprocessing_cuts_the_centre() -> None:
    pixels = np.zeros((4, 12), dtype=np.uint8)
    pixels[:, 4:8] = 255
    assert torch.equal(Preprocessing(channels=1, size=(4, 4))(Image.fromarray(pixels)), torch.ones(1, 4, 4))


def test_preprocessing_to_one_channel_is_luminance() -> None:
    image = Image.new("RGB", (2, 2), (200, 100, 50))
    expected = (0.299 * 200 + 0.587 * 100 + 0.114 * 50) / 255
    assert Preprocessing(channels=1)(image).flatten().tolist() == pytest.approx([expected] * 4, abs=1 / 255)


def test_preprocessing_of_grey_repeats_it_in_three_channels() -> None:
    image = picture(3, 3, channels=1)
    assert torch.equal(Preprocessing()(image), as_tensor(image).expand(3, -1, -1))


def test_preprocessing_scales_16_bit_greys() -> None:
    image = Image.fromarray(np.full((2, 2), 32_896, dtype=np.uint16))
    assert torch.equal(Preprocessing(channels=1)(image), torch.full((1, 2, 2), 128 / 255))


def test_preprocessing_drops_transparency_without_a_warning() -> None:
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([10, 20, 30])
    palette.info["transparency"] = b"\x00"
    assert (Preprocessing()(palette)[:, 0, 0] * 255).round().tolist() == [10, 20, 30]
    clear = Image.new("RGBA", (2, 2), (10, 20, 30, 0))
    assert (Preprocessing()(clear)[:, 0, 0] * 255).round().tolist() == [10, 20, 30]


def test_preprocessing_with_a_preset_uses_its_transforms() -> None:
    preprocessing = Preprocessing(preset="ResNet50_Weights.IMAGENET1K_V2")
    grey = preprocessing(Image.new("RGB", (300, 260), (255, 255, 255)))
    assert grey.shape == (3, 224, 224)
    expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    assert_close_enough(grey[:, 100, 100], expected)
    assert preprocessing.describe() == "RGB, torchvision preset ResNet50_Weights.IMAGENET1K_V2"


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"mean": (0.5, 0.25, 0.0)},
        {"std": (0.5, 2.0, 1.0)},
        {"mean": (0.5, 0.25, 0.0), "std": (0.5, 2.0, 1.0)},
        {"preset": "ResNet18_Weights.IMAGENET1K_V1"},
    ],
    ids=["nothing", "mean", "std", "both", "preset"],
)
def test_pixels_are_what_was_prepared(values: dict) -> None:
    prepared = Preprocessing(**values)
    image = Image.new("RGB", (256, 256), (10, 100, 250))
    pixels = prepared.pixels(prepared(image))
    assert_close_enough(pixels.mean((1, 2)), torch.tensor([10.0, 100.0, 250.0]) / 255)
    assert pixels.std((1, 2)).max() < 1e-5


def test_preprocessing_describes_every_default() -> None:
    assert Preprocessing().describe() == "RGB, own size, pixels / 255, mean 0, 0, 0, std 1, 1, 1"
    described = Preprocessing(channels=1, size=(8, 6), mean=(0.5,), std=(0.25,)).describe()
    assert described == "luminance, covering, then centre 8x6, pixels / 255, mean 0.5, std 0.25"


REFUSED = {
    "channels": ({"channels": 4}, "1 or 3 channels, got 4"),
    "size": ({"size": (0, 8)}, "--size: got 0x8, expected at least 1x1"),
    "length of mean": ({"mean": (0.5,)}, "--mean: got 1 numbers, expected one per channel: 3"),
    "length of std": ({"channels": 1, "std": (1.0, 1.0, 1.0)}, "--std: got 3 numbers, expected one per channel: 1"),
    "zero std": ({"std": (1.0, 0.0, 1.0)}, "--std: got 1, 0, 1, expected numbers above 0"),
    "nan mean": ({"mean": (float("nan"), 0.0, 0.0)}, "--mean: got nan, 0, 0, expected finite numbers"),
    "misspelt preset": (
        {"preset": "ResNet50_Weight.IMAGENET1K_V2"},
        r"no torchvision weights are called .*the nearest is ResNet50_Weights\.IMAGENET1K_V2",
    ),
    "unknown member": ({"preset": "ResNet50_Weights.IMAGENET1K_V9"}, r"the nearest is ResNet50_Weights\.IMAGENET1K_V"),
    "model for preset": ({"preset": "resnet50"}, "the nearest is ResN"),
    "video preset": ({"preset": "R3D_18_Weights.KINETICS400_V1"}, "do not take single images"),
    "preset and size": (
        {"preset": "ResNet50_Weights.IMAGENET1K_V2", "size": (8, 8)},
        "already decides size, mean and std; drop --size or the preset",
    ),
    "preset of one channel": (
        {"preset": "ResNet50_Weights.IMAGENET1K_V2", "channels": 1},
        "makes 3 channels, the network takes 1",
    ),
}


@pytest.mark.parametrize(("values", "message"), REFUSED.values(), ids=REFUSED)
def test_preprocessing_refuses(values: dict, message: str) -> None:
    with pytest.raises(PreprocessingError, match=message) as caught:
        Preprocessing(**values)
    assert "\n" not in str(caught.value)
