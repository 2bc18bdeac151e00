# shellcheck shell=bash
# For demo.sh, test.sh and .ci/lowest: an environment from nothing but Python 3.11 or later with pip.

# Prints the first Python that is new enough.
find_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11 python; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  echo "Python 3.11 or later is needed, and there is none on the PATH." >&2
  return 1
}

# Makes the environment in a folder, unless it is there and works.
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
  echo "Python's own venv does not work here (Debian ships it without ensurepip): using virtualenv."
  rm -rf "$folder"
  "$python" -m pip install --quiet --target "$folder-tools" virtualenv &&
    PYTHONPATH="$folder-tools" "$python" -m virtualenv --quiet "$folder" &&
    rm -rf "$folder-tools"
}
