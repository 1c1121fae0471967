"""The published JSON Schema is what reports keep to, and within a version it only grows."""

import copy
import json
from importlib.resources import files

import jsonschema
import pytest

from tests.reporting.conftest import GOLDEN
from tests.reporting.samples import DRY, FULL, IMAGES_OUT
from tests.reporting.schema_of import lost, report_schema
from tests.reporting.shown_samples import BUDGETED, RESTORED, TRAINED
from vfconvert.reporting.json_report import to_json

PUBLISHED = files("vfconvert.reporting").joinpath("report-1.schema.json")
REPORTS = {"full": FULL, "dry": DRY, "images_out": IMAGES_OUT, "trained": TRAINED, "restored": RESTORED}
REPORTS |= {"budgeted": BUDGETED}
# As it was first published under version 1; never written anew.
FROZEN = GOLDEN.parent / "frozen" / "report-1.schema.json"


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_published_schema_is_that_of_the_report(request):
    text = json.dumps(report_schema(), indent=2) + "\n"
    if request.config.getoption("--overwrite", default=False):
        with open(str(PUBLISHED), "w", encoding="utf-8") as file:
            file.write(text)
        pytest.skip("wrote the schema")
    assert text == PUBLISHED.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", REPORTS)
def test_report_keeps_to_the_schema(validator, name):
    validator.validate(json.loads(to_json(REPORTS[name])))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("after", "parameters"), "many", "is not of type 'integer'"),
        (("layers", 0, "name"), None, "is not of type 'string'"),
        (("schema_version",), 2, "1 was expected"),
        (("training", "losses", 0), [1], "is not valid under any"),
        (("samples", 0, "original", "class_index"), 0.5, "is not valid under any|is not of type"),
    ],
)
def test_meta_another_report_is_refused(validator, path, value, said):
    report = json.loads(to_json(TRAINED))
    place = report
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError, match=said):
        validator.validate(report)


def test_meta_a_missing_key_is_refused(validator):
    report = json.loads(to_json(FULL))
    del report["before"]["flops_method"]
    with pytest.raises(jsonschema.ValidationError, match="'flops_method' is a required property"):
        validator.validate(report)


def test_version_one_only_grows():
    frozen = json.loads(FROZEN.read_text(encoding="utf-8"))
    assert lost(frozen, json.loads(PUBLISHED.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda schema: schema["properties"].pop("layers"), "$.properties.layers"),
        (lambda schema: schema["required"].remove("seed"), "$.required: seed"),
        (lambda schema: schema["properties"].update(seed={"type": "number"}), "$.properties.seed.type"),
        (lambda schema: schema["$defs"].pop("Size"), "$.$defs.Size"),
    ],
    ids=["key", "required", "kind", "class"],
)
def test_meta_what_is_lost_is_seen(change, said):
    older, newer = report_schema(), copy.deepcopy(report_schema())
    change(newer)
    assert lost(older, newer) == [said]


def test_meta_additions_are_no_loss():
    older, newer = report_schema(), copy.deepcopy(report_schema())
    newer["properties"]["more"] = {"type": "string"}
    newer["required"].append("more")
    newer["description"] = "another"
    assert lost(older, newer) == []
