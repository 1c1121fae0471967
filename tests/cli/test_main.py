import os
import subprocess
import sys
from dataclasses import MISSING, fields
from importlib.metadata import version
from pathlib import Path
from platform import python_version

import pytest

from tests.reporting.samples import DRY, FULL
from tests.reporting.test_gates import FAILED
from vfconvert.cli.convert_options import CROPS, DEFAULTS
from vfconvert.cli.main import main
from vfconvert.combinations import TRAINING_PREFIX
from vfconvert.errors import GateError
from vfconvert.ops.crops import CROP_FAMILIES
from vfconvert.options import ConversionOptions
from vfconvert.reporting.json_report import to_json
from vfconvert.training_options import TrainingOptions

OPTIONS = main.commands["convert"].params


@pytest.fixture
def asked(monkeypatch):
    """What the pipeline was asked for; it does nothing and answers with a report made by hand."""
    seen: list[ConversionOptions] = []

    def convert(options, progress, watcher=None):
        seen.append(options)
        return DRY if options.dry_run else FULL

    monkeypatch.setattr("vfconvert.pipeline.convert", convert)
    return seen


def test_help_shows_the_main_job_and_lists_the_commands(cli_invoke):
    shown = cli_invoke("--help", exit_code=0).stdout
    assert shown.startswith(
        "Usage: vfconvert MODEL --spatial --channel [OPTIONS]\n       vfconvert COMMAND [ARGS]...\n"
    )
    for name in main.commands:
        assert f"\n  {name} " in shown
    for option in OPTIONS:
        assert all(flag in shown for flag in option.opts if flag.startswith("-"))


def test_help_names_every_kind_of_file_that_is_read(cli_invoke):
    shown = " ".join(cli_invoke("--help", exit_code=0).stdout.split())
    assert "Reads MODEL, a file of torch.save, safetensors, torch.export (.pt2) or ONNX, fits" in shown


def test_help_says_something_about_every_option():
    named = [option for option in OPTIONS if option.name != "model"]
    assert len(named) > 25
    assert [option.name for option in named if not (option.help and option.help.split("  [")[0].endswith("."))] == []


@pytest.mark.parametrize("command", main.commands)
def test_every_command_has_help(cli_invoke, command):
    assert f"Usage: vfconvert {command}" in cli_invoke(command, "--help", exit_code=0).stdout


def test_no_argument_shows_help(cli_invoke):
    assert "Usage: vfconvert MODEL" in cli_invoke(exit_code=2).output


def test_version_names_the_packages_that_matter(cli_invoke):
    shown = cli_invoke("--version", exit_code=0).stdout
    packages = ("vfconvert", "torch", "torchvision", "onnx", "onnxruntime")
    assert shown.splitlines() == [*(f"{name} {version(name)}" for name in packages), f"python {python_version()}"]


def heavy_after(statement: str) -> list[str]:
    code = f"import sys\n{statement}\nprint(*[n for n in ('torch', 'numpy', 'onnx', 'rich') if n in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ran.stdout.split()


def test_command_line_loads_no_heavy_package():
    assert heavy_after("import vfconvert.cli.main") == []


def test_meta_a_heavy_package_is_seen():
    assert heavy_after("import rich") == ["rich"]


@pytest.mark.parametrize(
    ("command", "given", "wanted"),
    [("schema", None, "2"), ("schema", "5", "5"), ("batch", None, None)],
    ids=["a container of two processors", "the user says", "batch shares them out"],
)
def test_torch_gets_no_more_threads_than_a_container_has(cli_invoke, monkeypatch, command, given, wanted):
    monkeypatch.setattr("vfconvert.cli.main.processors", lambda: 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setenv("OMP_NUM_THREADS", given or "")
    if given is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    cli_invoke(command, *(["--help"] if command == "batch" else []), exit_code=0)
    assert os.environ.get("OMP_NUM_THREADS") == wanted


def test_there_is_one_option_for_every_field():
    names = {option.name for option in OPTIONS if not option.name.startswith(TRAINING_PREFIX)} - {
        "quiet",
        "verbose",
        "as_json",
        "config",
        "save_config",
    }
    assert names == {field.name for field in fields(ConversionOptions)} - {"command", "training"}
    training = {
        option.name.removeprefix(TRAINING_PREFIX) for option in OPTIONS if option.name.startswith(TRAINING_PREFIX)
    }
    assert training == {field.name for field in fields(TrainingOptions)}


def test_defaults_are_those_of_the_library(cli_invoke, asked):
    cli_invoke("m.pt", "--spatial", exit_code=0)
    assert asked == [ConversionOptions(model=Path("m.pt"), spatial=True, command="vfconvert m.pt --spatial")]
    assert len(DEFAULTS) == sum(field.default is not MISSING for field in fields(ConversionOptions))


def test_crops_are_those_of_the_library():
    assert set(CROPS) == set(CROP_FAMILIES)


def test_every_option_arrives(cli_invoke, asked):
    line = (
        "m.pt --spatial --channel --windows 4 --channel-stride 1/8 --crops lines --no-reconstruct --no-augment "
        "--include layer1.* --include layer2.* --exclude *.conv1 --include-first --data d --size 32x64 --mean 0.5 "
        "--std 0.25 --preset P --input-shape 1,32,64 --calibration-images 7 --arch f.py:make --arch-arg depth=20 "
        "--arch-arg wide=true --trust-pickle -o o.onnx --report r.json --opset 20 "
        "--report r.html --samples 3 --seed 5 --device cuda:1 -v"
    )
    cli_invoke(*line.split(), exit_code=0)
    expected = ConversionOptions(
        model=Path("m.pt"),
        spatial=True,
        channel=True,
        windows=4,
        channel_stride=0.125,
        crops="lines",
        include=("layer1.*", "layer2.*"),
        exclude=("*.conv1",),
        include_first=True,
        data=Path("d"),
        size=(32, 64),
        mean=(0.5,),
        std=(0.25,),
        preset="P",
        input_shape=(1, 32, 64),
        calibration_images=7,
        reconstruct=False,
        augment=False,
        arch="f.py:make",
        arch_args={"depth": 20, "wide": True},
        trust_pickle=True,
        output=Path("o.onnx"),
        reports=(Path("r.json"), Path("r.html")),
        samples=3,
        opset=20,
        seed=5,
        device="cuda:1",
        command="vfconvert "
        + line.replace("layer1.*", "'layer1.*'").replace("layer2.*", "'layer2.*'").replace("*.conv1", "'*.conv1'"),
    )
    assert asked == [expected]


@pytest.mark.parametrize("before", [[], ["convert"]], ids=["bare", "named"])
@pytest.mark.parametrize("line", [["m.pt", "--channel"], ["--channel", "m.pt"]], ids=["model first", "option first"])
def test_both_forms_are_the_same_job(cli_invoke, asked, before, line):
    cli_invoke(*before, *line, exit_code=0)
    assert asked == [ConversionOptions(model=Path("m.pt"), channel=True, command=f"vfconvert {' '.join(line)}")]


def test_job_without_a_method_says_what_to_add(cli_invoke, asked):
    assert "add --spatial, --channel or both" in cli_invoke("m.pt", exit_code=2).stderr
    assert asked == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["m.pt", "--spatial", "-q", "-v"], "-q and -v exclude each other"),
        (["m.pt", "--spatial", "--crops", "circles"], "'circles' is not one of 'squares', 'lines'"),
        (["m.pt", "--spatial", "--arch-arg", "a=1", "--arch-arg", "a=2"], "--arch-arg a is given twice"),
        (["m.pt", "--spatial", "--size", "big"], "got 'big', expected one side like 224"),
        (["m.pt", "--spatial", "--opset", "17", "--dry-run"], "'--opset': 17 is not in the range 18<=x<=23"),
        (["m.pt", "--spatial", "--opset", "99"], "'--opset': 99 is not in the range 18<=x<=23"),
        (["m.pt", "--spatial", "--seed", "9" * 23], "expected a whole number from -9223372036854775808 to"),
        (["m.pt", "--max-drop", "nan"], "got 'nan', expected a finite number"),
        (["m.pt", "--spatial", "--fail-over-drop", "nan"], "got 'nan', expected a finite number"),
        (["m.pt", "--spatial", "--max-latency-ratio", "inf"], "got 'inf', expected a finite number"),
        (["m.pt", "--spatial", "--max-parity-error", "nan"], "got 'nan', expected a finite number"),
        (["m.pt", "--spatial", "--size", "-5"], "got '-5', expected one side like 224, or HxW"),
        (["m.pt", "--spatial", "--input-shape", "3,0,0"], "got '3,0,0', expected three numbers C,H,W"),
        (["m.pt", "--spatial", "--calibration-images", "0"], "0 is not in the range x>=1"),
        (["m.pt", "--spatial", "--spacial"], "No such option"),
        (["--spatial"], "Missing argument 'MODEL'"),
    ],
)
def test_wrong_command_line_is_refused(cli_invoke, asked, arguments, said):
    assert said in cli_invoke(*arguments, exit_code=2).stderr
    assert asked == []


def test_quiet_prints_the_paths_of_all_files_and_nothing_else(cli_invoke, asked):
    result = cli_invoke("m.pt", "--spatial", "-q", exit_code=0)
    assert (result.stdout, result.stderr) == ("models/a.onnx\nmodels/a.pt2\nmodels/a.int8.onnx\n", "")
    assert cli_invoke("m.pt", "--spatial", "--dry-run", "-q", exit_code=0).stdout == ""


@pytest.mark.parametrize("more", [[], ["-q"], ["-v"]], ids=["alone", "quiet", "verbose"])
def test_json_is_all_that_is_printed(cli_invoke, asked, more):
    result = cli_invoke("m.pt", "--spatial", "--json", *more, exit_code=0)
    assert (result.stdout, result.stderr) == (to_json(FULL), "")


def test_json_is_printed_where_a_gate_failed(cli_invoke, monkeypatch):
    monkeypatch.setattr("vfconvert.pipeline.convert", lambda *_: FAILED)
    result = cli_invoke("m.pt", "--spatial", "--json", exit_code=GateError.exit_code)
    assert result.stdout == to_json(FAILED)
    assert result.stderr.startswith("Error: 1 of 2 gate(s) failed: --max-size: ")


def test_verbose_lists_every_layer(cli_invoke, asked):
    assert "everything else" in cli_invoke("m.pt", "--spatial", "-v", exit_code=0).stdout
    assert "everything else" not in cli_invoke("m.pt", "--spatial", exit_code=0).stdout


def test_dry_run_says_so(cli_invoke, asked):
    assert cli_invoke("m.pt", "--spatial", "--dry-run", exit_code=0).stdout.startswith("Dry run: ")


@pytest.mark.parametrize(
    ("environment", "epochs", "speaks"),
    [
        ({"RANK": "abc"}, 0, True),
        ({"RANK": "1"}, 1, True),
        ({"RANK": "1", "WORLD_SIZE": "2"}, 0, True),
        ({"RANK": "0", "WORLD_SIZE": "2"}, 1, True),
        ({"RANK": "1", "WORLD_SIZE": "2"}, 1, False),
    ],
)
def test_the_first_of_the_processes_that_train_speaks(cli_invoke, asked, monkeypatch, environment, epochs, speaks):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = cli_invoke("m.pt", "--spatial", "--data", "d", "--epochs", epochs, "--trust-pickle", exit_code=0)
    assert ("--trust-pickle lets" in result.stderr) is speaks


def test_a_wrong_environment_of_processes_is_refused_where_they_train(cli_invoke, monkeypatch):
    for name, value in {"RANK": "abc", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    line = ("m.pt", "--spatial", "--data", "d", "--epochs", "1")
    assert "RANK=abc, WORLD_SIZE=2, LOCAL_RANK=0: expected three numbers" in cli_invoke(*line, exit_code=34).stderr


def test_trusting_a_pickle_warns_once(cli_invoke, asked):
    result = cli_invoke("m.pt", "--spatial", "--trust-pickle", exit_code=0)
    assert result.stderr.count("--trust-pickle lets the model file run any code") == 1
    assert cli_invoke("m.pt", "--spatial", exit_code=0).stderr == ""
