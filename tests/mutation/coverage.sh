#!/usr/bin/env bash
# Line and branch coverage of the C++ and the Python by the whole suite:
#   tests/mutation/coverage.sh FOLDER [TEST FILES...]
# Needs coverage, gcovr, cmake, ninja and pybind11 besides what the tests need. FOLDER gets a copy of
# the tree, the reports, and what tests/mutation wants: coverage.data with a context for each test,
# and their times in junit/. Tests with limits of time may fail under the tracer; the figures stand.
# PREFIX is a command to go in front of each long one, such as "nice".
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mkdir -p "$1" && cd "$1" && pwd)
shift
files=("$@")
PREFIX=${PREFIX:-}
python=$(command -v python)

mkdir -p "$work/tree" "$work/junit"
tar -c -C "$root" --exclude=./.git --exclude=./build --exclude=__pycache__ --exclude='_core*.so' . |
  tar -x -C "$work/tree"
cd "$work/tree"
# Counters of threads are added up atomically; a child that ends by _exit leaves nothing.
cmake -S . -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Debug -DFASTLAYER_BUILD_TESTS=ON \
  -DCMAKE_CXX_FLAGS="--coverage -O1 -fprofile-update=atomic" -DSKBUILD_PROJECT_VERSION=0.1.0 \
  -DPython_EXECUTABLE="$python" -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)"
$PREFIX cmake --build "$work/build"
find "$work/build" -name '*.gcda' -delete
$PREFIX ctest --test-dir "$work/build" --output-on-failure -E symbol_gate
cp "$work"/build/_core*.so python/fastlayer/

export PYTHONPATH=$work/tree/python COVERAGE_FILE=$work/coverage.data
coverage erase
((${#files[@]})) || mapfile -t files < <(find tests -name 'test_*.py' ! -name test_cpp.py | sort)
for file in "${files[@]}"; do
  $PREFIX coverage run -m pytest -q -p no:cacheprovider --junitxml="$work/junit/$(basename "$file").xml" \
    "$file" > "$work/pytest.log" || tail -n 5 "$work/pytest.log"
done
coverage combine -q
coverage report > "$work/python.txt"
coverage json -q -o "$work/python.json"
# Branches to exception handlers are the compiler's, one for nearly every call, and left out.
$PREFIX gcovr --root . --object-directory "$work/build" --filter cpp/core --filter cpp/kernels \
  --filter cpp/bindings --exclude-throw-branches --exclude-unreachable-branches \
  --gcov-suspicious-hits-threshold 0 --print-summary --txt "$work/cpp.txt" --json "$work/cpp.json" "$work"/build/CMakeFiles/*.dir \
  > "$work/cpp-summary.txt"
python - "$work/python.json" <<'PYTHON'
import json
import sys

total = json.load(open(sys.argv[1]))["totals"]
for what, done, count in (
    ("lines", total["covered_lines"], total["num_statements"]),
    ("branches", total["covered_branches"], total["num_branches"]),
):
    print(f"Python {what}: {100 * done / count:.1f} % ({done} of {count})")
PYTHON
sed 's/^/C++ /' "$work/cpp-summary.txt"
