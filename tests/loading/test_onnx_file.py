"""ONNX files become networks with the names of their layers, or are refused in words; nothing in them runs code."""

import hashlib
import random
import re
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from tests.loading.onnx_samples import assert_alike, floats, node, run, saved
from vfconvert.errors import TruncatedModelError, UnsupportedModelError, UntrustedModelError, VfconvertError
from vfconvert.loading import load_model, model_files
from vfconvert.loading.onnx_file import check_onnx, read_onnx


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU6())
        self.body = nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.head = nn.Linear(6, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.stem(images)
        x = nn.functional.silu(x + self.body(x))
        return self.head(nn.functional.max_pool2d(x, 2).mean((2, 3)))


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_exported_networks_keep_the_names_of_their_layers(tmp_path: Path, dynamo: bool) -> None:
    torch.manual_seed(0)
    path = tmp_path / "model.bin"
    torch.onnx.export(
        Residual().eval(), (torch.randn(1, 4, 8, 8),), path, dynamo=dynamo, input_names=["x"], verbose=False
    )
    network = assert_alike(path)
    names = [name for name, layer in network.named_modules() if type(layer) is nn.Conv2d]
    assert names[1:] == ["body"]
    assert names[0] in (
        "stem.0",
        "stem_stem_0_Conv",
    )  # the older exporter folds the norm, and the weight's name with it
    loaded = load_model(path)
    assert (loaded.format, loaded.trusted) == ("onnx", False)


CONV = node("Conv", "x w", "y")


def test_weights_in_another_file_of_the_folder_are_read(tmp_path: Path) -> None:
    weight = floats(8, 4, 3, 3)
    path = saved(tmp_path / "model.onnx", [CONV], {"w": weight})
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").stat().st_size >= weight.nbytes
    assert_alike(path)
    loaded = load_model(path)
    assert loaded.size_bytes == path.stat().st_size + (tmp_path / "weights.bin").stat().st_size
    both = path.read_bytes() + (tmp_path / "weights.bin").read_bytes()
    assert loaded.sha256 == hashlib.sha256(both).hexdigest()
    assert model_files(path) == (path, tmp_path / "weights.bin")
    (tmp_path / "weights.bin").write_bytes(b"short")
    with pytest.raises(TruncatedModelError, match=r"its weights in 'weights.bin' are cut off"):
        load_model(path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(TruncatedModelError, match=r"its weights in 'weights.bin' are missing"):
        load_model(path)


@pytest.mark.parametrize("location", ["model.onnx", "./model.onnx"])
def test_a_file_that_names_itself_for_its_weights_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = saved(Path("model.onnx"), [CONV], {"w": floats(8, 4, 3, 3)})
    model = onnx.load(path)
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], location)
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    path.write_bytes(model.SerializeToString())
    assert model_files(path) == (path,)


LINK = r"are a symbolic link, which is not followed; copy the files that .* into one folder \(cp -L\)"


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("../secret.bin", "outside its folder; download or export it again"),
        ("/secret.bin", "outside its folder"),
        ("sub/../../secret.bin", "outside its folder"),
        ("link.bin", LINK),  # as the caches of downloads have it
        ("sub/secret.bin", LINK),
        ("near.bin", LINK),
    ],
)
def test_weights_outside_the_folder_and_links_are_refused(tmp_path: Path, location: str, said: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(10**5))
    (folder / "link.bin").symlink_to(Path("../secret.bin"))
    (folder / "near.bin").symlink_to(Path("model.onnx"))
    (folder / "sub").symlink_to(tmp_path)
    path = saved(folder / "model.onnx", [CONV], {"w": floats(8, 4, 3, 3)})
    model = onnx.load(path)
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], location)
    model.graph.initializer[0].ClearField("raw_data")
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UntrustedModelError, match=said):
        load_model(path)


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([node("NonZero", "x", "y")], "operator NonZero is not known here"),
        ([helper.make_node("Run", ["x"], ["y"], domain="evil")], "operator Run of evil is not known here"),
        ([node("Conv", "x x", "y")], "Conv: its weights are computed"),
        ([node("Clip", "x", "z"), node("MaxPool", "z", "y i", kernel_shape=[2, 2])], "with indices"),
    ],
)
def test_what_is_not_read_is_refused_in_words(tmp_path: Path, nodes: list[onnx.NodeProto], said: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"{said}.*save the nn.Module"):
        load_model(saved(tmp_path / "model.onnx", nodes, {}))


ESCAPE = "\x1b]0;owned\x07"


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (helper.make_node(f"Foo{ESCAPE}", ["x"], ["y"]), r"operator Foo\x1b]0;owned\x07 is not known here"),
        (helper.make_node("Run", ["x"], ["y"], domain=ESCAPE), r"operator Run of \x1b]0;owned\x07 is not known here"),
        (helper.make_node(f"QLinear{ESCAPE}", ["x"], ["y"]), r"quantized (operator QLinear\x1b]0;owned\x07)"),
        (helper.make_node("Conv", ["x"], ["y"], name=ESCAPE), r"Conv (\x1b]0;owned\x07): "),
    ],
    ids=["operator", "domain", "quantized", "name"],
)
def test_names_of_the_file_are_printable_in_errors(tmp_path: Path, bad: onnx.NodeProto, said: str) -> None:
    with pytest.raises(UnsupportedModelError, match=re.escape(said)) as caught:
        load_model(saved(tmp_path / "model.onnx", [bad], {"w": floats(8, 4, 3, 3)}))
    assert str(caught.value).isprintable()


def test_names_are_never_code(tmp_path: Path) -> None:
    evil = 'w"), open("canary", "w"), ("'
    nodes = [helper.make_node("Conv", ["x", evil], ["y"], name='n"); import os; ("')]
    network = load_model(saved(tmp_path / "model.onnx", nodes, {evil: floats(8, 4, 3, 3)})).model
    assert [name for name, layer in network.named_modules() if type(layer) is nn.Conv2d] == ["n_import_os"]


def test_damage_is_answered_with_our_own_errors(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.onnx", [CONV, node("Relu", "y", "z")], {"w": floats(8, 4, 3, 3)})
    good, numbers, messages = path.read_bytes(), random.Random(0), []
    for attempt in range(120):
        bad = bytearray(good[: numbers.randrange(1, len(good))] if attempt % 4 == 0 else good)
        for _ in range(numbers.choice((1, 3, 20))):
            bad[numbers.randrange(len(bad))] = numbers.randrange(256)
        path.write_bytes(bad)
        try:
            load_model(path)
        except VfconvertError as error:
            messages.append(str(error))
    assert len(messages) >= 30
    assert all(message.startswith(f"{path}: ") and "\n" not in message for message in messages)


def test_a_network_that_was_misunderstood_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.onnx", [CONV], {"w": floats(8, 4, 3, 3)})
    network, images = read_onnx(path), torch.randn(2, 4, 8, 8)
    check_onnx(path, network, [images], lambda arrays: [run(path, arrays["x"])])
    with pytest.raises(UnsupportedModelError, match=r"does not compute what the file does \(error"):
        check_onnx(path, network, [images], lambda arrays: [run(path, arrays["x"]) * 1.01])
    with pytest.raises(UnsupportedModelError, match="outputs of another shape"):
        check_onnx(path, network, [images], lambda arrays: [run(path, arrays["x"])[:, :4]])
