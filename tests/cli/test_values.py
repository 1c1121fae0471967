import click
import pytest

from vfconvert.cli import values


@pytest.mark.parametrize(
    ("value", "text", "read"),
    [
        (values.STRIDE, "16", 16),
        (values.STRIDE, "0.25", 0.25),
        (values.STRIDE, "1/4", 0.25),
        (values.STRIDE, "-1", -1),
        (values.SIZE, "32", (32, 32)),
        (values.SIZE, "32x64", (32, 64)),
        (values.SIZE, "32X64", (32, 64)),
        (values.NUMBERS, "0.5", (0.5,)),
        (values.NUMBERS, "0.5, 0.25,1e-3", (0.5, 0.25, 0.001)),
        (values.SHAPE, "3,224,320", (3, 224, 320)),
        (values.SEED, "-9223372036854775808", -(2**63)),
        (values.SEED, "18446744073709551615", 2**64 - 1),
        (values.FINITE, "0.5", 0.5),
        (values.PAIR, "depth=20", ("depth", 20)),
        (values.PAIR, "width=0.5", ("width", 0.5)),
        (values.PAIR, "bias=False", ("bias", False)),
        (values.PAIR, "bias=true", ("bias", True)),
        (values.PAIR, "name=a=b", ("name", "a=b")),
    ],
)
def test_value_is_read(value, text, read):
    got = value.convert(text, None, None)
    assert got == read
    assert type(got) is type(read)


@pytest.mark.parametrize(
    ("value", "text", "expected"),
    [
        (values.STRIDE, "1/0", "a count of channels like 16"),
        (values.STRIDE, "many", "a count of channels like 16"),
        (values.SIZE, "32x", "HxW like 224x320"),
        (values.SIZE, "1x2x3", "HxW like 224x320"),
        (values.SEED, "18446744073709551616", "a whole number from -9223372036854775808 to 18446744073709551615"),
        (values.SEED, "-9223372036854775809", "a whole number from -9223372036854775808 to"),
        (values.SEED, "1.5", "a whole number from"),
        (values.FINITE, "nan", "got 'nan', expected a finite number"),
        (values.FINITE, "inf", "got 'inf', expected a finite number"),
        (values.FINITE, "-1", "-1.0 is not in the range x>=0"),
        (values.SIZE, "0", "each from 1 to 1000000"),
        (values.SIZE, "-5", "each from 1 to 1000000"),
        (values.SIZE, "8x1000001", "each from 1 to 1000000"),
        (values.SHAPE, "3,-5,-5", "each from 1 to 1000000"),
        (values.SHAPE, "0,5,5", "each from 1 to 1000000"),
        (values.NUMBERS, "0.5;0.5", "numbers with commas"),
        (values.SHAPE, "3,224", "three numbers C,H,W"),
        (values.PAIR, "depth", "KEY=VALUE"),
        (values.PAIR, "=3", "KEY=VALUE"),
    ],
)
def test_value_refuses_other_text(value, text, expected):
    with pytest.raises(click.BadParameter, match=expected):
        value.convert(text, None, None)


def test_value_of_an_argument_keeps_its_type():
    pairs = [values.PAIR.convert(text, None, None) for text in ("a=1", "b=1.0", "c=true", "d=one")]
    assert {key: type(value) for key, value in values.mapping_of(pairs).items()} == {
        "a": int,
        "b": float,
        "c": bool,
        "d": str,
    }


def test_mapping_refuses_a_key_given_twice():
    with pytest.raises(click.UsageError, match="--arch-arg a is given twice"):
        values.mapping_of([("a", 1), ("a", 1)])
