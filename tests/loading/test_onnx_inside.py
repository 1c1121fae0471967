"""Weights left where they lie in an ONNX file are those that onnx reads; what is laid out oddly is left to onnx."""

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper

from tests.loading.onnx_samples import assert_alike, floats, node, saved
from vfconvert.errors import TruncatedModelError, VfconvertError
from vfconvert.loading import onnx_inside
from vfconvert.loading.onnx_file import read_onnx
from vfconvert.loading.onnx_inside import load_without_weights

CONV = node("Conv", "x w", "y")


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but the smallest weights counts as large."""
    monkeypatch.setattr(onnx_inside, "LARGE", 64)


def filled(path: Path) -> onnx.ModelProto:
    """The model with the weights read back into it."""
    model = load_without_weights(path)
    onnx.load_external_data_for_model(model, str(path.parent))
    for tensor in model.graph.initializer:
        del tensor.external_data[:]
        tensor.ClearField("data_location")
    return model


def outside(model: onnx.ModelProto) -> list[str]:
    return [tensor.name for tensor in model.graph.initializer if tensor.external_data]


def test_the_model_is_the_same_and_large_weights_are_left(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.onnx", [CONV], {"w": floats(8, 4, 3, 3), "b": floats(8)})
    assert outside(load_without_weights(path)) == ["w"]
    assert len(load_without_weights(path).SerializeToString()) < 400 < 8 * 4 * 9 * 4
    # Fields are written in the order of their numbers, so equal bytes are equal models.
    assert filled(path).SerializeToString() == onnx.load(path).SerializeToString()
    assert_alike(path)


def test_another_model_is_not_the_same(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.onnx", [CONV], {"w": floats(8, 4, 3, 3)})
    other = saved(tmp_path / "other.onnx", [CONV], {"w": floats(8, 4, 3, 3)})
    assert filled(path).SerializeToString() != onnx.load(other).SerializeToString()


@pytest.mark.parametrize("padding", range(5))
def test_weights_at_any_place_in_the_file_are_read(tmp_path: Path, padding: int) -> None:
    path = saved(tmp_path / "model.onnx", [CONV], {"w": floats(8, 4, 3, 3)})
    model = onnx.load(path)
    model.producer_name = "p" * padding  # written before the graph
    onnx.save(model, path)
    weight = torch.from_numpy(numpy_helper.to_array(model.graph.initializer[0]).copy())
    found = _weight(path)
    assert torch.equal(found, weight)
    assert found.data_ptr() % 4 == 0
    found.zero_()  # changes nothing in the file
    assert torch.equal(_weight(path), weight)


def _weight(path: Path) -> torch.Tensor:
    (layer,) = (one for one in read_onnx(path).module.modules() if isinstance(one, torch.nn.Conv2d))
    return layer.weight.detach()


def test_a_link_to_the_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    blob = saved(tmp_path / "blobs" / "1f", [CONV], {"w": floats(8, 4, 3, 3)})
    link = tmp_path / "model.onnx"
    link.symlink_to(blob)
    assert outside(load_without_weights(link)) == ["w"]
    assert torch.equal(_weight(link), _weight(blob))


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    weight = floats(8, 4, 3, 3).astype(np.float16)
    nodes = [node("Cast", "w", "v", to=onnx.TensorProto.FLOAT), node("Conv", "x v", "y")]
    path = saved(tmp_path / "model.onnx", nodes, {"w": weight})
    assert outside(load_without_weights(path)) == ["w"]
    assert torch.equal(_weight(path), torch.from_numpy(weight.astype(np.float32)))


def test_numbers_written_one_by_one_stay_inside(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.onnx", [CONV], {})
    model, weight = onnx.load(path), floats(8, 4, 3, 3)
    model.graph.initializer.append(helper.make_tensor("w", onnx.TensorProto.FLOAT, weight.shape, weight.flatten()))
    onnx.save(model, path)
    assert outside(load_without_weights(path)) == []
    assert_alike(path)


def test_a_graph_in_two_parts_is_left_to_onnx(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.onnx", [CONV], {"w": floats(8, 4, 3, 3)})
    whole = onnx.load(path)
    halves = onnx.ModelProto(), onnx.ModelProto()
    halves[0].CopyFrom(whole)
    del halves[0].graph.initializer[:]
    halves[1].graph.initializer.extend(whole.graph.initializer)
    path.write_bytes(b"".join(half.SerializeToString() for half in halves))  # messages that follow are merged
    assert load_without_weights(path).SerializeToString() == whole.SerializeToString()
    assert_alike(path)


def test_weights_shorter_than_their_sizes_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.onnx", [CONV], {"w": floats(8, 4, 3, 3)})
    model = onnx.load(path)
    model.graph.initializer[0].dims[0] = 9
    onnx.save(model, path)
    with pytest.raises(TruncatedModelError, match=r"its weights in 'model.onnx' are cut off"):
        read_onnx(path)


def test_damage_is_what_onnx_says_it_is(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.onnx", [CONV], {"w": floats(8, 4, 3, 3)})
    good, broken = path.read_bytes(), tmp_path / "broken.onnx"
    generator, refused = random.Random(0), 0
    for _ in range(400):
        content = bytearray(good)
        for _ in range(generator.randint(1, 4)):
            content[generator.randrange(len(content))] = generator.randrange(256)
        broken.write_bytes(content[: generator.randrange(1, 2 * len(content))])
        try:
            wanted = onnx.load(broken, load_external_data=False)
        except DecodeError:
            refused += 1
            with pytest.raises(DecodeError, match=r"pars"):
                load_without_weights(broken)
            continue
        try:
            assert filled(broken).SerializeToString() == wanted.SerializeToString()
        except (onnx.checker.ValidationError, DecodeError, ValueError):  # where its bytes are not those of its sizes
            with pytest.raises(VfconvertError, match=r"broken.onnx: "):
                read_onnx(broken)
    assert 50 < refused < 380
