"""`--config` and `--save-config`: what arrives, who wins, what is refused; what is saved does the same again."""

import shlex
from dataclasses import replace
from pathlib import Path

import click
import pytest

from tests.cli.recipe_samples import EVERY, REFUSED_BESIDE
from tests.cli.test_main import asked as asked_fixture
from vfconvert.cli.main import main
from vfconvert.cli.recipe import WITHOUT_A_KEY, keys_of
from vfconvert.errors import ConfigError
from vfconvert.gates import Saving
from vfconvert.options import ConversionOptions
from vfconvert.overrides import Override
from vfconvert.targets import Target
from vfconvert.training_options import TrainingOptions

asked = asked_fixture
CONVERT = main.commands["convert"]


def test_every_option_has_its_key():
    options = {parameter.name for parameter in CONVERT.params}
    keys = keys_of(CONVERT)
    assert {parameter.name for parameter in keys.values()} == options - set(WITHOUT_A_KEY)
    assert set(EVERY) | {"model"} == set(keys)
    for key, parameter in keys.items():
        assert isinstance(parameter, click.Argument) or f"--{key}" in parameter.opts


def test_forms_arrive(cli_invoke, asked, recipe):
    cli_invoke("--config", recipe(f"model: m.pt\nspatial: true\nforms: {EVERY['forms']}"), exit_code=0)
    cli_invoke("--config", recipe("model: m.pt\nspatial: true\nforms: plain"), "--forms", "fastest", exit_code=0)
    assert [options.forms for options in asked] == ["plain", "fastest"]


def test_every_key_arrives(cli_invoke, asked, recipe):
    without = {"plan", "max-drop", "refine", "windows", "channel-stride", "target", "damage-cache", "resume"}
    without.add("finish")
    without |= set(REFUSED_BESIDE)
    without.add("forms")  # none but the default beside the gates and int8
    lines = [f"{key}: {value}" for key, value in EVERY.items() if key not in without]
    cli_invoke("--config", recipe("\n".join(["model: m.pt", *lines])), exit_code=0)
    (got,) = asked
    expected = ConversionOptions(
        model=Path("m.pt"),
        spatial=True,
        channel=True,
        crops="lines",
        linear=True,
        include=("a.*", "b.*"),
        exclude=("c.*",),
        include_first=True,
        layers=(
            Override(glob="d.*", kind="keep"),
            Override(glob="e.*", kind="both", windows=2, stride=0.25),
        ),
        data=Path("images"),
        target_data=Path("clean"),
        size=(32, 64),
        mean=(0.5, 0.25, 0.001),
        std=(0.5, 0.5, 0.5),
        preset="P",
        input_shape=((3, 32, 64), (1, 32, 64)),
        calibration_images=7,
        reconstruct=False,
        augment=False,
        arch="torchvision:resnet18",
        arch_args={"num_classes": 10, "norm": "none"},
        output=Path("o.onnx"),
        reports=(Path("r.json"),),
        samples=5,
        save_plan=Path("s.json"),
        formats=("onnx", "safetensors"),
        dynamic_size=True,
        opset=20,
        measure=False,
        threads=2,
        precision="fp16",
        int8=True,
        seed=5,
        device="cuda:1",
        dry_run=True,
        fail_under_saving=(Saving(cost="params", share=0.4), Saving(cost="size", share=0.05)),
        fail_over_drop=0.5,
        max_latency_ratio=0.8,
        max_parity_error=1e-5,
        max_size=5_000_000,
        keep_on_fail=True,
        junit=Path("g.xml"),
        training=TrainingOptions(
            epochs=3,
            batch=16,
            optimizer="sgd",
            rate=0.01,
            momentum=0.8,
            weight_decay=0,
            warm_up=0.1,
            clip=1,
            temperature=2,
            feature_weight=0.5,
            label_weight=0.25,
            task="restoration",
            scale=2,
            patch=48,
            views=16,
            flip=False,
            workers=2,
            most_unreadable=0.5,
            precision="bf16",
            channels_last=True,
            compile=True,
            norms="frozen",
            ema=0.9,
            patience=2,
            checkpoints=Path("k"),
            minutes=1,
            tensorboard=Path("t"),
        ),
        command=got.command,
    )
    assert got == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "target: {params: 50%, size: 5MB}\nmax-drop: 1.5\ndamage-cache: d.json\n",
            {
                "targets": (Target(cost="params", share=0.5), Target(cost="size", amount=5e6)),
                "max_drop": 1.5,
                "damage_cache": Path("d.json"),
            },
        ),
        (
            "target: macs=1.2G\nrefine: 3\n",
            {"targets": (Target(cost="macs", amount=1.2e9),), "refine": 3},
        ),
        ("channel: true\nwindows: 4\nchannel-stride: 1/8\n", {"channel": True, "windows": 4, "channel_stride": 0.125}),
        ("plan: p.json\nspatial: false\nwindows: 2\n", {"plan": Path("p.json")}),
        ("max-drop: 0\n", {"max_drop": 0.0}),
        ("spatial: true\ncosts: c.json\n", {"spatial": True, "costs": Path("c.json")}),
        (
            "spatial: true\ndata: d\nepochs: 1\npadding: 4\ncrop-scale: [0.5, 1]\n",
            {
                "spatial": True,
                "data": Path("d"),
                "training": TrainingOptions(epochs=1, padding=4, crop_scale=(0.5, 1.0)),
            },
        ),
        ("spatial: true\nwindows: 2\nchannel-stride: 1/4\n", {"spatial": True}),
    ],
    ids=["targets", "refine", "windows", "plan", "a limit of 0", "costs", "views", "defaults say nothing"],
)
def test_method_arrives(cli_invoke, asked, recipe, text, expected):
    cli_invoke("m.pt", "--config", recipe(text), exit_code=0)
    (got,) = asked
    assert got == replace(ConversionOptions(model=Path("m.pt"), command=got.command), **expected)


def test_command_line_wins(cli_invoke, asked, recipe):
    text = (
        "model: a.pt\nspatial: true\nchannel: true\nseed: 3\ninclude: [a, b]\nmeasure: false\nint8: true\nwindows: 3\n"
    )
    line = ("b.pt", "--no-spatial", "--seed", 0, "--include", "c", "--measure", "--no-int8")
    cli_invoke(*line, "--config", recipe(text), exit_code=0)
    (got,) = asked
    expected = ConversionOptions(model=Path("b.pt"), channel=True, windows=3, include=("c",), command=got.command)
    assert got == expected


def test_report_names_a_command_that_does_without_the_recipe(cli_invoke, asked, recipe):
    text = "model: a b.pt\nspatial: true\nchannel: false\nreconstruct: false\nlayer: {'x.*': keep}\nmean: [1, 2, 3]\n"
    cli_invoke("--config", recipe(text), "--seed", 4, "--no-channel", exit_code=0)
    command = "vfconvert 'a b.pt' --spatial --no-channel --no-reconstruct --layer 'x.*=keep' --mean 1,2,3 --seed 4"
    assert asked[0].command == command
    cli_invoke(*shlex.split(command)[1:], exit_code=0)
    assert asked[1] == asked[0]


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("[3, 32, 64]", (3, 32, 64)),
        ("3,32,64", (3, 32, 64)),
        ("['3,32,64']", (3, 32, 64)),
        ("['3,32,64', '1,32,64']", ((3, 32, 64), (1, 32, 64))),
    ],
)
def test_shapes_of_one_input_and_of_several(cli_invoke, asked, recipe, text, shapes):
    cli_invoke("m.pt", "--spatial", "--config", recipe(f"input-shape: {text}\n"), exit_code=0)
    assert asked[0].input_shape == shapes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("spatal: true", 'line 1: spatal: got an unknown key; did you mean "spatial"?'),
        ("channel_stride: 4", 'did you mean "channel-stride"?'),
        ("config: other.yaml", "line 1: config: got an unknown key"),
        ("spatial: yes", 'spatial: got "yes", expected true or false'),
        ("spatial: [true]", "spatial: got a list, expected true or false"),
        ("windows: many", "windows: 'many' is not a valid integer"),
        ("windows: [1, 2]", "windows: got a list, expected one value"),
        ("include: []", "include: got a list, expected one value or a list"),
        ("include: {a: b}", "include: got a mapping, expected one value or a list"),
        ("crops: circles", "crops: 'circles' is not one of 'squares', 'lines'"),
        ("target: params=lots", "target: got 'params=lots': expected one of params, macs"),
        ("max-latency-ratio: 0", "max-latency-ratio: 0.0 is not in the range x>0"),
        ("max-drop: .nan", "max-drop: '.nan' is not a valid float"),
        ("max-drop: nan", "max-drop: got 'nan', expected a finite number"),
        ("fail-over-drop: inf", "fail-over-drop: got 'inf', expected a finite number"),
        ("seed: 99999999999999999999999", "seed: got '99999999999999999999999', expected a whole number from"),
        ("opset: 99", "opset: 99 is not in the range 18<=x<=23"),
        ("views: 0", "views: --views: got 0, expected 1 to 1e+06"),
        ("workers: -2", "workers: --workers: got -2, expected 0 to"),
        ("crop-scale: [0.5, 0.6, 7]", "crop-scale: --crop-scale: got 0.5,0.6,7, expected the least and the most share"),
        ("calibration-images: 0", "calibration-images: 0 is not in the range x>=1"),
        ("trust-pickle: true", "trust-pickle: lets code run, and a recipe cannot allow that"),
        ("trust-data-code: true", "trust-data-code: lets code run"),
        ("arch: net.py:make", "arch: net.py:make would run code, expected torchvision:NAME or timm:NAME"),
        ("arch: package.module:make", "arch: package.module:make would run code"),
        ("arch-arg: {pretrained: true}", "arch-arg: pretrained fetches or opens files"),
        ("save-plan: bash_aliases", 'save-plan: "bash_aliases" is no place that a recipe may write to, expected .json'),
        ("damage-cache: cache", "expected .json; say it by a flag"),
        ("junit: gates.json", 'junit: "gates.json" is no place that a recipe may write to, expected .xml'),
        ("output: ../.ssh/config", "is no place that a recipe may write to, expected no hidden file or folder"),
        ("report: [a.json, ~/b.json]", '"~/b.json" is no place'),
        ("checkpoints: .git", '".git" is no place'),
        ("arch-arg: [checkpoint_path=x]", "arch-arg: checkpoint_path fetches or opens files"),
    ],
)
def test_wrong_entry_is_refused(cli_invoke, asked, recipe, text, said):
    result = cli_invoke("m.pt", "--channel", "--config", recipe(text), exit_code=ConfigError.exit_code)
    assert said in result.stderr
    assert "1 error in the recipe" in result.stderr
    assert asked == []


def test_all_errors_come_at_once_in_the_order_of_lines(cli_invoke, recipe):
    text = "windows: many\nspatal: true\nseed: 1\nseed: 2\nviews: 0\nmean: !!python/name:os.system x\n"
    result = cli_invoke("m.pt", "--config", recipe(text), exit_code=ConfigError.exit_code)
    assert result.stderr.count("\n") == 1
    assert "5 errors in the recipe" in result.stderr
    places = [result.stderr.index(f"line {line}: ") for line in (1, 2, 4, 5, 6)]
    assert places == sorted(places)


def test_code_is_allowed_by_the_command_line_alone(cli_invoke, asked, recipe):
    path = recipe("spatial: true\narch: torchvision:resnet18\ntrust-pickle: false\n")
    result = cli_invoke("m.pt", "--config", path, "--trust-pickle", "--arch", "net.py:make", exit_code=0)
    assert (asked[0].trust_pickle, asked[0].arch) == (True, "net.py:make")
    assert "lets the model file run any code" in result.stderr


def test_recipe_without_a_model_or_method_is_a_wrong_command_line(cli_invoke, asked, recipe):
    assert "Missing argument 'MODEL'" in cli_invoke("--config", recipe("spatial: true"), exit_code=2).stderr
    assert "add --spatial" in cli_invoke("--config", recipe("model: m.pt"), exit_code=2).stderr


def test_contradiction_between_recipe_and_command_line_is_refused(cli_invoke, asked, recipe):
    path = recipe("spatial: true\nwindows: 4\nchannel: true\n")
    result = cli_invoke("m.pt", "--config", path, "--plan", "p.json", exit_code=2)
    assert "--spatial, --channel, --windows cannot be given beside it" in " ".join(result.stderr.split())
    assert asked == []
