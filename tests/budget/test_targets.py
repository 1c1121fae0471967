"""Targets read from text, with every unit and refusal, and what they mean for one network."""

import pytest

from tests.budget.tables import FIXED, KEEP, keep, option, table_of
from vfconvert.budget.targets import allowed_by, file_bytes, limits_of, whole_of
from vfconvert.errors import BudgetError
from vfconvert.targets import Target, amount_text, read_target

TABLE = table_of((option(KEEP, 1000, 9000, 0), option("spatial", 500, 4500, 1)), kept=(keep("k"),))
TIMED = table_of((option(KEEP, 1000, 9000, 0, 0.01), option("spatial", 500, 4500, 1, 0.005)), seconds=0.02)


@pytest.mark.parametrize(
    ("text", "cost", "amount"),
    [
        ("params=5M", "params", 5e6),
        ("params=5000", "params", 5000),
        ("params=1.5k", "params", 1500),
        ("params=1e6", "params", 1e6),
        ("params=1", "params", 1),
        ("params=0.001K", "params", 1),
        ("macs=1.2G", "macs", 1.2e9),
        ("MACS = .5 g", "macs", 0.5e9),
        ("size=5MB", "size", 5e6),
        ("size=1KiB", "size", 1024),
        ("size=2MiB", "size", 2 * 2**20),
        ("size=1GiB", "size", 2**30),
        ("size=1gb", "size", 1e9),
        ("size=100B", "size", 100),
        ("latency=12ms", "latency", 0.012),
        ("latency=800us", "latency", 0.0008),
        (" latency=1.5S ", "latency", 1.5),
    ],
)
def test_amounts_are_read_with_their_unit(text: str, cost: str, amount: float) -> None:
    target = read_target(text)
    assert (target.cost, target.share) == (cost, None)
    assert target.amount == pytest.approx(amount)


@pytest.mark.parametrize("cost", ["params", "macs", "size", "latency"])
@pytest.mark.parametrize(("text", "share"), [("50%", 0.5), ("100 %", 1.0), ("0.5%", 0.005)])
def test_shares_are_read(cost: str, text: str, share: float) -> None:
    assert read_target(f"{cost}={text}") == Target(cost=cost, share=share)


@pytest.mark.parametrize("text", ["params=50%", "macs=70%", "size=12.5%", "params=5e+06"])
def test_target_is_said_as_it_is_given(text: str) -> None:
    target = read_target(text.replace("+", ""))
    assert str(target) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected one of params, macs, size, latency and a limit, like params=50% or params=5M"),
        ("50%", "expected one of params, macs, size, latency"),
        ("weights=50%", "expected one of params, macs, size, latency"),
        ("params", "expected one of params"),
        ("params=", "expected one of params"),
        ("params=-5", "expected one of params"),
        ("params=nan", "expected one of params"),
        ("params=inf", "expected one of params"),
        ("params=5.5.5M", "expected one of params"),
        ("params=50%%", "expected a unit of params: none, K, M, G or %"),
        ("params=0", "expected a limit above 0"),
        ("params=0.5", "below one parameter; for that share of the original write params=50%"),
        ("macs=0.25", "below one MAC; for that share of the original write macs=25%"),
        ("params=0.0001K", "below one parameter, expected one or more, like params=50%"),
        ("size=0.5B", "below one byte, expected one or more, like size=5MB"),
        ("macs=0%", "expected a limit above 0"),
        ("params=1e999", "one that a number can hold"),
        ("params=101%", "expected at most 100% of the original"),
        ("params=5MB", "expected a unit of params: none, K, M, G or %, like params=50% or params=5M"),
        ("macs=5ms", "expected a unit of macs: none, K, M, G or %, like macs=1.2G"),
        ("size=5", "expected a unit of size: B, KB, MB, GB, KIB, MIB, GIB or %, like size=5MB"),
        ("size=5M", "expected a unit of size: B"),
        ("latency=5", "expected a unit of latency: US, MS, S or %, like latency=60%"),
        ("latency=5M", "expected a unit of latency"),
    ],
)
def test_what_is_no_target_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_target(text)


def limits(*texts: str, table=TIMED, size: int = 100_000) -> dict[str, float]:
    return limits_of(table, map(read_target, texts), size)


def test_shares_are_those_of_the_original() -> None:
    assert whole_of(TABLE, "params") == FIXED + 1000
    assert limits("params=50%", "macs=25%", "latency=60%") == {
        "params": pytest.approx(1000),
        "macs": pytest.approx(2500),
        "latency": pytest.approx(0.012),
    }


def test_amounts_are_taken_as_they_are() -> None:
    assert limits("params=1.2k", "macs=1M", "latency=3ms") == {
        "params": pytest.approx(1200),
        "macs": pytest.approx(1e6),
        "latency": pytest.approx(0.003),
    }


def test_size_is_one_of_numbers() -> None:
    found = limits("size=20KB", table=TABLE)
    assert list(found) == ["params"]
    assert file_bytes(TABLE, found["params"]) == pytest.approx(20_000)
    assert found["params"] == pytest.approx((20_000 - 4096 - 2 * 4096) / 4 - TABLE.statistics)
    assert limits("size=20%", table=TABLE) == found  # of the file, not of the numbers
    assert allowed_by(TABLE, read_target("size=20%"), 50_000) == pytest.approx(10_000)


def test_the_tightest_of_one_cost_counts() -> None:
    assert limits("params=900", "params=1200") == limits("params=1200", "params=900") == {"params": 900}
    tight = limits("size=20KB", "params=100K", table=TABLE)
    assert tight == limits("size=20KB", table=TABLE)


def test_latency_that_was_not_measured_is_refused() -> None:
    with pytest.raises(BudgetError, match="--target latency=60%: nothing was measured; drop --no-measure"):
        limits("latency=60%", table=TABLE)


@pytest.mark.parametrize(
    ("cost", "amount", "text"),
    [
        ("params", 1234567.9, "1,234,567"),
        ("macs", 4.2e9, "4,200,000,000"),
        ("size", 12_345, "12.3 kB"),
        ("size", 12_345_678, "12.35 MB"),
        ("latency", 8.834e-05, "0.08834 ms"),
        ("latency", 1.25, "1,250 ms"),
    ],
)
def test_amounts_have_units(cost: str, amount: float, text: str) -> None:
    assert amount_text(cost, amount) == text
