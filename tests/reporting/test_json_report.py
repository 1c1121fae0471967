import json
import math
from dataclasses import fields, replace

import pytest

from tests.reporting.samples import DRY, FULL, IMAGES_OUT
from vfconvert.errors import UnwritableOutputError
from vfconvert.reporting.json_report import to_json
from vfconvert.reporting.report import SCHEMA_VERSION, ConversionReport
from vfconvert.reporting.writing import write_report


@pytest.mark.parametrize("name", ["full", "dry", "images_out"])
def test_json_reads_as_agreed(golden, name):
    report = {"full": FULL, "dry": DRY, "images_out": IMAGES_OUT}[name]
    golden(f"{name}.json", to_json(report))


def test_version_comes_first_and_keys_are_the_fields_in_their_order():
    keys = list(json.loads(to_json(FULL)))
    assert keys[0] == "schema_version"
    assert keys[1:] == [field.name for field in fields(ConversionReport) if field.name != "schema_version"]


def test_json_holds_every_number_of_the_report():
    read = json.loads(to_json(FULL))
    assert read["schema_version"] == SCHEMA_VERSION
    assert read["after"]["macs_method"] == FULL.after.macs_method
    assert read["after"]["flops_method"] == 2 * FULL.after.macs_method
    assert read["before"]["flops_executed"] == 2 * FULL.before.macs_executed
    assert read["parity"]["batch_sizes"] == [1, 2, 5]
    assert read["agreement"]["accuracy_before"] == FULL.agreement.accuracy_before
    assert [row["unexplained"] for row in read["layers"]] == [row.unexplained for row in FULL.layers]
    assert read["seconds"] == FULL.seconds


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan], ids=str)
def test_number_that_is_not_finite_becomes_null(value):
    report = replace(FULL, agreement=replace(FULL.agreement, value=value))
    assert json.loads(to_json(report), parse_constant=pytest.fail)["agreement"]["value"] is None


def test_meta_a_constant_that_is_no_json_is_seen():
    with pytest.raises(pytest.fail.Exception, match="NaN"):
        json.loads("[NaN]", parse_constant=pytest.fail)


def test_file_is_utf8_and_reads_back(tmp_path):
    report = replace(FULL, command="vfconvert größe.pt")
    write_report(report, tmp_path / "r.json")
    assert "größe" in (tmp_path / "r.json").read_bytes().decode("utf-8")
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8")) == json.loads(to_json(report))
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_path_that_is_not_utf8_reads_back(tmp_path):
    path = b"caf\xe9.pt".decode("utf-8", "surrogateescape")
    write_report(replace(FULL, input=replace(FULL.input, path=path)), tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["input"]["path"] == path


def test_folder_that_is_missing_is_refused(tmp_path):
    with pytest.raises(UnwritableOutputError, match="does not exist"):
        write_report(FULL, tmp_path / "no" / "r.json")
