#!/usr/bin/env bash
# Lint, types and tests, in an environment of their own (.venv-test); the end-to-end tests install
# Meltano and targets into .e2e. Arguments go to pytest:
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
rm -f .coverage .coverage.*
# More workers than cores: the end-to-end tests mostly wait.
workers=$("$python" -c 'import os; print(min(os.cpu_count() + 1, 5))')
"$python" -m coverage run -m pytest -n "$workers" --dist worksteal "$@"
"$python" -m coverage combine --quiet
if [ $# -eq 0 ]; then
  "$python" -m coverage report --fail-under=95
else
  "$python" -m coverage report # of a part of the tests: nothing to demand
fi
