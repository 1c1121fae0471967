"""What --arch can name."""

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from tests.loading.helpers import write_architecture
from vfconvert.errors import ArchitectureError, MissingPackageError, UnsupportedModelError
from vfconvert.loading import load_model
from vfconvert.loading.architectures import build_architecture


def test_build_architecture_knows_torchvision() -> None:
    assert type(build_architecture("torchvision:squeezenet1_1", {"num_classes": 3})) is models.SqueezeNet


def test_build_architecture_downloads_no_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **_: Any) -> None:
        raise AssertionError(f"a download was tried: {arguments}")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    built = build_architecture("torchvision:lraspp_mobilenet_v3_large", {})
    assert type(built) is models.segmentation.LRASPP


def test_build_architecture_knows_timm() -> None:
    timm = pytest.importorskip("timm")
    built = build_architecture("timm:test_resnet", {"num_classes": 3})
    assert type(built) is type(timm.create_model("test_resnet", num_classes=3))
    assert built.get_classifier().out_features == 3


def test_build_architecture_without_timm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingPackageError, match=r"run: pip install vfconvert\[timm\]"):
        build_architecture("timm:resnet18", {})


def test_build_architecture_imports_packages() -> None:
    built = build_architecture("torchvision.models:squeezenet1_0", {"num_classes": 4})
    assert type(built) is models.SqueezeNet


def test_build_architecture_loads_files_and_what_lies_beside_them(tmp_path: Path) -> None:
    (tmp_path / "blocks_beside_it.py").write_text("from torch import nn\nBlock = nn.Conv2d\n")
    (tmp_path / "late_beside_it.py").write_text("SIZE = 3\n")
    body = (
        "from __future__ import annotations\nimport dataclasses\nfrom blocks_beside_it import Block\n"
        "@dataclasses.dataclass\nclass Options:\n    width: int = 5\n"
        "def network():\n    from late_beside_it import SIZE\n    return Block(3, Options().width, SIZE)\n"
    )
    path, modules = list(sys.path), set(sys.modules)
    built = build_architecture(write_architecture(tmp_path / "json.py", body), {})
    assert isinstance(built, nn.Conv2d)
    assert built.out_channels == 5
    assert sys.path == path
    new = set(sys.modules) - modules
    assert {name for name in new if not name.startswith("vfconvert_architecture_")} == {
        "blocks_beside_it",
        "late_beside_it",
    }
    assert not hasattr(sys.modules["json"], "network")
    for name in new:
        del sys.modules[name]


def test_build_architecture_tells_files_of_one_name_apart(tmp_path: Path) -> None:
    for width in (2, 3):
        (tmp_path / str(width)).mkdir()
        body = f"from torch import nn\ndef network():\n    return nn.Conv2d(3, {width}, 3)\n"
        built = build_architecture(write_architecture(tmp_path / str(width) / "model.py", body), {})
        assert isinstance(built, nn.Conv2d)
        assert built.out_channels == width


def test_build_architecture_gives_the_random_numbers_back_and_is_quiet(tmp_path: Path) -> None:
    body = (
        "import warnings\nfrom torch import nn\n"
        "def network():\n    warnings.warn('loud')\n    return nn.Conv2d(3, 4, 3)\n"
    )
    architecture = write_architecture(tmp_path / "model.py", body)
    before = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_architecture(architecture, {})
    assert torch.equal(torch.get_rng_state(), before)


BROKEN = {
    "raises": ("def network():\n    raise RuntimeError('no\\nGPU')\n", r"raised RuntimeError \(no\)"),
    "exits": ("import sys\ndef network():\n    sys.exit(3)\n", r"raised SystemExit \(3\)"),
    "wants-arguments": ("def network(depth):\n    pass\n", r"with no arguments raised TypeError .*'depth'"),
    "returns-a-dict": ("def network():\n    return {}\n", "returned a dict, expected an nn.Module"),
    "returns-nothing": ("def network():\n    pass\n", "returned a NoneType, expected an nn.Module"),
    "is-a-module": ("from torch import nn\nnetwork = nn.ReLU()\n", "is a ReLU, expected a function or class"),
    "is-a-number": ("network = 3\n", "is a int, expected a function or class"),
    "does-not-import": ("import no_such_package\n", r"raised ModuleNotFoundError \(No module named 'no_such_package'"),
    "is-no-python": ("def network(:\n", "raised SyntaxError"),
    "is-a-script": ("import sys\nsys.exit(2)\n", r"raised SystemExit \(2\)"),
    "is-misspelt": ("def netwrok():\n    pass\n", "has no 'network'; did you mean netwrok"),
}


@pytest.mark.parametrize(("body", "message"), BROKEN.values(), ids=BROKEN)
def test_build_architecture_refuses_a_factory_that(body: str, message: str, tmp_path: Path) -> None:
    path, modules = list(sys.path), set(sys.modules)
    with pytest.raises(ArchitectureError, match=message) as caught:
        build_architecture(write_architecture(tmp_path / "model.py", body), {})
    assert "\n" not in str(caught.value)
    assert sys.path == path
    for name in set(sys.modules) - modules:
        assert name.startswith("vfconvert_architecture_")


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("resnet18", r"^--arch resnet18: did you mean torchvision:resnet18\? expected torchvision:NAME, timm:NAME, "),
        ("res", "^--arch res: expected torchvision:NAME, timm:NAME, package.module:factory or path/to/file.py:factory"),
        ("torchvision:", "expected torchvision:NAME"),
        (":resnet18", "expected torchvision:NAME"),
        ("torchvision:resnt18", "torchvision has no 'resnt18'; did you mean resnet18"),
        ("torchvision:zzzz", "torchvision has no 'zzzz'; check the name"),
        ("no_such_package.models:resnet18", "No module named 'no_such_package'; install it"),
        ("torchvision.models:resnt18", "did you mean resnet18"),
        ("missing/model.py:network", "model.py:network: no such file"),
        ("..relative:network", "importing ..relative raised TypeError"),
    ],
)
def test_build_architecture_refuses(architecture: str, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        build_architecture(architecture, {})


def test_build_architecture_refuses_an_unknown_timm_name() -> None:
    pytest.importorskip("timm")
    with pytest.raises(ArchitectureError, match=r"timm has no 'resnt18'; did you mean .*resnet18"):
        build_architecture("timm:resnt18", {})


def test_build_architecture_refuses_unknown_arguments() -> None:
    with pytest.raises(ArchitectureError, match=r"building it with clases=3 raised TypeError .*'clases'"):
        build_architecture("torchvision:squeezenet1_1", {"clases": 3})


def test_load_model_refuses_an_architecture_that_is_scripted(network: nn.Module, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    body = "import torch\nfrom torch import nn\ndef network():\n    return torch.jit.script(nn.Conv2d(3, 4, 3))\n"
    with pytest.raises(UnsupportedModelError, match="is a ScriptModule"):
        load_model(tmp_path / "weights.pt", architecture=write_architecture(tmp_path / "model.py", body))


def test_build_architecture_lets_an_interrupt_through(tmp_path: Path) -> None:
    body = "def network():\n    raise KeyboardInterrupt\n"
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        build_architecture(write_architecture(tmp_path / "model.py", body), {})
