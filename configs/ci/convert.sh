#!/bin/sh
# For any other system of continuous integration: a script, no container. Run it in the folder of the model:
#   MODEL=model.pt OPTIONS='--config recipe.yaml' sh convert.sh
# Afterwards report.json and gates.xml (JUnit) are there, and converted/model.onnx only where every gate passed.
# Exit codes: 0 passed, 3 a gate failed, any other an error, which gates.xml tells too. Where vfconvert is not installed,
# PACKAGE says where it comes from, as pip takes it: a wheel, a checkout, git+https://...
set -eu

: "${MODEL:=model.pt}"
: "${OPTIONS:=--spatial --data images --fail-under-saving params=10% --max-parity-error 1e-4}"

if ! command -v vfconvert >/dev/null; then
    : "${PACKAGE:?vfconvert is not installed: say where it comes from, a wheel, a checkout or git+https://...}"
    python3 -m venv .venv
    .venv/bin/pip install --quiet "$PACKAGE"
    PATH="$PWD/.venv/bin:$PATH"
fi

mkdir -p converted
rm -f converted/model.onnx report.json gates.xml   # of an earlier run
code=0
# shellcheck disable=SC2086 # OPTIONS are several words
vfconvert "$MODEL" $OPTIONS -o converted/model.onnx --report report.json --junit gates.xml || code=$?
case "$code" in
    0) echo "Converted; every gate passed." ;;
    3) echo "A gate failed: gates.xml and report.json say which." >&2 ;;
    *) echo "The conversion ended in an error (exit code $code)." >&2 ;;
esac
exit "$code"
