"""Keywords of `convert`: texts as on the command line, values of their kind, and errors that name the keyword."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vfconvert
from tests.cli.conftest import network
from vfconvert.gates import read_saving
from vfconvert.keyword_values import READERS, read_limits
from vfconvert.keywords import KEYWORDS, KINDS, read_layers, read_settings, read_targets
from vfconvert.overrides import Override
from vfconvert.targets import Target


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("channel_stride", "1/4", 0.25),
        ("channel_stride", "16", 16),
        ("channel_stride", 0.5, 0.5),
        ("size", 8, (8, 8)),
        ("size", "16x8", (16, 8)),
        ("size", [16, 8], (16, 8)),
        ("mean", "0.5,.5,.25", (0.5, 0.5, 0.25)),
        ("mean", 0.5, (0.5,)),
        ("std", torch.tensor([0.5, 0.25]), (0.5, 0.25)),
        ("input_shape", "3,16,16", (3, 16, 16)),
        ("input_shape", torch.Size([3, 16, 16]), (3, 16, 16)),
        ("input_shape", None, None),
        ("input_shape", ["3,16,16", (1, 16, 16)], ((3, 16, 16), (1, 16, 16))),
        ("input_shape", [(3, 16, 16)], (3, 16, 16)),
        ("windows", np.int64(4), 4),
        ("windows", "4", 4),
        ("device", torch.device("cpu"), "cpu"),
        ("include", ["3"], ("3",)),
        ("plan", "p.json", Path("p.json")),
        ("max_drop", 1, 1.0),
        ("crop_scale", [0.5, 1], (0.5, 1.0)),
        ("rate", "1e-3", 1e-3),
        ("measure", False, False),
        ("arch_args", {"depth": 20}, {"depth": 20}),
    ],
)
def test_values_are_read(name: str, value: object, found: object) -> None:
    own, training = read_settings({name: value})
    (read,) = (*own.values(), *training.values())
    assert read == found
    assert type(read) is type(found)


@pytest.mark.parametrize(
    ("name", "value", "error", "said"),
    [
        ("channel_stride", "a/4", ValueError, "got 'a/4', expected a count like 16 or a share like 0.25 or '1/4'"),
        ("channel_stride", "1/0", ValueError, "got '1/0', expected a count"),
        ("size", (1, 2, 3), TypeError, "got (1, 2, 3), expected one side like 224, or (height, width) or None"),
        ("size", 8.5, TypeError, "got 8.5, expected one side"),
        ("size", 0, ValueError, "got 0, expected numbers from 1 to 1000000"),
        ("size", "-5", ValueError, "got '-5', expected one side"),
        ("input_shape", (3, -5, -5), ValueError, "got (3, -5, -5), expected numbers from 1 to 1000000"),
        ("input_shape", [(3, 5, 5), (0, 5, 5)], ValueError, "got [(3, 5, 5), (0, 5, 5)], expected numbers from 1 to"),
        ("mean", "half", ValueError, "got 'half', expected numbers like (0.485, 0.456, 0.406) or None"),
        ("mean", torch.ones(2, 20), TypeError, "got tensor([[1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1.,"),
        (
            "input_shape",
            "3,16",
            ValueError,
            "got '3,16', expected three numbers (C, H, W) like (3, 224, 224), or such for each input or None",
        ),
        ("input_shape", 16, TypeError, "got 16, expected three numbers"),
        ("windows", 2.5, TypeError, "got 2.5, expected a whole number"),
        ("windows", True, TypeError, "got True, expected a whole number"),
        ("windows", None, TypeError, "got None, expected a whole number"),
        ("max_drop", -1, ValueError, "got -1, expected at least 0"),
        ("max_drop", float("nan"), ValueError, "got nan, expected at least 0"),
        ("max_drop", float("inf"), ValueError, "got inf, expected a finite number"),
        ("seed", 2**64, ValueError, "got 18446744073709551616, expected at most 18446744073709551615"),
        ("seed", -(2**63) - 1, ValueError, "got -9223372036854775809, expected at least -9223372036854775808"),
        ("refine", -1, ValueError, "got -1, expected at least 0"),
        ("threads", 0, ValueError, "got 0, expected at least 1"),
        ("calibration_images", 0, ValueError, "got 0, expected at least 1"),
        ("rate", True, TypeError, "got True, expected a number or None"),
        ("spatial", "yes", TypeError, "got 'yes', expected True or False"),
        ("crops", 3, TypeError, "got 3, expected a text"),
        ("include", "layer4", TypeError, "got 'layer4', expected a sequence of texts like ['layer4.*']"),
        ("plan", 3, TypeError, "got 3, expected a path, a NetworkPlan or None"),
        ("crop_scale", 0.5, TypeError, "got 0.5, expected two numbers like (0.5, 1.0) or None"),
        ("arch_args", 3, TypeError, "got 3, expected a mapping like {'num_classes': 10}"),
    ],
)
def test_a_value_of_another_kind_is_refused(name: str, value: object, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(f'convert(): {name}: {said}')}") as raised:
        read_settings({name: value})
    assert type(raised.value) is error
    assert "\n" not in str(raised.value)


def test_every_keyword_has_a_reader() -> None:
    assert [name for name in KEYWORDS if KINDS[name].removesuffix(" | None") not in READERS] == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("chanel", "the nearest is 'channel'"),
        ("zzz", "the page From Python has all of them"),
        ("precision", 'Conversion.export writes in other precisions, by precision="fp16", "int8"'),
        ("int8", "Conversion.export writes in other precisions"),
        ("opset", "Conversion.export says how a file is written"),
        ("max_size", "Conversion.check judges"),
        ("reports", "Conversion.save_report writes them"),
        ("dry_run", "vfconvert.plan tells what a conversion would do"),
        ("training", "every field of TrainingOptions is one"),
    ],
)
def test_what_is_no_setting_is_refused_with_where_it_is(name: str, said: str) -> None:
    with pytest.raises(TypeError, match=f"^{re.escape(f'convert() has no setting {name!r}; {said}')}"):
        vfconvert.convert(network(), **{name: 1})


@pytest.mark.parametrize(
    ("read", "error", "said"),
    [
        (
            lambda: read_targets({"parms": 0.5}),
            ValueError,
            "convert(): targets: got 'parms=50%': expected",
        ),
        (lambda: read_targets({"params": None}), TypeError, "convert(): targets: params: got None, expected a share"),
        (
            lambda: read_targets("params=50%"),
            TypeError,
            "convert(): targets: got 'params=50%', expected a",
        ),
        (
            lambda: read_layers({"5": "keeep"}),
            ValueError,
            "convert(): layers: got '5=keeep': kind: got",
        ),
        (lambda: read_layers(["5"]), TypeError, "convert(): layers: got '5', expected a mapping like"),
        (lambda: read_limits("check()", read_saving, {"params": "x"}), ValueError, "check(): got 'params=x': expected"),
    ],
)
def test_limits_and_layers_that_cannot_be_read(read: Callable[[], Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(said)}"):
        read()


def test_limits_and_layers_are_read_or_taken() -> None:
    half, keep = Target(cost="params", share=0.5), Override(glob="5", kind="keep")
    assert read_targets({"params": 0.5}) == read_targets([half]) == read_targets(half) == (half,)
    assert read_layers({"5": "keep"}) == read_layers((keep,)) == (keep,)


def test_convert_takes_texts_as_the_command_line_does() -> None:
    found = vfconvert.convert(
        network(), channel=True, channel_stride="1/2", input_shape="3,12,12", reconstruct=False, measure=False
    )
    assert found.report.input_shape == (3, 12, 12)
