"""Archives of torch.export become networks of the same outputs and names; nothing in them runs code."""

import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.loading.helpers import Gadget, touch, zipped
from vfconvert.errors import TruncatedModelError, UnsupportedModelError, UntrustedModelError, VfconvertError
from vfconvert.loading import load_model


class Block(nn.Module):
    """Every kind of call that becomes a layer, and some that must not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(True)
        )
        self.same = nn.Conv2d(8, 8, (1, 5), padding="same", dilation=2)
        self.grouped = nn.Conv2d(8, 8, 3, padding=(0, 1), groups=2)
        self.shared = nn.Conv2d(8, 8, 1)
        self.free = nn.Parameter(torch.randn(4, 8, 3, 3))
        self.plain = nn.BatchNorm2d(4, affine=False)
        self.vector = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> dict[str, Any]:
        x = self.stem(images)
        y = F.hardsigmoid(x) * x + self.same(x)
        y = F.dropout(self.shared(self.shared(y)), 0.5, self.training)
        z = self.grouped(y)
        added = z + z.relu_()  # overwrites what the sum reads as well
        pooled = self.plain(F.conv2d(added, self.free)).mean((2, 3)).view(images.shape[0], 4)
        return {"scores": self.head(self.vector(pooled)), "rest": (z, [pooled])}


def exported(network: nn.Module, path: Path, *, open_batch: bool = False, shape: tuple[int, ...] = (3, 12, 12)) -> Path:
    sizes = ({0: torch.export.Dim("images", min=1, max=64)},) if open_batch else None
    with torch.no_grad():
        program = torch.export.export(network.eval(), (torch.randn(2, *shape),), dynamic_shapes=sizes)
    torch.export.save(program, path)
    return path


def changed(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The archive with its records, by the name below the top folder, changed."""
    with zipfile.ZipFile(path) as archive:
        records = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(records)
    path.write_bytes(zipped({f"top/{name}": content for name, content in records.items()}))
    return path


def program_with(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, bytes]], None]:
    def apply(records: dict[str, bytes]) -> None:
        program = json.loads(records["models/model.json"])
        change(program)
        records["models/model.json"] = json.dumps(program).encode()

    return apply


def first_call(program: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = program["graph_module"]["graph"]["nodes"][0]
    return found


@pytest.mark.parametrize("open_batch", [False, True])
def test_an_exported_network_computes_what_it_did_for_any_number_of_images(tmp_path: Path, open_batch: bool) -> None:
    torch.manual_seed(0)
    network = Block().eval()
    for norm in (network.stem[1], network.plain, network.vector):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    loaded = load_model(exported(network, tmp_path / "model.bin", open_batch=open_batch))
    assert (loaded.format, loaded.trusted) == ("exported", False)
    for count in (2, 5):
        images = torch.randn(count, 3, 12, 12)
        with torch.no_grad():
            got, wanted = loaded.model(images), network(images)
        assert torch.equal(got["scores"], wanted["scores"])
        assert torch.equal(got["rest"][0], wanted["rest"][0])
        assert torch.equal(got["rest"][1][0], wanted["rest"][1][0])


def test_layers_have_the_names_of_their_weights(tmp_path: Path) -> None:
    loaded = load_model(exported(Block(), tmp_path / "model.pt2")).model
    layers = {name: type(layer) for name, layer in loaded.named_modules() if type(layer) not in (nn.Module,)}
    assert layers.pop("") is type(loaded)
    assert layers == {
        **dict.fromkeys(("stem.0", "same", "grouped", "shared", "shared_layer", "free_layer"), nn.Conv2d),
        **{"stem.1": nn.BatchNorm2d, "plain": nn.BatchNorm2d, "head": nn.Linear},
    }
    assert loaded.get_submodule("shared").weight is loaded.get_submodule("shared_layer").weight
    grouped, same = loaded.get_submodule("grouped"), loaded.get_submodule("same")
    assert (grouped.groups, grouped.padding, grouped.in_channels) == (2, (0, 1), 8)
    assert (same.padding, same.dilation, same.kernel_size) == ("same", (2, 2), (1, 5))


def test_the_older_layout_is_read(tmp_path: Path, network: nn.Module) -> None:
    path, images = exported(network, tmp_path / "model.pt2", shape=(3, 8, 8)), torch.randn(3, 3, 8, 8)
    with zipfile.ZipFile(path) as archive:
        program = next(archive.read(name) for name in archive.namelist() if name.endswith("models/model.json"))
    buffers = {"serialized_state_dict.pt": network.state_dict(), "serialized_constants.pt": {}}
    records = {"version": b"8.2", "serialized_exported_program.json": program}
    for name, value in buffers.items():
        buffer = io.BytesIO()
        torch.save(dict(value), buffer)
        records[name] = buffer.getvalue()
    path.write_bytes(zipped(records))
    assert torch.equal(load_model(path).model(images), network(images))


def _call(target: str) -> Callable[[dict[str, Any]], None]:
    return lambda program: first_call(program).update(target=target)


def _rename(program: dict[str, Any]) -> None:
    spec = next(s["parameter"] for s in program["graph_module"]["signature"]["input_specs"] if "parameter" in s)
    spec["parameter_name"] = 'x"), open("canary", "w"), ("'


def _huge(program: dict[str, Any]) -> None:
    first_call(program)["inputs"].append({"name": "padding", "arg": {"as_ints": [2**63 - 1, 1]}})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_call("torch.serialization.os.system"), "calls 'torch.serialization.os.system', which is no operator"),
        (_call("torch.ops.aten.__class__.default"), "no operator of torch"),
        (_call("torch.ops.custom.run.default"), "no operator of torch"),
        (_call("builtins.eval"), "calls 'builtins.eval', which is no operator"),
        (_call("torch.ops.aten.from_file.default"), "none of those that networks are read with"),
        (_call("torch.ops.aten.set_.source_Tensor"), "none of those that networks are read with"),
        (_call("torch.ops.aten._embedding_bag.default"), "none of those that networks are read with"),
        (_call("torch.ops.aten.adaptive_max_pool2d_backward.default"), "none of those that networks are read with"),
        (_call("torch.ops.aten.lstm.data"), "none of those that networks are read with"),
        (_call("torch.ops.torchvision.roi_align.default"), "none of those that networks are read with"),
        (_call("torch.ops.torchvision._roi_align_backward.default"), "none of those that networks are read with"),
        (_huge, "is given 9223372036854775807 among its sizes"),
        (_call("torch.ops.aten.searchsorted.Tensor"), "takes a text"),
        (_rename, "has a weight of the name"),
    ],
)
def test_calls_that_are_no_operators_are_refused(tmp_path: Path, network: nn.Module, change: Any, said: str) -> None:
    path = changed(exported(network, tmp_path / "model.pt2", shape=(3, 8, 8)), program_with(change))
    with pytest.raises(UntrustedModelError, match=said):
        load_model(path)


def test_what_else_could_run_is_not_read(tmp_path: Path, network: nn.Module) -> None:
    """Guards, which torch compiles, expressions, which it evaluates, and example inputs, which it unpickles."""
    canary, run = tmp_path / "canary", "__import__('pathlib').Path({!r}).touch()"
    buffer = io.BytesIO()
    torch.save(Gadget(touch, str(canary)), buffer)

    def arm(records: dict[str, bytes]) -> None:
        program = json.loads(records["models/model.json"])
        program["guards_code"] = [run.format(str(canary))]
        program["range_constraints"] = {run.format(str(canary)): {"min_val": 1, "max_val": 4}}
        first_call(program)["metadata"] = {"source_fn_stack": f"x,{run.format(str(canary))}"}
        records["models/model.json"] = json.dumps(program).encode()
        records["data/sample_inputs/model.pt"] = buffer.getvalue()

    path = changed(exported(network, tmp_path / "model.pt2", shape=(3, 8, 8)), arm)
    images = torch.randn(3, 3, 8, 8)
    assert torch.equal(load_model(path).model(images), network(images))
    assert not canary.exists()


@pytest.mark.parametrize("value", ["gadget", "text"])
def test_pickled_weights_are_read_as_tensors_or_not_at_all(tmp_path: Path, network: nn.Module, value: str) -> None:
    canary, buffer = tmp_path / "canary", io.BytesIO()
    torch.save(Gadget(touch, str(canary)) if value == "gadget" else "text", buffer)

    def arm(records: dict[str, bytes]) -> None:
        config = json.loads(records["data/weights/model_weights_config.json"])
        entry = next(iter(config["config"].values()))
        entry["use_pickle"] = True
        records["data/weights/model_weights_config.json"] = json.dumps(config).encode()
        records[f"data/weights/{entry['path_name']}"] = buffer.getvalue()

    path = changed(exported(network, tmp_path / "model.pt2", shape=(3, 8, 8)), arm)
    with pytest.raises(UntrustedModelError, match="cannot be read safely" if value == "gadget" else "is no tensor"):
        load_model(path)
    assert not canary.exists()


def test_a_bomb_is_not_unpacked(tmp_path: Path, network: nn.Module) -> None:
    path = exported(network, tmp_path / "model.pt2", shape=(3, 8, 8))
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in records.items():
            archive.writestr(name, bytes(10**8) if name.endswith("weight_0") else content)
    assert path.stat().st_size < 10**6
    with pytest.raises(UntrustedModelError, match="is compressed, which torch never does"):
        load_model(path)


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, input: Tensor, input_1: Tensor) -> Tensor:
        product: Tensor = self.conv(input) * input_1
        return product


def test_inputs_are_not_mixed_up_by_their_names(tmp_path: Path) -> None:
    images, network = (torch.randn(2, 3, 4, 4), torch.randn(2, 1, 4, 4)), Named()
    torch.export.save(torch.export.export(network, images), tmp_path / "model.pt2")
    assert torch.allclose(load_model(tmp_path / "model.pt2").model(*images), network(*images))


class WithBranch(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.cond(images.mean() > 0, lambda x: x + 1, lambda x: x - 1, (images,))


def test_graphs_within_graphs_are_refused_in_words(tmp_path: Path) -> None:
    path = exported(nn.Sequential(nn.Conv2d(3, 4, 1), WithBranch()), tmp_path / "model.pt2")
    with pytest.raises(UnsupportedModelError, match=r"calls 'torch.ops.higher_order.cond', a graph within the graph"):
        load_model(path)


def test_several_programs_are_refused(tmp_path: Path, network: nn.Module) -> None:
    path = changed(
        exported(network, tmp_path / "model.pt2", shape=(3, 8, 8)),
        lambda records: records.update({"models/other.json": records["models/model.json"]}),
    )
    with pytest.raises(UnsupportedModelError, match=r"archive of 2 programs, expected one"):
        load_model(path)


def test_damage_is_answered_with_our_own_errors(tmp_path: Path, network: nn.Module) -> None:
    path = exported(network, tmp_path / "model.pt2", shape=(3, 8, 8))
    with zipfile.ZipFile(path) as archive:
        good = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    numbers, messages = random.Random(0), []
    for _ in range(120):
        records = dict(good)
        name = numbers.choice(["models/model.json", "data/weights/model_weights_config.json"])
        bad = bytearray(records[name])
        for _ in range(numbers.choice((1, 3, 20))):
            bad[numbers.randrange(len(bad))] = numbers.randrange(32, 127)
        records[name] = bytes(bad)
        path.write_bytes(zipped({f"top/{name}": content for name, content in records.items()}))
        try:
            load_model(path)
        except VfconvertError as error:
            messages.append(str(error))
    assert len(messages) >= 40
    assert all(message.startswith(f"{path}: ") and "\n" not in message for message in messages)


def test_a_weight_beyond_its_bytes_is_damage(tmp_path: Path, network: nn.Module) -> None:
    def grow(records: dict[str, bytes]) -> None:
        config = json.loads(records["data/weights/model_weights_config.json"])
        next(iter(config["config"].values()))["tensor_meta"]["sizes"][0]["as_int"] = 10**6
        records["data/weights/model_weights_config.json"] = json.dumps(config).encode()

    path = changed(exported(network, tmp_path / "model.pt2", shape=(3, 8, 8)), grow)
    with pytest.raises(TruncatedModelError, match=r"cut off or damaged .*export it again"):
        load_model(path)
