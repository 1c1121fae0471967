"""What the demo does before and after the conversion: digits as image files, a trained network, the test at the end."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor

from vfconvert.data.digits import DIGITS_MEAN, DIGITS_STD, train_network, write_folder
from vfconvert.data.folder import list_images
from vfconvert.data.preprocessing import Preprocessing
from vfconvert.data.tensors import load_images
from vfconvert.errors import UnwritableOutputError
from vfconvert.files import atomic_path
from vfconvert.loading import load_model
from vfconvert.progress import Progress
from vfconvert.temporary import temporary_folder
from vfconvert.verification import predict, top1_accuracy

_BATCH = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoResult:
    """Shares of the test images that are told right: by the model file in PyTorch, by the ONNX file in its runtime."""

    images: int
    accuracy_before: float
    accuracy_after: float


def prepare_images(directory: Path, seed: int) -> bool:
    """Have `train` and `test` in the directory, of 10 folders of images each; False where both were there already.

    They appear complete or not at all. Raises `UnwritableOutputError` where they cannot be written, and where only
    one of the two is there: images of another split would end up in both.
    """
    there = [part for part in ("train", "test") if (directory / part).exists()]
    if len(there) == 2:
        return False
    if there:
        raise UnwritableOutputError(
            f"{directory} holds '{there[0]}' without the other of 'train' and 'test'; "
            "remove it, or choose another folder with --directory"
        )
    with _explained(directory):
        directory.mkdir(parents=True, exist_ok=True)
        with temporary_folder(directory) as temporary:
            write_folder(temporary, seed=seed)
            for part in ("train", "test"):
                os.replace(temporary / part, directory / part)
    return True


def train_model(directory: Path, target: Path, seed: int, progress: Progress) -> None:
    """Train the small network on `directory/train` and save it whole, as `torch.save` does, to `target`."""
    images, labels = _read(directory / "train")
    network = train_network(images, labels, seed=seed, progress=progress)
    content = io.BytesIO()  # torch tells of a full disk in no way that can be told apart
    torch.save(network, content)
    with atomic_path(target) as temporary:
        temporary.write_bytes(content.getbuffer())


def judge(directory: Path, model: Path, converted: Path) -> DemoResult:
    """Read `directory/test` once, and put it through the model file and through the ONNX file in ONNX Runtime."""
    images, labels = _read(directory / "test")
    session = onnxruntime.InferenceSession(str(converted), providers=["CPUExecutionProvider"])
    batches = [session.run(None, {"input": batch.numpy()})[0] for batch in torch.split(images, _BATCH)]
    logits = torch.cat([torch.from_numpy(batch) for batch in batches])
    return DemoResult(
        images=len(images),
        accuracy_before=top1_accuracy(predict(load_model(model).model, images, _BATCH), labels),
        accuracy_after=top1_accuracy(logits, labels),
    )


def _read(folder: Path) -> tuple[Tensor, Tensor]:
    """Images `(N, 1, 8, 8)` as the command's `--mean` and `--std` make them, and labels `(N,)`."""
    found = list_images(folder)
    preprocessing = Preprocessing(channels=1, mean=(DIGITS_MEAN,), std=(DIGITS_STD,))
    return load_images(found.paths, preprocessing), torch.tensor(found.labels)


@contextmanager
def _explained(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise UnwritableOutputError(f"cannot write {directory}: {reason}; choose another with --directory") from error
