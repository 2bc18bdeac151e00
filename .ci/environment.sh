# shellcheck shell=bash
# Sourced by demo.sh, test.sh, benchmarks/run.sh, .ci/lowest, .ci/mutation and .ci/prerelease: makes
# a virtualenv with only Python 3.11 or later and pip.

# Prints the path of the first Python that is new enough.
find_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11 python; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  echo "No Python 3.11 or later on the PATH; install it and rerun." >&2
  return 1
}

# Makes a virtualenv in a folder, unless there is a working one.
make_environment() {
  local folder=$1 python
  if "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
    return
  fi
  python=$(find_python) || return
  rm -rf "$folder" "$folder-tools"
  if "$python" -m venv "$folder" >/dev/null; then
    return
  fi
  echo "Python's venv does not work (on Debian it needs python3-venv); using virtualenv instead."
  rm -rf "$folder"
  "$python" -m pip install --quiet --target "$folder-tools" virtualenv &&
    PYTHONPATH="$folder-tools" "$python" -m virtualenv --quiet "$folder" &&
    rm -rf "$folder-tools"
}
