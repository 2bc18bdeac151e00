"""Prints what two runs of the tap loaded into a DuckDB file, at the end of `demo.sh`.

Runs in the target's virtualenv: needs `duckdb`, not the tap.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import duckdb  # type: ignore[import-not-found, unused-ignore]

_BAR_WIDTH = 40

_PREPARE = """
attach '{database}' as both_runs (read_only);
attach '{first_run}' as first_run (read_only);
create macro local(utc) as
  strftime(timezone('{zone}', timezone('UTC', utc)), '%Y-%m-%d %H:%M');
"""
_ROWS = "select count(*), count(distinct id) from both_runs.tap_cometly.contacts"
_FIRST = """
select id, coalesce(name, email), local(created_from), local(created_until)
from both_runs.tap_cometly.contacts order by created_from, id limit 1
"""
_LAST = """
select id, coalesce(name, email), local(created_from), local(created_until)
from both_runs.tap_cometly.contacts order by created_until desc, id desc limit 1
"""
_SECOND_RUN = """
select
  count(*) filter (old.id is null),
  count(*) filter (old.created_from <> new.created_from or old.created_until <> new.created_until)
from both_runs.tap_cometly.contacts as new
left join first_run.tap_cometly.contacts as old using (id)
"""
_WINDOWS = """
select local(created_from), local(created_until), count(*)
from both_runs.tap_cometly.contacts group by all order by 1
"""


def main() -> None:
    """Print the report; arguments: database, its copy from the first run, state file, time zone."""
    database, first_run, state_file, zone = sys.argv[1:]
    state = json.loads(Path(state_file).read_text(encoding="utf-8"))
    bookmark = state["singer_state"]["bookmarks"]["contacts"]["replication_key_value"]
    connection = duckdb.connect()
    connection.execute(_PREPARE.format(database=database, first_run=first_run, zone=zone))

    [(rows, ids)] = connection.execute(_ROWS).fetchall()
    _print(f"Rows           {rows:,}, with {ids:,} distinct ids")
    for title, query in (("First contact", _FIRST), ("Last contact", _LAST)):
        [(contact_id, name, since, until)] = connection.execute(query).fetchall()
        _print(f"{title:<14} {contact_id}, {name}; created from {since} to {until}")
    [(new, updated)] = connection.execute(_SECOND_RUN).fetchall()
    _print(f"Second run     {new:,} new contacts; {updated:,} updated, because of the lookback")
    _print(f"Bookmark       {bookmark}, in Meltano's state")
    _print("")

    _print("created_from  created_until  contacts")
    windows = connection.execute(_WINDOWS).fetchall()
    most = max(contacts for *_, contacts in windows)
    for since, until, contacts in windows:
        bar = "█" * round(_BAR_WIDTH * contacts / most)
        _print(f"{since[:10]:<12}  {until[:10]:<13}  {contacts:>8,} {bar}")


def _print(line: str) -> None:
    sys.stdout.write(f"   {line}".rstrip() + "\n")


if __name__ == "__main__":
    main()
