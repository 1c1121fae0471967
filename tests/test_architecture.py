"""Imports run one way, `import vfconvert` stays light, and files stay short."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "vfconvert"

# A module imports only what stands before it, or what is in its own package.
ORDER = (
    *("errors", "shortages", "temporary", "portions", "user_code", "version", "progress", "silence", "container"),
    *("specs", "readers", "overrides", "targets", "gates", "formats", "training_options", "options", "combinations"),
    *("keyword_values", "keywords"),
    *("files", "json_fields", "threads"),
    *("ops", "nn"),
    *("loading", "data", "tasks"),
    *("measuring", "analysis", "eligibility", "wishes", "planning", "rewriting", "linears"),
    *("plain", "ledger", "plan_entries", "plan_file"),
    *("fitting", "lowering", "recipes", "training", "batching"),
    *(
        "class_maps",
        "exporting",
        "verification",
        "budget",
        "quantizing",
        "benching",
        "reporting",
        "gating",
        "several",
        "inputs",
        "samples",
        "judging",
        "plan_choice",
        "network_plan",
        "plan_search",
        "plan_trials",
        "preparation",
        "plan_budget",
        "delivery",
        "outputs",
        "inspection",
        "tuning_identity",
        "tuning_start",
        "tuning_course",
        "tuning",
        "run",
        "pipeline",
        "api",
        "batch_summary",
        "config",
        "cli",
        "many",
        "__main__",
    ),
)
MOST_LINES = 300
HEAVY = (
    *("onnx", "onnxruntime", "onnxscript", "rich", "click", "torchvision", "scipy", "PIL", "timm", "sklearn"),
    *("matplotlib", "torchmetrics", "yaml", "psutil"),
)


def imports(source: str) -> set[str]:
    """The modules of this package that a file imports anywhere, dotted, `vfconvert` itself left off."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            found.add("vfconvert.<relative>")
        elif isinstance(node, ast.ImportFrom) and node.module == "vfconvert":
            found.update(f"vfconvert.{name.name}" for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name.removeprefix("vfconvert.") for name in found if name.startswith("vfconvert.")}


def wrong_imports(module: str, source: str) -> list[str]:
    """What a module of this dotted name (`ops.fit`) may not import, and anything unknown."""
    home = module.split(".")[0]
    if home not in ORDER:
        return [f"{module} is in no layer"]
    wrong = []
    for imported in sorted(imports(source)):
        top = imported.split(".")[0]
        if top not in ORDER:
            wrong.append(f"{module} imports {imported}, which is in no layer")
        elif top != home and ORDER.index(top) > ORDER.index(home):
            wrong.append(f"{module} imports {imported}, which stands after it")
    return wrong


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a ring; empty where there are none."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for imported in sorted(graph.get(module, ())):
            if found := visit(imported, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(graph) if (found := visit(module, []))), [])


def modules() -> dict[str, str]:
    """Dotted name -> source of every module of the package but its `__init__`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            found[name] = path.read_text(encoding="utf-8")
    return found


def heavy_after(statement: str) -> list[str]:
    """The heavy packages that a fresh interpreter has loaded after a statement."""
    code = f"import sys\n{statement}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return ran.stdout.split()


def test_imports_run_one_way():
    wrong = [line for name, source in modules().items() for line in wrong_imports(name, source)]
    assert wrong == []


def test_no_modules_import_each_other():
    known = modules()
    graph = {name: {found for found in imports(source) if found in known} for name, source in known.items()}
    assert len(graph) > 10
    assert cycle(graph) == []


@pytest.mark.parametrize(
    ("module", "source", "said"),
    [
        ("ops.fit", "from vfconvert.nn import VersatileConv2d", "ops.fit imports nn, which stands after it"),
        ("specs", "def f():\n    import vfconvert.ops.crops", "specs imports ops.crops, which stands after it"),
        ("analysis.graph", "from vfconvert import cli", "analysis.graph imports cli, which stands after it"),
        ("ops.fit", "from . import crops", "ops.fit imports <relative>, which is in no layer"),
        ("nn.versatile", "import vfconvert.utils", "nn.versatile imports utils, which is in no layer"),
        ("utils", "", "utils is in no layer"),
    ],
)
def test_meta_a_wrong_import_is_seen(module, source, said):
    assert wrong_imports(module, source) == [said]


def test_meta_a_right_import_passes():
    assert wrong_imports("nn.versatile", "import torch\nfrom vfconvert.ops.expand import expand") == []


def test_meta_a_ring_is_seen():
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_import_stays_light():
    assert heavy_after("import vfconvert") == []


def test_a_conversion_from_python_takes_nothing_of_the_terminal_or_of_onnx():
    statement = """
import torch, vfconvert
network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3))
vfconvert.convert(network, spatial=True, data=torch.rand(8, 3, 8, 8), measure=False, reconstruct=False)
"""
    assert heavy_after(statement) == ["torchvision", "scipy", "PIL"]


def test_an_inspection_from_python_takes_nothing_of_the_terminal_or_of_onnx():
    statement = """
import torch, vfconvert
network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3))
vfconvert.inspect(network, data=torch.rand(8, 3, 8, 8)).plan({"params": 0.9}).to_json()
"""
    assert heavy_after(statement) == ["torchvision", "scipy", "PIL"]


def test_no_name_takes_the_terminal_but_that_of_a_batch():
    assert {name for name in ("click", "rich") if name in heavy_after("import vfconvert; vfconvert.bench")} == set()
    assert "click" in heavy_after("import vfconvert; vfconvert.batch")


def test_meta_a_heavy_import_is_seen():
    assert heavy_after("import vfconvert, rich") == ["rich"]


def test_files_stay_short():
    paths = [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    assert len(paths) > 10
    long = {str(path.relative_to(ROOT)): lines for path in paths if (lines := _lines(path)) > MOST_LINES}
    assert long == {}


def test_meta_a_long_file_is_seen(tmp_path):
    (tmp_path / "long.py").write_text("\n" * (MOST_LINES + 1))
    assert _lines(tmp_path / "long.py") > MOST_LINES


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())
