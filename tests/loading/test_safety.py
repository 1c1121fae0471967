"""Nothing in a file runs code unless it is trusted."""

import contextlib
import os
import pickle
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.loading.helpers import Gadget, assert_same_weights, touch
from vfconvert.errors import UnsupportedModelError, UntrustedModelError, VfconvertError
from vfconvert.loading import load_model
from vfconvert.loading.allowlist import HARMLESS, allowed, may_be_skipped


class OwnNetwork(nn.Sequential):
    """A network that is neither torch's nor torchvision's."""


def hold(network: nn.Module, value: object) -> nn.Module:
    network.held = value
    return network


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def shell(canary: Path) -> Gadget:
    return Gadget(os.system, f"echo > '{canary}'")


PLACES = {
    "root": lambda gadget, network: gadget,
    "beside-weights": lambda gadget, network: {"state_dict": network.state_dict(), "args": gadget},
    "among-weights": lambda gadget, network: {**network.state_dict(), "extra": gadget},
    "beside-module": lambda gadget, network: {"model": network, "args": gadget},
    "in-module": lambda gadget, network: hold(network, gadget),
}
LAYOUTS = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


@LAYOUTS
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_load_model_runs_no_code(
    network: nn.Module, architecture: str, canary: Path, place: Any, legacy: bool, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    torch.save(place(shell(canary), network), path, _use_new_zipfile_serialization=not legacy)
    for arch in (None, architecture):
        with pytest.raises(UntrustedModelError, match=r"'(posix|nt)\.system'.*--trust-pickle"):
            load_model(path, architecture=arch)
    assert not canary.exists()


@LAYOUTS
def test_the_gadget_does_run_where_the_file_is_trusted(
    network: nn.Module, architecture: str, canary: Path, legacy: bool, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    checkpoint = {"state_dict": network.state_dict(), "args": shell(canary)}
    torch.save(checkpoint, path, _use_new_zipfile_serialization=not legacy)
    loaded = load_model(path, architecture=architecture, trust_pickle=True)
    assert loaded.trusted
    assert_same_weights(loaded.model, network)
    assert canary.exists()


@LAYOUTS
@pytest.mark.parametrize("trust", [False, True], ids=["untrusted", "trusted"])
def test_load_model_calls_no_function_of_a_package(
    network: nn.Module, architecture: str, canary: Path, legacy: bool, trust: bool, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    checkpoint = {"state_dict": network.state_dict(), "args": Gadget(touch, str(canary))}
    torch.save(checkpoint, path, _use_new_zipfile_serialization=not legacy)
    loaded = load_model(path, architecture=architecture, trust_pickle=trust)
    assert (loaded.trusted, loaded.skipped) == (False, ("tests.loading.helpers.touch",))  # trust was not needed
    assert_same_weights(loaded.model, network)
    assert not canary.exists()
    checkpoint["args"].call[0](*checkpoint["args"].call[1])
    assert canary.exists()


@pytest.mark.parametrize(
    "function",
    [eval, exec, getattr, __import__, pickle.loads, torch.load, torch.hub.load, os.putenv],
    ids=lambda function: function.__name__,
)
def test_load_model_refuses_a_file_that_is_only_a_call(function: Any, tmp_path: Path) -> None:
    torch.save(Gadget(function, "1"), tmp_path / "model.pt")
    with pytest.raises(UntrustedModelError, match=rf"{function.__name__}'"):
        load_model(tmp_path / "model.pt")


@pytest.mark.parametrize("position", range(5), ids=["magic", "protocol", "machine", "object", "storages"])
def test_load_model_runs_no_code_from_any_pickle_of_the_legacy_layout(
    canary: Path, position: int, tmp_path: Path
) -> None:
    parts = [torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, {}, {}, []]
    pickles = [pickle.dumps(part, protocol=2) for part in parts]
    pickles[position] = pickle.dumps(shell(canary), protocol=2)
    (tmp_path / "model.pt").write_bytes(b"".join(pickles))
    with pytest.raises(VfconvertError, match=r"system'.*--trust-pickle|that torch.save did not write"):
        load_model(tmp_path / "model.pt")
    assert not canary.exists()


@LAYOUTS
def test_load_model_refuses_a_class_of_ones_own(network: nn.Module, legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    own = OwnNetwork(*network)
    torch.save({"model": own}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(
        UntrustedModelError, match=r"'tests.loading.test_safety.OwnNetwork', which is none of torch.*--trust-pickle"
    ):
        load_model(path)
    loaded = load_model(path, trust_pickle=True)
    assert loaded.trusted
    assert type(loaded.model) is OwnNetwork
    assert_same_weights(loaded.model, own)


def test_load_model_refuses_a_stand_in_for_a_network(tmp_path: Path) -> None:
    torch.save({"model": Gadget(touch, "x"), "epoch": 3}, tmp_path / "model.pt")
    with pytest.raises(UntrustedModelError, match=r"'tests.loading.helpers.touch'"):
        load_model(tmp_path / "model.pt")


def test_load_model_refuses_a_module_in_the_legacy_layout(network: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(network, path, _use_new_zipfile_serialization=False)
    with pytest.raises(UntrustedModelError, match=r"Sequential'\) saved whole in torch.save's layout before torch 1.6"):
        load_model(path)
    assert_same_weights(load_model(path, trust_pickle=True).model, network)


def test_load_model_refuses_other_pickle_protocols(network: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(network, path, pickle_protocol=4)
    with pytest.raises(UntrustedModelError, match=r"Unsupported operand 149\).*torch.save's defaults.*--trust-pickle"):
        load_model(path)
    torch.save(OwnNetwork(*network), path, pickle_protocol=4)
    with pytest.raises(UntrustedModelError, match=r"'tests.loading.test_safety.OwnNetwork'"):
        load_model(path)


def test_load_model_refuses_any_other_class_beside_a_module(network: nn.Module, tmp_path: Path) -> None:
    torch.save({"model": network, "args": Gadget(touch, "x")}, tmp_path / "model.pt")
    with pytest.raises(UntrustedModelError, match=r"'tests.loading.helpers.touch'"):
        load_model(tmp_path / "model.pt")


def test_load_model_says_which_class_cannot_be_found(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.save(OwnNetwork(*network), tmp_path / "model.pt")
    monkeypatch.delitem(globals(), "OwnNetwork")
    with pytest.raises(UnsupportedModelError, match=r"cannot be found here \(.*'OwnNetwork'.*PYTHONPATH"):
        load_model(tmp_path / "model.pt", trust_pickle=True)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("whole", [True, False], ids=["module", "state-dict"])
@pytest.mark.parametrize("trust", [False, True], ids=["untrusted", "trusted"])
def test_load_model_refuses_quantized_networks(whole: bool, trust: bool, tmp_path: Path) -> None:
    tensor = torch.quantize_per_tensor(torch.rand(4, 3), 0.1, 0, torch.qint8)
    value = torch.ao.nn.quantized.FloatFunctional() if whole else {"weight": tensor}
    torch.save(value, tmp_path / "model.pt")
    with pytest.raises(UnsupportedModelError, match=r"made for quantization \('torch\..*float32 that it was made from"):
        load_model(tmp_path / "model.pt", trust_pickle=trust)


@contextlib.contextmanager
def safe_globals_are_left_alone() -> Iterator[None]:
    before = set(torch.serialization.get_safe_globals())
    yield
    assert set(torch.serialization.get_safe_globals()) == before, "other safe classes"


def test_load_model_leaves_torchs_list_of_safe_classes_alone(
    network: nn.Module, architecture: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    with torch.serialization.safe_globals([(nn.Conv2d, "torch.nn.modules.conv.Conv2d")]):
        with safe_globals_are_left_alone():
            torch.save(network, path)
            load_model(path)
        torch.save({"state_dict": network.state_dict(), "args": Gadget(touch, "x")}, path)
        with safe_globals_are_left_alone():
            load_model(path, architecture=architecture)
        path.write_bytes(path.read_bytes().replace(b"state_dict", b"state_dicx"))
        with safe_globals_are_left_alone(), pytest.raises(VfconvertError, match="download or save it again"):
            load_model(path, architecture=architecture)


def test_safe_globals_are_left_alone_fails_where_they_are_not() -> None:
    with contextlib.ExitStack() as after, pytest.raises(AssertionError, match="other"), safe_globals_are_left_alone():
        after.enter_context(torch.serialization.safe_globals([nn.Linear]))


def test_load_model_refuses_a_stand_in_beside_a_module_that_the_process_allows(tmp_path: Path) -> None:
    torch.save({"model": nn.Conv2d(3, 4, 3), "args": Gadget(touch, "x")}, tmp_path / "model.pt")
    allowing = torch.serialization.safe_globals([nn.Conv2d])
    with allowing, pytest.raises(UntrustedModelError, match=r"'tests.loading.helpers.touch'"):
        load_model(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "torch.load",
        "torch.hub.load",
        "torch.nn.modules.conv.math",
        "torch.nn.modules.module.torch",
        "torch.nn.modules.module.Module.load_state_dict",
        "torch.nn.modules.module.register_module_forward_hook",
        "torch.nn.modules.conv.no_such_class",
        "torch.nn.modules.no_such_module.Conv2d",
        "torch.nn.modules...os.system",
        "torch.nn.modulesque.Conv2d",
        "torchvision.models.resnet.load_state_dict_from_url",
        "torchvision.models.resnet.resnet18",
        "torchvision.models.resnet.ImageClassification",
        "torchvision.models.resnet.ResNet18_Weights",
        "torchvision.models.feature_extraction.fx",
        "torchvision.io.read_file",
        "functools.reduce",
        "",
    ],
)
def test_allowed_refuses(name: str) -> None:
    assert allowed(name) is None


def test_allowed_follows_the_rule_and_the_table() -> None:
    assert allowed("torch.nn.modules.conv.Conv2d") is nn.Conv2d
    assert (
        allowed("torchvision.models.mobilenet.MobileNetV2") is not None
    )  # named by an older module, still torchvision's
    for name, value in HARMLESS.items():
        assert allowed(name) is value
        assert callable(value)


def test_may_be_skipped_knows_what_no_checkpoint_has() -> None:
    assert may_be_skipped("argparse.Namespace")
    assert may_be_skipped("omegaconf.dictconfig.DictConfig")
    assert may_be_skipped("__main__.Options")
    for name in ("posix.system", "builtins.eval", "subprocess.Popen", "builtins.getattr", "types.FunctionType"):
        assert not may_be_skipped(name)


@pytest.mark.parametrize("layout", ["module", "zip", "legacy"])
def test_load_model_answers_damage_with_its_own_errors(
    network: nn.Module, architecture: str, layout: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    value = network if layout == "module" else {"state_dict": network.state_dict(), "args": Gadget(touch, "x")}
    torch.save(value, path, _use_new_zipfile_serialization=layout != "legacy")
    good, numbers, messages = path.read_bytes(), random.Random(0), []
    for attempt in range(40):
        bad = bytearray(good[: numbers.randrange(len(good))] if attempt % 4 == 0 else good)
        for _ in range(numbers.choice((1, 3, 20)) if len(bad) else 0):
            bad[numbers.randrange(len(bad))] = numbers.randrange(256)
        path.write_bytes(bad)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                load_model(path, architecture=None if layout == "module" else architecture)
            except VfconvertError as error:
                messages.append(str(error))
    assert len(messages) >= 10  # weights of the legacy layout have no checksum: many mutations go unseen
    assert all(message.startswith(f"{path}: ") and "\n" not in message for message in messages)


@pytest.mark.parametrize("name", ['1"), open("canary", "w"), ("', "1'", "1\n", "run()", "a\\"])
def test_names_that_would_be_written_into_code_are_refused(tmp_path: Path, network: nn.Module, name: str) -> None:
    network._modules = {name if key == "1" else key: value for key, value in network._modules.items()}
    torch.save(network, tmp_path / "model.pt")
    with pytest.raises(UntrustedModelError, match="which exporters would write into code; rename it") as caught:
        load_model(tmp_path / "model.pt")
    assert "\n" not in str(caught.value)
    network._modules = {"a-b c:1" if key == name else key: value for key, value in network._modules.items()}
    torch.save(network, tmp_path / "model.pt")
    assert "a-b c:1.weight" in load_model(tmp_path / "model.pt").model.state_dict()
