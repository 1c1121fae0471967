"""Packages that may be missing: each is imported where it is needed, and what is said names an extra of setup.cfg."""

import ast
import configparser
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, read
from tests.raising import sources_below
from tests.reporting.inspect_samples import INSPECTED
from vfconvert.benching.runners import import_runtime
from vfconvert.data.digits import load_digits_images
from vfconvert.errors import MissingPackageError
from vfconvert.loading.architectures import build_architecture
from vfconvert.reporting.frontier_plot import draw_frontier
from vfconvert.training.watching import Board

ROOT = Path(__file__).parent.parent.parent
SOURCES = sources_below(ROOT / "vfconvert")
MODULES = {"pillow": "PIL", "scikit-learn": "sklearn"}  # of packages that are imported by another name
DEVELOPERS = {"real", "docs"}  # extras that tests and the site of the documentation alone use
NEEDS = {
    "demo": ("sklearn", lambda path: load_digits_images()),
    "timm": ("timm", lambda path: build_architecture("timm:resnet18", {})),
    "openvino": ("openvino", lambda path: import_runtime("openvino")),
    "tensorboard": ("torch.utils.tensorboard", lambda path: Board(path)),
    "plot": ("matplotlib", lambda path: draw_frontier(INSPECTED, path / "f.svg")),
}


def config() -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None)
    found.read(ROOT / "setup.cfg")
    return found


def modules_in(requirements: str) -> set[str]:
    names = [re.split(r"[<>=!\[ ;]", line)[0] for line in requirements.split("\n") if line and not line.startswith("%")]
    return {MODULES.get(name, name) for name in names}


def extras() -> dict[str, set[str]]:
    """What each extra for users installs."""
    found = config()["options.extras_require"]
    return {extra: modules_in(found[extra]) for extra in found if extra != "test"}


def unguarded(sources: Mapping[str, str], optional: set[str]) -> list[str]:
    """Imports of optional packages other than within `try` with an `except ImportError`, by module and line."""
    wrong = []
    for module, source in sources.items():
        tree = ast.parse(source)
        guarded: set[int] = set()
        for node in ast.walk(tree):
            typed = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            caught = isinstance(node, ast.Try) and any(
                "ImportError" in ast.unparse(h.type) for h in node.handlers if h.type
            )
            if typed or caught:
                guarded.update(id(inner) for part in node.body for inner in ast.walk(part))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if {name.partition(".")[0] for name in names} & optional and id(node) not in guarded:
                wrong.append(f"{module}:{node.lineno}")
    return wrong


def test_every_extra_is_tried_without_its_package():
    assert set(NEEDS) == set(extras()) - DEVELOPERS


@pytest.mark.parametrize("extra", NEEDS)
def test_missing_package_names_the_extra_that_installs_it(extra, tmp_path, monkeypatch):
    module, use = NEEDS[extra]
    for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackageError, match=rf"pip install '?vfconvert\[{extra}\]"):
        use(tmp_path)
    assert module.rpartition(".")[2] in extras()[extra]
    assert list(tmp_path.iterdir()) == []


def test_extras_that_are_named_anywhere_exist():
    named = {extra for source in SOURCES.values() for extra in re.findall(r"vfconvert\[(\w+)\]", source)}
    assert set(extras()) - DEVELOPERS <= named <= set(extras()) | {"test"}
    for page in PAGES:
        told = set(re.findall(r"vfconvert\[(\w+)\]", read(page)))
        assert told <= set(extras()) | {"test"}, page.name
    assert set(extras()) - DEVELOPERS <= set(re.findall(r"vfconvert\[(\w+)\]", read(ROOT / "README.md")))


def test_optional_packages_are_imported_where_their_absence_is_told():
    installed = modules_in(config()["options"]["install_requires"])
    optional = set().union(*extras().values()) - installed
    assert {"timm", "openvino", "matplotlib", "sklearn"} <= optional
    assert unguarded(SOURCES, optional) == []


def test_meta_an_import_without_a_guard_is_seen():
    source = "try:\n    import b.c\nexcept ImportError:\n    f()\nfrom b import d\nif TYPE_CHECKING:\n    import b"
    assert unguarded({"m": source}, {"b"}) == ["m:5"]
    assert unguarded({"m": "try:\n    import b\nexcept ValueError:\n    pass"}, {"b"}) == ["m:2"]


def test_meta_requirements_are_read():
    assert modules_in("\npillow>=10\nonnx[x]==2\n%(plot)s\nrich") == {"PIL", "onnx", "rich"}
