"""A tap that is killed repeatedly, at random moments, still writes every contact.

`KILLS=30 python -m pytest tests/test_kills.py` kills it more often. The tap runs in real processes;
`test_nothing_lost.py` draws many more moments and faults, but runs it in the test's process.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from simulator import Population, Simulator, Space
from tests.conftest import API_KEY, DAY, JUNE

if TYPE_CHECKING:
    from pathlib import Path

KILLS = int(os.environ.get("KILLS", "4"))
UNTIL = datetime(2024, 6, 29, tzinfo=UTC)
PEOPLE = Population.generate(6_000, since=JUNE, until=UNTIL)


def run_and_kill(folder: Path, signum: signal.Signals | None, after_seconds: float) -> bytes:
    """Run the tap; send the signal some time after its first line, or check that it succeeds."""
    command = [sys.executable, "-m", "tap_cometly", "--config=config.json", "--state=state.json"]
    with subprocess.Popen(  # noqa: S603
        command, bufsize=0, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout
        written = process.stdout.readline()
        try:
            rest, _ = process.communicate(timeout=None if signum is None else after_seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signum or signal.SIGKILL)
            rest, _ = process.communicate()
    assert signum is not None or process.returncode == 0
    return written + rest


@pytest.mark.slow
def test_no_contact_is_missing_after_repeated_kills(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    moments = random.Random(seed)  # noqa: S311 - shown when the test fails
    found: set[int] = set()
    state: dict[str, Any] = {}
    rules: dict[str, Any] = {
        **dict.fromkeys(("queued_seconds", "processing_seconds"), 0),
        **dict.fromkeys(("creates_per_minute", "polls_per_minute")),
    }
    with Simulator(Space(PEOPLE, api_key=API_KEY, **rules)) as simulator:
        config = {
            "api_key": API_KEY,
            "api_url": simulator.api_url,
            "start_date": JUNE.isoformat(),
            "end_date": UNTIL.isoformat(),
            "window_days": max((UNTIL - JUNE) / DAY / KILLS, 1),
            "max_concurrent_exports": 1,
            "lookback_days": 0,
        }
        (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
        for number in range(KILLS + 1):
            (tmp_path / "state.json").write_text(json.dumps(state), "utf-8")
            signals = (signal.SIGTERM, signal.SIGKILL, None)
            signum = signals[number % 2 if number < KILLS else 2]
            written = run_and_kill(tmp_path, signum, moments.uniform(0, 2))
            assert signum is signal.SIGKILL or written[-1:] in {b"", b"\n"}
            for line in written.split(b"\n")[:-1]:
                message = json.loads(line)
                if message["type"] == "RECORD":
                    found.add(message["record"]["id"])
                if message["type"] == "STATE":
                    state = message["value"]

    assert found == {person.id for person in PEOPLE}, f"with the random seed {seed}"
    assert state["bookmarks"]["contacts"]["replication_key_value"] == UNTIL.isoformat()
