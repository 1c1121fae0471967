"""Everything that the package raises is of the one family, says something, and is documented and tested."""

import re
from pathlib import Path

import pytest

from tests import raising
from vfconvert import errors

ROOT = Path(__file__).parent.parent
SOURCES = raising.sources_below(ROOT / "vfconvert")
TESTS = raising.sources_below(ROOT / "tests")
CLASSES = raising.classes_of(SOURCES)
FAMILY = raising.family_of(CLASSES)
MAKERS = raising.makers_of(SOURCES)

# What may be raised besides, and where: what never leaves its module or package, what Python's own protocols ask for,
# and mistakes of a caller within the package, which are faults.
INTERNAL = {
    # Control flow: caught in the same package, or by the boundary.
    "UnknownGraphError": {"loading"},
    "ForbiddenOperatorError": {"loading"},
    "FieldError": {"recipes"},
    "UnknownPeakError": {"benching"},
    "NotFiniteError": {"training"},
    "TrainingInterrupted": {"training"},
    "_Terminated": {"cli"},
    "Discarded": {"pipeline"},
    "DamagedArchiveError": {"loading"},
    "StrangeArchiveError": {"loading"},
    "OpcodeError": {"loading"},
    "_RefusedError": {"loading"},
    "Reached": {"analysis.parts", "fitting.untraced"},
    "_DifferentError": {"verification.detections"},
    "_UnusualError": {"loading.onnx_inside"},
    "pickle.UnpicklingError": {"loading"},
    "yaml.YAMLError": {"batching"},
    # Words for click and for `except` clauses nearby, which make them errors of the command line or of a file.
    "click.UsageError": {"cli"},
    "ValueError": {
        *("cli.values", "cli.batch", "cli.recipe", "overrides", "targets", "gates", "json_fields", "loading.claims"),
        *("budget.cache", "lowering.costs", "readers", "training.checkpoint"),
        # Mistakes of a caller.
        *("budget.building", "fitting.boundary", "fitting.layers", "inputs", "lowering.form", "lowering.layer"),
        *("ops.moments", "tuning_course", "samples", "keyword_values", "keywords", "api", "many"),
        *("recipes.loading", "nn.versatile"),
    },
    "TypeError": {
        *("analysis.profile", "eligibility", "loading.exported", "loading.claims", "lowering.kept", "nn.flattened"),
        *("recipes.loading", "keyword_values", "keywords", "api", "many", "cli.option_words"),
    },
    "KeyError": {"analysis.profile"},
    # Python's protocols: attributes of a module, imports of a file, errors of the system.
    "AttributeError": {"__init__"},
    "ImportError": {"user_code"},
    "FileNotFoundError": {"user_code", "temporary"},
    "OSError": {"exporting.recipe"},
    # An error of ours that was made elsewhere.
    "error": {"files"},
    "each.error": {"data.batches"},
    "type(error)": {"data.batches"},
    "found": {"shortages"},
}

# A code keeps its meaning for ever: scripts depend on it. New ones follow the last.
GIVEN = {
    **{3: "GateError", 4: "ConfigError", 5: "UncheckableGateError", 6: "BatchError", 7: "ManifestError"},
    **{10: "NotAModelError", 11: "TruncatedModelError", 12: "EmptyModelError", 13: "UntrustedModelError"},
    **{14: "ArchitectureNeededError", 15: "ArchitectureError", 16: "StateDictMismatchError", 17: "NoConvolutionError"},
    **{18: "NothingEligibleError", 19: "UnwritableOutputError", 20: "InputShapeError", 21: "NoImagesError"},
    **{22: "UnreadableImageError", 23: "IllegalSpecError", 24: "ParityError", 25: "ExportError"},
    **{26: "UnsupportedModelError", 27: "MissingPackageError", 28: "DeviceError", 29: "FitError"},
    **{30: "PreprocessingError", 31: "SelectionError", 32: "PlanFileError", 33: "BudgetError", 34: "TrainingError"},
    **{35: "ResourceError"},
}


def codes() -> dict[str, int]:
    return {name: getattr(errors, name).exit_code for name in set(FAMILY.values())}


def reused(now: dict[str, int], given: dict[int, str]) -> list[str]:
    """Codes that once meant something else."""
    last = max(given)
    return sorted(name for name, code in now.items() if (code <= last and given.get(code) != name))


def rows_of(text: str) -> dict[str, int]:
    rows = re.findall(r"^\|\s*(\d+)\s*\|\s*(\w+Error)\s*\|\s*[^\s|]", text, flags=re.MULTILINE)
    return {name: int(code) for code, name in rows}


def test_every_raise_is_of_the_family_and_says_something():
    raises = [found for module, source in SOURCES.items() for found in raising.raises_of(module, source)]
    assert len(raises) > 400
    wrong = [
        line
        for module, source in SOURCES.items()
        for line in raising.wrong_raises(module, source, FAMILY, MAKERS, INTERNAL)
    ]
    assert wrong == []


def test_what_is_allowed_besides_is_raised_there():
    seen = {(found.what, place) for m, s in SOURCES.items() for found in raising.raises_of(m, s) for place in places(m)}
    unused = [f"{what} in {place}" for what, where in INTERNAL.items() for place in where if (what, place) not in seen]
    assert unused == []


def places(module: str) -> tuple[str, str]:
    return module, module.partition(".")[0]


def test_internal_errors_of_our_own_are_caught():
    own = {what for what in INTERNAL if what in CLASSES}
    assert len(own) > 5
    assert own <= set().union(*map(raising.caught_in, SOURCES.values()))


def test_what_is_raised_is_in_the_page_of_exit_codes():
    raised = set().union(*map(raising.built_in, SOURCES.values())) & set(FAMILY)
    table = rows_of((ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8"))
    assert {name: codes()[FAMILY[name]] for name in raised} == {name: table.get(FAMILY[name]) for name in raised}


def test_every_error_is_raised_somewhere():
    assert set(FAMILY.values()) - set().union(*map(raising.built_in, SOURCES.values())) == set()


def test_every_error_has_a_test_of_its_message_or_code():
    assert set(FAMILY) - set().union(*map(raising.expected_in, TESTS.values())) == set()


def test_codes_are_never_reused():
    assert reused(codes(), GIVEN) == []


def test_classes_of_the_family_take_a_message_alone():
    """Who adds to a message on the way out relies on it."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) > 20
    assert all("__init__" not in vars(kind) for kind in kinds if kind is not errors.VfconvertError)
    assert errors.VfconvertError("said").args == ("said",)


MADE = {"_wrong": {"FitError"}, "_any": {""}, "_other": {"FitError", "int"}}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise RuntimeError('x')", "m.n:1: raise RuntimeError: not of the family"),
        ("raise ValueError('x')", "m.n:1: raise ValueError: not of the family"),
        ("def f():\n    raise FitError", "m.n:2: raise FitError: without a message"),
        ("raise FitError()", "m.n:1: raise FitError: without a message"),
        ("raise FitError(' ')", "m.n:1: raise FitError: without a message"),
        ("raise _any('x')", "m.n:1: raise _any: not of the family"),
        ("raise _other('x')", "m.n:1: raise _other: not of the family"),
        ("raise click.UsageError('x')", "m.n:1: raise click.UsageError: not of the family"),
        ("raise error", "m.n:1: raise error: not of the family"),
    ],
)
def test_meta_a_wrong_raise_is_seen(source, said):
    assert raising.wrong_raises("m.n", source, {"FitError": "FitError"}, MADE, {"ValueError": {"m.other"}}) == [said]


def test_meta_right_raises_pass():
    source = (
        "raise FitError(f'{x}')\nraise _wrong(x) from error\nraise ValueError('x')\ntry:\n    f()\nexcept E:\n    raise"
    )
    for internal in ({"ValueError": {"m.n"}}, {"ValueError": {"m"}}):
        assert raising.wrong_raises("m.n", source, {"FitError": "FitError"}, MADE, internal) == []


def test_meta_a_subclass_elsewhere_is_of_the_family():
    classes = raising.classes_of({"errors": "class A(VfconvertError): ...", "m": "class B(A): ...\nclass C(int): ..."})
    assert raising.family_of(classes) == {"A": "A", "B": "A"}


def test_meta_a_reused_code_is_seen():
    assert reused({"B": 10}, {10: "A", 11: "C"}) == ["B"]
    assert reused({"A": 11}, {10: "A", 11: "C"}) == ["A"]
    assert reused({"A": 10, "D": 12}, {10: "A", 11: "C"}) == []


def test_meta_rows_without_a_meaning_do_not_count():
    assert rows_of("| 10 | FitError | x |\n| 11 | OtherError |  |\n| 12 | no | x |\n") == {"FitError": 10}


def test_meta_only_messages_and_codes_count_as_tests():
    source = (
        "pytest.raises(A)\npytest.raises(errors.B, match='x')\npytest.raises((C, D), match='x')\nrun(code=E.exit_code)"
    )
    assert raising.expected_in(source) == {"B", "C", "D", "E"}


def test_meta_what_is_caught_and_built_is_seen():
    assert raising.caught_in("try: ...\nexcept (A, m.B): ...\nexcept C as c: ...") == {"A", "B", "C"}
    assert raising.caught_in("with suppress(A), contextlib.suppress(m.B): call(C)") == {"A", "B"}
    assert raising.built_in("raise A('x')\nreturned = B()\nisinstance(x, C)") == {"A", "B", "isinstance"}
