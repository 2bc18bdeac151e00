"""How often and how long the tap tries, and why: every number that is no setting stands here."""

from __future__ import annotations

CONNECT_TIMEOUT_SECONDS = 10
"""A server that takes longer to accept a connection is not there."""
READ_TIMEOUT_SECONDS = 60
"""Silence that long in an answer or a file counts as a broken connection."""

CALL_TRIES = 8
"""Requests for one API call; with the pauses below they span a restart of Cometly's servers."""
CALL_SECONDS = 300
"""Time for one API call, waits for rate limits aside: longer trouble is better reported."""

STORAGE_TRIES = 8
"""Requests in a row that bring no new byte of a file before the file is given up."""

LONGEST_PAUSE_SECONDS = 60
"""Between two tries; pauses double from one second on, each drawn at random up to that."""

RATE_LIMIT_PAUSE_SECONDS = 60
"""Wait after a 429 that does not say how long: Cometly counts by the minute."""
SHORTEST_RATE_LIMIT_PAUSE_SECONDS = 1
"""Even after a 429 that says 0."""

FIRST_POLL_SECONDS = 1
"""After its creation; an export of a quiet hour is done at once."""
POLL_SHARE = 0.25
"""Wait a quarter of an export's age before its next poll: late by a quarter at most."""
SHORTEST_POLL_SECONDS = 2.5
"""At most 24 polls a minute, and one more for each export: Cometly allows 30, and five exports."""
LONGEST_POLL_SECONDS = 15
"""An hour's export is not worth a quarter of an hour's idling."""

HEARTBEAT_SECONDS = 30
"""How often a wait is mentioned, so that an orchestrator sees that the tap lives."""

LONGEST_LINE_BYTES = 16 * 1024 * 1024
"""A contact has some hundred bytes; a line this long is no contact and would fill the memory."""
