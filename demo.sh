#!/usr/bin/env bash
# Loads a simulated Cometly Space into a DuckDB file, in two Meltano runs. Needs no account.
# Writes only to .demo/ and .meltano/ in this checkout.
set -euo pipefail
set -m # a process group for each job, so that stopping a job stops its children too
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
source .ci/environment.sh

contacts=50000
zone=America/New_York
log=.demo/demo.log

stop_everything() {
  trap '' INT TERM HUP
  local job
  for job in $(jobs -p); do
    kill -- "-$job" || true
  done
  wait
} 2>/dev/null
trap stop_everything EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
  printf '\nFailed. The end of %s:\n' "$log"
  tail -n 15 "$log"
  exit 1
} >&2

# Runs a command as a job, so that a signal interrupts the wait and stops the job; logs its output.
quietly() {
  "$@" >>"$log" 2>&1 </dev/null &
  wait $! || fail
}

install() {
  "$python" -m pip install --upgrade pip
  "$python" -m pip install meltano==4.4.1 --group simulator
  "$meltano" install tap-cometly target-duckdb
}

run_meltano() {
  set -o pipefail
  "$meltano" run tap-cometly target-duckdb 2>&1 </dev/null | tee -a "$log" | while IFS= read -r line; do
    case $line in # only the tap's lines, without its version and Meltano's METRIC lines
      *"] tap-cometly  tap-cometly v"* | *"] tap-cometly  METRIC "*) ;;
      *"] tap-cometly  "*) echo "   ${line#*] tap-cometly  }" ;;
    esac
  done
}

days_ago() {
  "$python" -c "from datetime import *; print(date.today() - timedelta(days=$1))"
}

mkdir -p .demo
rm -f .demo/*.duckdb* .demo/meltano.db .demo/space.json "$log"
echo "1. Installing Meltano, the tap and a target into .demo/ and .meltano/ (about a minute the first time)"
quietly make_environment .demo/venv
python=$PWD/.demo/venv/bin/python
meltano=$PWD/.demo/venv/bin/meltano

# Ignore the caller's own settings and state.
unset "${!TAP_COMETLY_@}" "${!TARGET_DUCKDB_@}" "${!MELTANO_@}"
export MELTANO_CLI_LOG_FORMAT=uncolored MELTANO_DATABASE_URI=sqlite:///$PWD/.demo/meltano.db
export MELTANO_VENV_BACKEND=virtualenv # use pip and its configuration, not uv
export PYTHONUTF8=1
quietly install

start=$(days_ago 730)
# In UTC: from midnight in the Space to ten minutes ago, so that the second run exports everything.
first=$("$python" -c "
from datetime import *; from zoneinfo import ZoneInfo
print(f'{datetime.fromisoformat(\"$start\").replace(tzinfo=ZoneInfo(\"$zone\")).astimezone(UTC):%FT%T}')")
last=$("$python" -c "from datetime import *; print(f'{datetime.now(UTC) - timedelta(minutes=10):%FT%T}')")
echo
echo "2. Starting a simulated Cometly Space: ${contacts%000},000 contacts since $start, in $zone."
echo "   Its exports take less than a second, without rate limits. Cometly's can take minutes, and it"
echo "   allows 5 new exports and 30 polls per minute."
"$python" -m simulator --size "$contacts" --since "$first" --until "$last" --timezone "$zone" \
  --api-port 0 --storage-port 0 --queued-seconds 0.2 --processing-seconds 0.6 \
  --creates-per-minute 0 --polls-per-minute 0 --ready-file .demo/space.json >>"$log" 2>&1 </dev/null &
until [ -e .demo/space.json ]; do
  kill -0 $! 2>/dev/null || fail
  sleep 0.1
done
TAP_COMETLY_API_URL=$("$python" -c 'import json; print(json.load(open(".demo/space.json"))["api_url"])')
export TAP_COMETLY_API_URL TAP_COMETLY_API_KEY=simulated-key
export TAP_COMETLY_START_DATE=$start TAP_COMETLY_TIMEZONE=$zone TAP_COMETLY_WINDOW_DAYS=30
export TARGET_DUCKDB_PATH=$PWD/.demo/contacts.duckdb

until=$(days_ago 5)
echo
echo "3. First run: meltano run tap-cometly target-duckdb (end_date $until)"
TAP_COMETLY_END_DATE=$until run_meltano &
wait $! || fail
cp .demo/contacts.duckdb .demo/first_run.duckdb

echo
echo "4. Second run, without end_date: from the local midnight a day or more before the bookmark"
run_meltano &
wait $! || fail

echo
echo "5. The database"
"$meltano" state get dev:tap-cometly-to-target-duckdb >.demo/state.json 2>>"$log" || fail
.meltano/loaders/target-duckdb/venv/bin/python demo/report.py \
  .demo/contacts.duckdb .demo/first_run.duckdb .demo/state.json "$zone"
echo
echo "The table is tap_cometly.contacts in .demo/contacts.duckdb. The full log is in $log."
