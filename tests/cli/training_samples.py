"""What tests of `--epochs` share: a model with its images, and options that leave out what takes time."""

from pathlib import Path

import torch

from tests.cli.conftest import network, write_images

FAST = ("--no-reconstruct", "--no-measure", "--batch", "16", "-q")


def filled(folder: Path) -> Path:
    """The folder with a model that is sure of its three classes, and 120 labelled images."""
    model = network()
    with torch.no_grad():
        model[8].weight.mul_(30)
    torch.save(model, folder / "model.pt")
    for seed, name in enumerate("abc"):
        write_images(folder / "images" / name, 40, seed)
    return folder
