"""Breaks one promise at a time and checks that the tests notice: `python -m tests.sabotage [WORD]`.

Each sabotage replaces a text in a copy of the repository and runs the tests meant for it. Without
WORD all are run, which takes a while; `--check` only checks that each text still exists. Tests that
fail without any sabotage are left out. Not part of CI.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
_IGNORED = shutil.ignore_patterns(
    ".git", ".venv*", ".demo", ".meltano", ".e2e", ".*_cache", ".hypothesis", "__pycache__"
)
_TIMEOUT_SECONDS = 300
"""A sabotage may make a test run forever, which counts as noticed."""


class Sabotage(NamedTuple):
    """A broken promise.

    Attributes:
        name: What is wrong.
        file: The module of `tap_cometly`, without `.py`.
        old: A text in it; its first occurrence is replaced.
        new: The replacement.
        tests: The test files meant for it, without `tests/test_` and `.py`.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str


SABOTAGES = [
    # The bookmark.
    Sabotage(
        "bookmark moves before the records are written",
        "streams",
        "            yield window, contacts\n"
        "            if self.is_incremental:\n"
        "                self._state.advance(window.end)\n"
        "                self._write_state()\n",
        "            if self.is_incremental:\n"
        "                self._state.advance(window.end)\n"
        "                self._write_state()\n"
        "            yield window, contacts\n",
        "state streams",
    ),
    Sabotage(
        "bookmark moves with each block",
        "streams",
        "                self._writer.write_lines(lines.encode(contacts, now))\n",
        "                self._writer.write_lines(lines.encode(contacts, now))\n"
        "                self._state.advance(window.end)\n"
        "                self._write_state()\n",
        "state streams",
    ),
    Sabotage(
        "bookmark follows records, as in the SDK",
        "state",
        "    def increment_state(self, *args: Any, **kwargs: Any) -> None:\n        pass",
        "    def increment_state(self, *args: Any, **kwargs: Any) -> None:\n"
        "        super().increment_state(*args, **kwargs)",
        "state streams",
    ),
    Sabotage(
        "bookmark state has the SDK's signpost",
        "state",
        "    def write_replication_key_signpost(self, *args: Any, **kwargs: Any) -> None:\n"
        "        pass",
        "    def write_replication_key_signpost(self, *args: Any, **kwargs: Any) -> None:\n"
        "        super().write_replication_key_signpost(*args, **kwargs)",
        "state streams",
    ),
    Sabotage(
        "bookmark state has the SDK's starting value",
        "state",
        "    def write_starting_replication_value(self, *args: Any, **kwargs: Any) -> None:\n"
        "        pass",
        "    def write_starting_replication_value(self, *args: Any, **kwargs: Any) -> None:\n"
        "        super().write_starting_replication_value(*args, **kwargs)",
        "state streams",
    ),
    Sabotage(
        "bookmark moves back",
        "state",
        "if self.bookmark is None or end > self.bookmark:",
        "if True:",
        "state streams",
    ),
    Sabotage(
        "bookmark that is not a date counts as none",
        "state",
        "        if self.bookmark is None:\n            allowed",
        "        if False:\n            allowed",
        "state streams",
    ),
    Sabotage(
        "bookmark stays in an empty window",
        "sync",
        "        yield export.window, _contacts(export, reader)\n",
        "        blocks = list(_contacts(export, reader))\n"
        "        if export.contacts:\n"
        "            yield export.window, iter(blocks)\n",
        "state streams",
    ),
    Sabotage(
        "FULL_TABLE moves the bookmark",
        "streams",
        "            if self.is_incremental:\n                self._state.advance",
        "            if True:\n                self._state.advance",
        "state streams",
    ),
    Sabotage(
        "FULL_TABLE starts from the bookmark",
        "streams",
        "self._state.bookmark if self.is_incremental else None",
        "self._state.bookmark",
        "state streams",
    ),
    # STATE lines and stdout.
    Sabotage(
        "STATE lines of the SDK, in mid-window",
        "state",
        "        return True\n\n    @is_flushed.setter",
        "        return False\n\n    @is_flushed.setter",
        "state streams",
    ),
    Sabotage(
        "STATE overtakes buffered records",
        "messages",
        "        self._buffer += self.format_message(message)\n",
        "        if message.type is SingerMessageType.STATE:\n"
        "            _write_all(self.format_message(message))\n"
        "            return\n"
        "        self._buffer += self.format_message(message)\n",
        "streams",
    ),
    Sabotage(
        "stdout lacks the last buffered records",
        "streams",
        "        finally:\n            self._writer.flush()\n",
        "        finally:\n            pass\n",
        "streams",
    ),
    Sabotage(
        "stdout loses the rest of a partial write",
        "messages",
        "rest = rest[written or 0 :]",
        "rest = rest[len(rest) :]",
        "signals",
    ),
    Sabotage(
        "last, smaller batch file is missing",
        "batches",
        "    if lines:\n        yield [_store",
        "    if False:\n        yield [_store",
        "streams",
    ),
    # Signals and exit codes.
    Sabotage(
        "signal interrupts a write",
        "signals",
        "        self._deferring = True\n",
        "        self._deferring = False\n",
        "signals kills",
    ),
    Sabotage(
        "signal ends the run with 0",
        "signals",
        "self.exit_code = 128 + signum",
        "self.exit_code = 0",
        "signals",
    ),
    Sabotage(
        "signal is raised only once",
        "signals",
        "            signal.setitimer(signal.ITIMER_REAL, _REPEAT_SECONDS, _REPEAT_SECONDS)\n",
        "            pass\n",
        "signals",
    ),
    Sabotage(
        "signal SIGHUP is not handled",
        "signals",
        '("SIGINT", "SIGTERM", "SIGHUP")',
        '("SIGINT", "SIGTERM")',
        "signals",
    ),
    Sabotage(
        "unexpected error ends the run with 0",
        "command",
        "return _report(_sentence(error))",
        "return _report(_sentence(error), 0)",
        "command tap",
    ),
    # Settings and catalogs.
    Sabotage(
        "settings are not checked against their schema",
        "tap",
        "check_against_schema(settings, self.config_jsonschema)",
        "pass",
        "settings",
    ),
    Sabotage(
        "unknown settings are ignored silently",
        "tap",
        "warn_about_unknown(settings, os.environ, self.config_jsonschema)",
        "pass",
        "settings command tap",
    ),
    Sabotage(
        "HTTP is allowed to any host",
        "transport",
        'parts.scheme == "http" and _is_loopback(host)',
        'parts.scheme == "http"',
        "settings client",
    ),
    Sabotage(
        "optional fields do not depend on their settings",
        "schema",
        "if config.get(setting) is not True:",
        "if False:",
        "schema tap",
    ),
    Sabotage(
        "`$schema` is emitted",
        "schema",
        'del schema["$schema"]',
        "pass",
        "schema tap streams",
    ),
    Sabotage(
        "any replication key is accepted",
        "schema",
        "        if key not in (None, REPLICATION_KEY):\n",
        "        if False:\n",
        "schema streams",
    ),
    # Windows.
    Sabotage(
        "lookback is ignored",
        "sync",
        "lookback_days=settings.lookback_days",
        "lookback_days=0",
        "state streams",
    ),
    Sabotage(
        "range ends now, not five minutes ago",
        "windows",
        "SETTLE_DELAY = timedelta(minutes=5)",
        "SETTLE_DELAY = timedelta(0)",
        "windows",
    ),
    Sabotage(
        "range ends in a repeated hour",
        "windows",
        "    return instant if stretch is None else stretch[0] - SECOND",
        "    return instant",
        "windows",
    ),
    Sabotage(
        "window starts a second after the previous one",
        "windows",
        "        self._next_start = end\n",
        "        self._next_start = end + SECOND\n",
        "windows",
    ),
    Sabotage(
        "window ends in a repeated hour",
        "windows",
        "    stretch = repeated_stretch(boundary, zone)\n    if stretch is None:",
        "    stretch = repeated_stretch(boundary, zone)\n    if True:",
        "windows",
    ),
    Sabotage(
        "window ends at midnight UTC",
        "times",
        "first_instant(datetime(day.year, day.month, day.day), zone)",
        "first_instant(datetime(day.year, day.month, day.day), UTC)",
        "windows",
    ),
    Sabotage(
        "second half starts a second late",
        "windows",
        "replace(window, start=middle, ",
        "replace(window, start=middle + SECOND, ",
        "windows",
    ),
    Sabotage(
        "first half ends a second early",
        "windows",
        "replace(window, end=middle, ",
        "replace(window, end=middle - SECOND, ",
        "windows",
    ),
    # Exports.
    Sabotage(
        "second half is not exported",
        "exports",
        "[Export(half) for half in halves]",
        "[Export(halves[0])]",
        "exports",
    ),
    Sabotage(
        "second half comes first",
        "exports",
        "[Export(half) for half in halves]",
        "[Export(half) for half in reversed(halves)]",
        "exports",
    ),
    Sabotage(
        "failed export is not retried",
        "exports",
        "if export.attempt == 1 and failure.can_retry:",
        "if False:",
        "exports",
    ),
    Sabotage(
        "failed export is polled until its time-out",
        "exports",
        'if answer.status == "failed":',
        "if False:",
        "exports",
    ),
    Sabotage(
        "export has no time-out",
        "exports",
        "if polled_at >= self._deadline(export):",
        "if False:",
        "exports",
    ),
    Sabotage(
        "one export too many is in flight",
        "exports",
        "len(self._in_flight()) < self._max_in_flight",
        "len(self._in_flight()) <= self._max_in_flight",
        "exports",
    ),
    # The API.
    Sabotage(
        "429 counts as a failed attempt",
        "client",
        "                raise RateLimited(failure.retry_after)\n",
        "                raise failure\n",
        "client",
    ),
    Sabotage(
        "optional fields are not requested",
        "client",
        "dict.fromkeys(settings.field_options, 1)",
        "dict.fromkeys((), 1)",
        "client",
    ),
    Sabotage(
        "download_url may be HTTP",
        "client",
        "    if url and not is_safe_url(url):\n",
        "    if False:\n",
        "client",
    ),
    Sabotage(
        "API key is replaced by ~/.netrc",
        "transport",
        "        self.auth = auth\n",
        "        self.auth = None\n",
        "client files",
    ),
    # Files.
    Sabotage(
        "resumed file: its length and ETag are not compared",
        "files",
        "        if length not in (None, self._length) or etag not in (None, self._etag):\n",
        "        if False:\n",
        "files",
    ),
    Sabotage(
        "resumed file: no If-Match",
        "files",
        '            headers["If-Match"] = strong_etag\n',
        "            pass\n",
        "files",
    ),
    Sabotage(
        "resumed file: skipped bytes are not compared",
        "files",
        "        if checksum != self._checksum:\n",
        "        if False:\n",
        "files",
    ),
    Sabotage(
        "resumed file: another range is accepted",
        "files",
        "        if is_rest and _first_byte(response) != self._position:\n",
        "        if False:\n",
        "files",
    ),
    Sabotage(
        "resumed file: from one byte too far",
        "files",
        'headers["Range"] = f"bytes={self._position}-"',
        'headers["Range"] = f"bytes={self._position + 1}-"',
        "files",
    ),
    Sabotage(
        "file without a last line break lacks its last line",
        "files",
        "    if rest:\n",
        "    if False:\n",
        "files",
    ),
    Sabotage(
        "file that ends too early is complete",
        "files",
        "        if self._length is not None:\n            raise RequestFailed(INTERRUPTED)\n",
        '        if self._length is not None:\n            return b""\n',
        "files",
    ),
    # Lines and secrets.
    Sabotage(
        "line with two contacts is accepted",
        "contacts",
        "not _is_one_per_line(contacts, block)",
        "not contacts",
        "contacts",
    ),
    Sabotage(
        "secrets are not hidden",
        "redaction",
        "            text = secret.sub(HIDDEN, text)\n",
        "            pass\n",
        "redaction secrets",
    ),
    Sabotage(
        "secrets are not hidden in logs",
        "redaction",
        "        REDACTOR.clean_record(record)\n",
        "",
        "redaction secrets",
    ),
]


def text_exists(sabotage: Sabotage) -> bool:
    """Whether the sabotage can still be applied."""
    module = ROOT / "tap_cometly" / f"{sabotage.file}.py"
    return module.is_file() and sabotage.old in module.read_text("utf-8")


class Copy:
    """A copy of the repository to break."""

    def __init__(self, folder: Path) -> None:
        """Copy the repository."""
        self._folder = folder / "copy"
        self._failing: dict[str, list[str]] = {}
        shutil.copytree(ROOT, self._folder, ignore=_IGNORED)

    def result(self, sabotage: Sabotage) -> str:
        """The first test that notices a sabotage, or that none does."""
        modules = [name for name in sabotage.tests.split() if self._test_file(name).is_file()]
        known = [test for module in modules for test in self._failing_anyway(module)]
        path = self._folder / "tap_cometly" / f"{sabotage.file}.py"
        original = path.read_text("utf-8")
        path.write_text(original.replace(sabotage.old, sabotage.new, 1), "utf-8")
        try:
            deselected = [f"--deselect={test}" for test in known]
            failed = self._failures(modules, "-x", *deselected, timeout=_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            return "a test that did not end"
        finally:
            path.write_text(original, "utf-8")
        by = f" (by {sabotage.tests}; {len(known)} of their tests fail anyway)"
        return failed[0] if failed else f"NOT NOTICED{by}"

    def _test_file(self, module: str) -> Path:
        return self._folder / "tests" / f"test_{module}.py"

    def _failing_anyway(self, module: str) -> list[str]:
        if module not in self._failing:
            self._failing[module] = self._failures([module])
        return self._failing[module]

    def _failures(
        self, modules: list[str], *options: str, timeout: float | None = None
    ) -> list[str]:
        files = [str(self._test_file(module)) for module in modules]
        command = [sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider"]
        environment = os.environ | {"PYTHONPATH": str(self._folder), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(  # noqa: S603
            [*command, *options, *files],
            cwd=self._folder,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            timeout=timeout,
            check=False,
        )
        failed = re.findall(r"(?m)^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout)
        if done.returncode and not failed:
            failed = [done.stdout[-2000:] + done.stderr[-2000:]]
        return failed


def main() -> int:
    """Run the sabotages whose name has a word in it; print the results.

    Returns:
        The exit code: 1 if one was not noticed or its text no longer exists.
    """
    words = [word for word in sys.argv[1:] if word != "--check"]
    chosen = [each for each in SABOTAGES if all(word in each.name for word in words)]
    problems = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = None if "--check" in sys.argv else Copy(Path(folder))
        for sabotage in chosen:
            result = "text exists"
            if not text_exists(sabotage):
                result = f"OUTDATED: its text is no longer in {sabotage.file}.py"
            elif copy:
                result = copy.result(sabotage)
            problems += result.startswith(("OUTDATED", "NOT"))
            sys.stdout.write(f"{sabotage.name}: {result}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(chosen)} sabotages, {problems} problems\n")
    return min(problems, 1)


if __name__ == "__main__":
    sys.exit(main())
