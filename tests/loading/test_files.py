"""Files that hold no model, or half of one, or one of another kind."""

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn

from tests.loading.helpers import zipped
from vfconvert.errors import (
    EmptyModelError,
    NotAModelError,
    TruncatedModelError,
    UnsupportedModelError,
    VfconvertError,
)
from vfconvert.loading import load_model


def image(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, kind)
    return buffer.getvalue()


def array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Dear reader,\nthis is no model.\n", "is a text file, expected a file of torch.save"),
        (image("PNG"), "is a PNG image"),
        (image("JPEG"), "is a JPEG image"),
        (array(), "is a NumPy array"),
        (zipped({"a/b.txt": b"hello"}), "a zip archive with no data.pkl in it"),
        (zipped({}), "is no model file that is known here"),
        (pickle.dumps({"a": 1}), "is a pickle that torch.save did not write"),
        (bytes(range(128, 256)), "is no model file that is known here"),
    ],
    ids=["text", "png", "jpeg", "numpy", "zip", "empty-zip", "pickle", "noise"],
)
def test_load_model_refuses_other_files(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(NotAModelError, match=message):
        load_model(tmp_path / "model.pt", trust_pickle=True)


def test_load_model_refuses_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "model.pt").touch()
    with pytest.raises(EmptyModelError, match=r"model.pt: the file is empty \(0 bytes\)"):
        load_model(tmp_path / "model.pt")


def test_load_model_refuses_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotAModelError, match=r"missing.pt: no such file"):
        load_model(tmp_path / "missing.pt")
    with pytest.raises(NotAModelError, match="is a folder"):
        load_model(tmp_path)
    with pytest.raises(NotAModelError, match="is a device or pipe"):
        load_model(Path(os.devnull))
    with pytest.raises(NotAModelError, match=r"no such file|cannot be read"):
        load_model(Path("nul\0character"))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.3, 0.5, 0.8, 0.95, 0.999])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_load_model_refuses_a_file_that_was_cut(network: nn.Module, kind: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pt")
    if kind == "safetensors":
        safetensors.torch.save_file(network.state_dict(), path)
    else:
        torch.save(network.state_dict(), path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: max(int(share * len(content)), 2)])
    with pytest.raises(TruncatedModelError, match="download or save it again"):
        load_model(path, architecture="torchvision:resnet18")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_load_model_refuses_every_cut_of_the_last_bytes(network: nn.Module, legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    content = path.read_bytes()
    for cut in (1, 2, 4, 7, 16, 21, 22, 23):
        path.write_bytes(content[:-cut])
        with pytest.raises(TruncatedModelError, match="download or save it again"):
            load_model(path, architecture="torchvision:resnet18")


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning")
def test_load_model_refuses_torchscript(network: nn.Module, tmp_path: Path) -> None:
    torch.jit.trace(network.eval(), torch.rand(1, 3, 8, 8)).save(str(tmp_path / "model.pt"))
    with pytest.raises(UnsupportedModelError, match=r"is a TorchScript archive.*save the nn.Module"):
        load_model(tmp_path / "model.pt", trust_pickle=True)


def test_every_refusal_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"state_dict": {"a\nb": torch.zeros(2, 2)}}, path)
    with pytest.raises(VfconvertError, match="holds only weights") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
