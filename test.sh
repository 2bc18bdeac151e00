#!/usr/bin/env bash
# Lint, types and tests, in a separate virtualenv (.venv-test); the end-to-end tests install Meltano
# and targets into .e2e. Coverage is measured only without arguments. Arguments are for pytest:
# ./test.sh -m "not slow"
# ./test.sh tests/test_windows.py -k midnight
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
source .ci/environment.sh

environment=.venv-test
make_environment "$environment"
python=$PWD/$environment/bin/python
echo "Installing the development dependencies into $environment"
"$python" -m pip install --quiet --disable-pip-version-check --upgrade pip
"$python" -m pip install --quiet --disable-pip-version-check --editable . --group dev

echo "ruff"
"$python" -m ruff check .
"$python" -m ruff format --check .
echo "deptry"
"$python" -m deptry --no-ansi .
echo "mypy"
"$python" -m mypy

echo "pytest"
# One worker more than there are cores, at most five: the end-to-end tests mostly wait.
workers=$("$python" -c 'import os; print(min(os.cpu_count() + 1, 5))')
pytest=(pytest -n "$workers" --dist worksteal "$@")
if [ $# -gt 0 ]; then
  exec "$python" -m "${pytest[@]}"
fi
rm -f .coverage .coverage.*
"$python" -m coverage run -m "${pytest[@]}"
"$python" -m coverage combine --quiet
"$python" -m coverage report --fail-under=95
