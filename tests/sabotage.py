"""Inserts one bug at a time and checks that tests fail: `python -m tests.sabotage [WORD]`.

Each bug replaces a text in a copy of the repository; then the tests for that bug are run, except
those that fail without it. WORD selects bugs by name; all of them take a while. `--check` only
checks that the replaced texts still exist. Not part of CI.
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
"""A test that runs longer counts as failed, as some bugs cause endless loops."""


class Bug(NamedTuple):
    """A bug to insert.

    Attributes:
        name: What the bug does.
        file: The module of `tap_cometly`, without `.py`.
        old: A text in it; its first occurrence is replaced.
        new: The replacement.
        tests: The test files that must notice it, without `tests/test_` and `.py`.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str


BUGS = [
    # The bookmark.
    Bug(
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
    Bug(
        "bookmark moves with each block",
        "streams",
        "                self._writer.write_lines(lines.encode(contacts, now))\n",
        "                self._writer.write_lines(lines.encode(contacts, now))\n"
        "                self._state.advance(window.end)\n"
        "                self._write_state()\n",
        "state streams",
    ),
    Bug(
        "bookmark follows records, as in the SDK",
        "state",
        "    def increment_state(self, *args: Any, **kwargs: Any) -> None:\n        pass",
        "    def increment_state(self, *args: Any, **kwargs: Any) -> None:\n"
        "        super().increment_state(*args, **kwargs)",
        "state streams",
    ),
    Bug(
        "bookmark state has the SDK's signpost",
        "state",
        "    def write_replication_key_signpost(self, *args: Any, **kwargs: Any) -> None:\n"
        "        pass",
        "    def write_replication_key_signpost(self, *args: Any, **kwargs: Any) -> None:\n"
        "        super().write_replication_key_signpost(*args, **kwargs)",
        "state streams",
    ),
    Bug(
        "bookmark state has the SDK's starting value",
        "state",
        "    def write_starting_replication_value(self, *args: Any, **kwargs: Any) -> None:\n"
        "        pass",
        "    def write_starting_replication_value(self, *args: Any, **kwargs: Any) -> None:\n"
        "        super().write_starting_replication_value(*args, **kwargs)",
        "state streams",
    ),
    Bug(
        "bookmark moves back",
        "state",
        "if self.bookmark is None or end > self.bookmark:",
        "if True:",
        "state streams",
    ),
    Bug(
        "bookmark that is not a date counts as none",
        "state",
        "        if self.bookmark is None:\n            allowed",
        "        if False:\n            allowed",
        "state streams",
    ),
    Bug(
        "bookmark stays in an empty window",
        "sync",
        "        yield export.window, _contacts(export, reader)\n",
        "        blocks = list(_contacts(export, reader))\n"
        "        if export.contacts:\n"
        "            yield export.window, iter(blocks)\n",
        "state streams",
    ),
    Bug(
        "FULL_TABLE moves the bookmark",
        "streams",
        "            if self.is_incremental:\n                self._state.advance",
        "            if True:\n                self._state.advance",
        "state streams",
    ),
    Bug(
        "FULL_TABLE starts from the bookmark",
        "tap",
        "isinstance(stream, ContactsStream) and stream.is_incremental",
        "isinstance(stream, ContactsStream)",
        "state streams",
    ),
    # STATE lines and stdout.
    Bug(
        "SDK writes STATE lines within a window",
        "state",
        "        return True\n\n    @is_flushed.setter",
        "        return False\n\n    @is_flushed.setter",
        "state streams",
    ),
    Bug(
        "STATE overtakes buffered records",
        "messages",
        "        self._buffer += self.format_message(message)\n",
        "        if message.type is SingerMessageType.STATE:\n"
        "            _write_all(self.format_message(message))\n"
        "            return\n"
        "        self._buffer += self.format_message(message)\n",
        "streams",
    ),
    Bug(
        "stdout lacks the last buffered records",
        "streams",
        "        finally:\n            self._writer.flush()\n",
        "        finally:\n            pass\n",
        "streams tap",
    ),
    Bug(
        "rest of a partial write to stdout is dropped",
        "messages",
        "done += written or 0",
        "done = len(lines)",
        "signals",
    ),
    Bug(
        "last, smaller batch file is missing",
        "batches",
        "    if lines:\n        yield [_store",
        "    if False:\n        yield [_store",
        "streams",
    ),
    # Signals and exit codes.
    Bug(
        "signal interrupts a write",
        "signals",
        "        self._deferring = True\n",
        "        self._deferring = False\n",
        "signals kills",
    ),
    Bug(
        "signal exits with 0",
        "signals",
        "self.exit_code = 128 + signum",
        "self.exit_code = 0",
        "signals",
    ),
    Bug(
        "signal is raised only once",
        "signals",
        "            signal.setitimer(signal.ITIMER_REAL, _REPEAT_SECONDS, _REPEAT_SECONDS)\n",
        "            pass\n",
        "signals",
    ),
    Bug(
        "signal SIGHUP is not handled",
        "signals",
        '("SIGINT", "SIGTERM", "SIGHUP")',
        '("SIGINT", "SIGTERM")',
        "signals",
    ),
    Bug(
        "unexpected error exits with 0",
        "command",
        "return _report(_sentence(error))",
        "return _report(_sentence(error), 0)",
        "command tap",
    ),
    # Settings and catalogs.
    Bug(
        "settings are not checked against their schema",
        "tap",
        "check_against_schema(settings, self.config_jsonschema)",
        "pass",
        "settings",
    ),
    Bug(
        "unknown settings are ignored silently",
        "tap",
        "warn_about_unknown(config or {}, os.environ, self.config_jsonschema)",
        "pass",
        "settings command tap",
    ),
    Bug(
        "HTTP is allowed to any host",
        "transport",
        'parts.scheme == "http" and _is_loopback(host)',
        'parts.scheme == "http"',
        "settings client",
    ),
    Bug(
        "optional fields do not depend on their settings",
        "schema",
        "if config.get(setting) is not True:",
        "if False:",
        "schema tap",
    ),
    Bug(
        "`$schema` is emitted",
        "schema",
        'del schema["$schema"]',
        "pass",
        "schema tap streams",
    ),
    Bug(
        "any replication key is accepted",
        "schema",
        "        if key not in (None, REPLICATION_KEY):\n",
        "        if False:\n",
        "schema streams",
    ),
    # Windows.
    Bug(
        "lookback is ignored",
        "sync",
        "lookback_days=settings.lookback_days",
        "lookback_days=0",
        "state streams",
    ),
    Bug(
        "range ends now, not five minutes ago",
        "windows",
        "SETTLE_DELAY = timedelta(minutes=5)",
        "SETTLE_DELAY = timedelta(0)",
        "windows",
    ),
    Bug(
        "range ends in a repeated hour",
        "windows",
        "    return instant if stretch is None else stretch[0] - SECOND",
        "    return instant",
        "windows",
    ),
    Bug(
        "window starts a second after the previous one",
        "windows",
        "        self._next_start = end\n",
        "        self._next_start = end + SECOND\n",
        "windows",
    ),
    Bug(
        "window ends in a repeated hour",
        "windows",
        "    stretch = repeated_stretch(boundary, zone)\n    if stretch is None:",
        "    stretch = repeated_stretch(boundary, zone)\n    if True:",
        "windows",
    ),
    Bug(
        "window ends at midnight UTC",
        "times",
        "first_instant(datetime(day.year, day.month, day.day), zone)",
        "first_instant(datetime(day.year, day.month, day.day), UTC)",
        "windows",
    ),
    Bug(
        "second half starts a second late",
        "windows",
        "replace(window, start=middle, ",
        "replace(window, start=middle + SECOND, ",
        "windows",
    ),
    Bug(
        "first half ends a second early",
        "windows",
        "replace(window, end=middle, ",
        "replace(window, end=middle - SECOND, ",
        "windows",
    ),
    # Exports.
    Bug(
        "second half is not exported",
        "exports",
        "[Export(half) for half in halves]",
        "[Export(halves[0])]",
        "exports",
    ),
    Bug(
        "second half comes first",
        "exports",
        "[Export(half) for half in halves]",
        "[Export(half) for half in reversed(halves)]",
        "exports",
    ),
    Bug(
        "failed export is not retried",
        "exports",
        "if export.attempt == 1 and failure.can_retry:",
        "if False:",
        "exports",
    ),
    Bug(
        "failed export is polled until its timeout",
        "exports",
        'if answer.status == "failed":',
        "if False:",
        "exports",
    ),
    Bug(
        "export has no timeout",
        "exports",
        "if polled_at >= self._deadline(export):",
        "if False:",
        "exports",
    ),
    Bug(
        "one export too many is in flight",
        "exports",
        "len(self._in_flight()) < self._max_in_flight",
        "len(self._in_flight()) <= self._max_in_flight",
        "exports",
    ),
    # The API.
    Bug(
        "429 counts as a failed attempt",
        "client",
        "                raise RateLimited(failure.retry_after)\n",
        "                raise failure\n",
        "client",
    ),
    Bug(
        "optional fields are not requested",
        "client",
        "dict.fromkeys(settings.field_options, 1)",
        "dict.fromkeys((), 1)",
        "client",
    ),
    Bug(
        "download_url may be HTTP",
        "client",
        "    if url and not is_safe_url(url):\n",
        "    if False:\n",
        "client",
    ),
    Bug(
        "API key is replaced by ~/.netrc",
        "transport",
        "        self.auth = auth\n",
        "        self.auth = None\n",
        "client files",
    ),
    # Files.
    Bug(
        "resumed file: its length and ETag are not compared",
        "files",
        "        if length not in (None, self._length) or etag not in (None, self._etag):\n",
        "        if False:\n",
        "files",
    ),
    Bug(
        "resumed file: no If-Match",
        "files",
        '            headers["If-Match"] = strong_etag\n',
        "            pass\n",
        "files",
    ),
    Bug(
        "resumed file: skipped bytes are not compared",
        "files",
        "        if checksum != self._checksum:\n",
        "        if False:\n",
        "files",
    ),
    Bug(
        "resumed file: another range is accepted",
        "files",
        "        if is_rest and _first_byte(response) != self._position:\n",
        "        if False:\n",
        "files",
    ),
    Bug(
        "resumed file: starts one byte late",
        "files",
        'headers["Range"] = f"bytes={self._position}-"',
        'headers["Range"] = f"bytes={self._position + 1}-"',
        "files",
    ),
    Bug(
        "file without a last line break lacks its last line",
        "files",
        "    if rest:\n",
        "    if False:\n",
        "files",
    ),
    Bug(
        "file that ends too early is complete",
        "files",
        "        if self._length is not None:\n            raise RequestFailed(INTERRUPTED)\n",
        '        if self._length is not None:\n            return b""\n',
        "files",
    ),
    # Lines and secrets.
    Bug(
        "line with two contacts is accepted",
        "contacts",
        "not _is_one_per_line(contacts, block)",
        "not contacts",
        "contacts",
    ),
    Bug(
        "secrets are not hidden",
        "redaction",
        "            text = secret.sub(HIDDEN, text)\n",
        "            pass\n",
        "secrets",
    ),
    Bug(
        "secrets are not hidden in logs",
        "redaction",
        "        REDACTOR.clean_record(record)\n",
        "",
        "secrets",
    ),
]


def text_exists(bug: Bug) -> bool:
    """Whether the text that the bug replaces still exists."""
    module = ROOT / "tap_cometly" / f"{bug.file}.py"
    return module.is_file() and bug.old in module.read_text("utf-8")


class Copy:
    """A copy of the repository, to insert bugs into."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "copy"
        self._failing: dict[str, list[str]] = {}
        shutil.copytree(ROOT, self._folder, ignore=_IGNORED)

    def result(self, bug: Bug) -> str:
        """The first test that fails because of a bug, or a note that none does."""
        modules = [name for name in bug.tests.split() if self._test_file(name).is_file()]
        known = [test for module in modules for test in self._failing_without_bug(module)]
        path = self._folder / "tap_cometly" / f"{bug.file}.py"
        original = path.read_text("utf-8")
        path.write_text(original.replace(bug.old, bug.new, 1), "utf-8")
        try:
            deselected = [f"--deselect={test}" for test in known]
            failed = self._failures(modules, "-x", *deselected, timeout=_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            return "a test timed out"
        finally:
            path.write_text(original, "utf-8")
        by = f"by {bug.tests}; {len(known)} of their tests fail without the bug"
        return failed[0] if failed else f"NOT NOTICED ({by})"

    def _test_file(self, module: str) -> Path:
        return self._folder / "tests" / f"test_{module}.py"

    def _failing_without_bug(self, module: str) -> list[str]:
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
    """Insert the bugs whose names contain all words; print the results.

    Returns:
        The exit code: 1 if a bug was not noticed or its text no longer exists.
    """
    words = [word for word in sys.argv[1:] if word != "--check"]
    chosen = [each for each in BUGS if all(word in each.name for word in words)]
    problems = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = None if "--check" in sys.argv else Copy(Path(folder))
        for bug in chosen:
            result = "text exists"
            if not text_exists(bug):
                result = f"OUTDATED: its text is no longer in {bug.file}.py"
            elif copy:
                result = copy.result(bug)
            problems += result.startswith(("OUTDATED", "NOT"))
            sys.stdout.write(f"{bug.name}: {result}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(chosen)} sabotages, {problems} problems\n")
    return min(problems, 1)


if __name__ == "__main__":
    sys.exit(main())
