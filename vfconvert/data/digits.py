"""The embedded demo: 1,797 real handwritten digits that ship inside scikit-learn, and a small network for them.

The digits are the test part of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998):
8x8 pixels of 17 grey levels, stored here with 0-16 spread over 0-255.
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from vfconvert.data.tensors import split_images
from vfconvert.errors import MissingPackageError
from vfconvert.progress import Progress, no_progress

DIGITS_MEAN, DIGITS_STD = 0.305, 0.376  # of all pixels / 255, what `--mean` and `--std` want
_TEST_IMAGES = 360
_BATCH = 64


def load_digits_images() -> tuple[Tensor, Tensor]:
    """Images `(1797, 8, 8)` uint8, 0 the paper and 255 the ink, and labels `(1797,)` int64.

    Raises `MissingPackageError` where scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingPackageError(
            "the demo's digits ship inside scikit-learn, which is not installed; pip install vfconvert[demo]"
        ) from error
    digits = load_digits()
    levels = torch.from_numpy(digits.images)  # float64, 0 to 16
    return (levels * (255 / 16)).round().to(torch.uint8), torch.from_numpy(digits.target).to(torch.int64)


def write_folder(root: Path, *, seed: int = 0) -> None:
    """Write the digits as `root/{train,test}/<digit>/NNNN.png`, 1,437 and 360 of them, every digit in proportion.

    `NNNN` is the number of the image in the set. The same seed writes the same folder.
    """
    images, labels = load_digits_images()
    split = split_images(len(images), calibration=len(images), held_out=_TEST_IMAGES, labels=labels.tolist(), seed=seed)
    for part, indices in (("train", split.calibration), ("test", split.held_out)):
        for digit in range(10):
            (root / part / str(digit)).mkdir(parents=True, exist_ok=True)
        for index in indices:
            Image.fromarray(images[index].numpy()).save(root / part / str(int(labels[index])) / f"{index:04}.png")


def digits_network() -> nn.Sequential:
    """An untrained network of torch's own classes: `(B, 1, 8, 8) -> (B, 10)` logits."""

    def convolution(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]

    return nn.Sequential(
        *convolution(1, 16),
        *convolution(16, 32),
        *convolution(32, 32, stride=2),
        *convolution(32, 64),
        *convolution(64, 64),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def train_network(
    images: Tensor, labels: Tensor, *, seed: int = 0, epochs: int = 8, progress: Progress = no_progress
) -> nn.Sequential:
    """Train the demo's network from scratch and return it in eval mode.

    `images` `(N, 1, 8, 8)` float32 as preprocessed, `labels` `(N,)` int64. Every batch is shifted by up to one pixel
    each way. Draws from generators of its own: the global random state is left as it was.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = digits_network()
    steps = epochs * -(-len(images) // _BATCH)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=1e-2, total_steps=steps)
    paper = float(images.min())  # the border that a shift uncovers
    done = 0
    network.train()
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for start in range(0, len(images), _BATCH):
            batch = order[start : start + _BATCH]
            down, right = torch.randint(3, (2,), generator=generator).tolist()
            shifted = F.pad(images[batch], (1, 1, 1, 1), value=paper)[..., down : down + 8, right : right + 8]
            loss = F.cross_entropy(network(shifted), labels[batch])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            done += 1
            progress("train the demo network", done, steps)
    return network.eval()
