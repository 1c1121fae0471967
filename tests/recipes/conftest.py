"""A small network and a ResNet-18, converted, with the files they are stored in."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.recipes.helpers import RESNET, WISH, Small, converted, write
from vfconvert.loading.architectures import build_architecture
from vfconvert.planning import Wish


@pytest.fixture(scope="module")
def original() -> Small:
    torch.manual_seed(0)
    return Small().eval()


@pytest.fixture(scope="module")
def student(original: Small) -> nn.Module:
    torch.manual_seed(1)
    return converted(original, WISH, 16)


@pytest.fixture(scope="module")
def stored(student: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(student, tmp_path_factory.mktemp("small") / "model.safetensors")


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(2)
    return converted(build_architecture(RESNET, {"num_classes": 7}), Wish(spatial=True, channel=True), 64)


@pytest.fixture(scope="module")
def stored_resnet(resnet: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("resnet") / "model.safetensors"
    arguments = {"num_classes": 7, "weights": "DEFAULT"}
    return write(resnet, path, architecture=RESNET, architecture_arguments=arguments, input_shape=(3, 64, 64))
