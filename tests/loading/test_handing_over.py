"""Weights are given to an architecture without a copy, and yet as a copy would leave them."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from tests.loading.helpers import assert_same_weights, write_architecture
from vfconvert.loading import load_model

TIED = """
from torch import nn

def network():
    made = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    made[1].weight = made[0].weight
    return made
"""
LARGE = """
from torch import nn

def network():
    return nn.Sequential(nn.Conv2d(64, 512, 3), nn.BatchNorm2d(512))
"""


def large() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(64, 512, 3), nn.BatchNorm2d(512))


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    state = {name: torch.rand(3, 3, 1, 1) if "weight" in name else torch.rand(3) for name in ("0.weight", "0.bias")}
    state |= {"1.weight": state["0.weight"].clone(), "1.bias": torch.rand(3)}
    torch.save(state, tmp_path / "model.pt")
    model = load_model(tmp_path / "model.pt", architecture=write_architecture(tmp_path / "a.py", TIED)).model
    assert model[0].weight is model[1].weight
    assert_same_weights(model, state)


def test_weights_that_share_memory_in_the_file_do_not_in_the_network(tmp_path: Path) -> None:
    body = TIED.replace("    made[1].weight = made[0].weight\n", "")
    shared = torch.rand(3, 3, 1, 1)
    state = {"0.weight": shared, "0.bias": torch.rand(3), "1.weight": shared, "1.bias": torch.rand(3)}
    torch.save(state, tmp_path / "model.pt")
    model = load_model(tmp_path / "model.pt", architecture=write_architecture(tmp_path / "a.py", body)).model
    with torch.no_grad():
        model[0].weight.zero_()
    assert torch.equal(model[1].weight, shared)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_weights_become_the_architectures_type_and_layout(legacy: bool, tmp_path: Path) -> None:
    network = large().half().to(memory_format=torch.channels_last)
    path = tmp_path / "model.pt"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    model = load_model(path, architecture=write_architecture(tmp_path / "a.py", LARGE)).model
    assert_same_weights(model, network.float())
    assert model[0].weight.is_contiguous()
    assert all(isinstance(value, nn.Parameter) and value.requires_grad for value in model.parameters())


def test_changing_the_network_leaves_the_file_alone(tmp_path: Path) -> None:
    network, path = large(), tmp_path / "model.pt"
    for value in (network, network.state_dict()):
        torch.save(value, path)
        before = path.read_bytes()
        loaded = load_model(path, architecture=write_architecture(tmp_path / "a.py", LARGE))
        with torch.no_grad():
            loaded.model[0].weight.zero_()
        assert path.read_bytes() == before


def test_a_network_of_timm_saved_whole_is_opened(tmp_path: Path) -> None:
    network = timm.create_model("resnet10t", num_classes=3).eval()
    torch.save(network, tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt")
    assert (loaded.trusted, type(loaded.model)) == (False, type(network))
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded.model(images), network(images))
