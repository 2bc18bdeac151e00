#!/usr/bin/env bash
# Compares the tap with its peers, each in a separate virtualenv in .venv-benchmarks:
#   benchmarks/run.sh [--contacts 500000] [--rounds 3] [--only tap,textbook]
#   benchmarks/run.sh scale [--largest 10000000]
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
source .ci/environment.sh

folder=.venv-benchmarks
benchmark=speed
if [ "${1:-}" = scale ]; then
  benchmark=scale
  shift
fi

# Installs packages into a virtualenv. If that fails, NAME.failed has the reason, for the table.
install() {
  local name=$1 log=$folder/$1.log
  shift
  if make_environment "$folder/$name" &&
    "$folder/$name/bin/python" -m pip install --quiet --upgrade pip &&
    "$folder/$name/bin/python" -m pip install --quiet "$@"; then
    rm -f "$folder/$name.failed"
  else
    { grep ERROR "$log" || echo "see $log"; } | tail -n 1 >"$folder/$name.failed"
    return 1
  fi
} >"$folder/$1.log" 2>&1

mkdir -p "$folder"
echo "Installing the tap and its peers into $folder (a few minutes the first time)"
for name in runner tap; do
  arguments=(--group simulator)
  [ $name = runner ] || arguments=(-r benchmarks/requirements/tap.txt .)
  install $name "${arguments[@]}" || { cat "$folder/$name.log" >&2 && exit 1; }
done
for name in singer-python airbyte-cdk dlt; do
  [ $benchmark = scale ] || install $name -r benchmarks/requirements/$name.txt || true
done

exec "$folder/runner/bin/python" -m "benchmarks.$benchmark" "$@"
