import math

import pytest

from vfconvert.reporting import units


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (units.whole, 1234567, "1,234,567"),
        (units.metric, 999, "999"),
        (units.metric, 1_000, "1.00 k"),
        (units.metric, 9_994, "9.99 k"),
        (units.metric, 9_995, "10.0 k"),
        (units.metric, 18_432, "18.4 k"),
        (units.metric, 999_499, "999 k"),
        (units.metric, 999_500, "1.00 M"),
        (units.metric, -115_605_504, "-116 M"),
        (units.metric, 4_120_000_000_000_000, "4120 T"),
        (units.metric, 0, "0"),
        (units.mebibytes, 2**20, "1.00 MiB"),
        (units.mebibytes, 2**20 - 1, "1,024.0 KiB"),
        (units.mebibytes, 79_341_568, "75.67 MiB"),
        (units.mebibytes, 512, "0.5 KiB"),
        (units.percent, 1.0, "100.00 %"),
        (units.percent, 0.99999, "99.99 %"),
        (units.percent, 0.8825, "88.25 %"),
        (units.percent, 0.29, "29.00 %"),
        (units.percent, math.nan, "not finite"),
        (units.decibels, 37.414, "37.41 dB"),
        (units.decibels, math.inf, "equal outputs (infinite dB)"),
        (units.decibels, -math.inf, "not finite"),
        (units.small, 0.0001, "0.0001"),
        (units.small, 1.23456e-7, "1.23e-07"),
        (units.small, math.nan, "not finite"),
        (units.seconds, 0.421, "0.42 s"),
        (units.seconds, 12.34, "12.3 s"),
        (units.seconds, 99.97, "1 min 40 s"),
        (units.seconds, 185.2, "3 min 05 s"),
        (units.milliseconds, 0.000123, "0.123 ms"),
        (units.milliseconds, 0.0123, "12.30 ms"),
        (units.milliseconds, 0.1234, "123.4 ms"),
    ],
)
def test_number_reads_as(function, value, text):
    assert function(value) == text


def test_ratio_of_nothing_is_a_dash():
    assert units.ratio(1, 2) == "0.500"
    assert units.ratio(1, 0) == "-"


def test_plural_agrees_with_its_number():
    assert [units.plural(count, "layer") for count in (0, 1, 1000)] == ["0 layers", "1 layer", "1,000 layers"]
