"""The errors a user can act on: each is one sentence and ends the run with a non-zero exit code."""

from __future__ import annotations

from tap_cometly.redaction import HIDDEN


class TapError(Exception):
    """An expected error that ends the run.

    The message is one sentence for the user: what, where, why, what to do. It never holds a secret
    or a contact's data.
    """


class SettingError(TapError):
    """A setting, or the bookmark in the state, has a value that the tap does not accept."""

    def __init__(self, name: str, value: object, allowed: str, kind: str = "Setting") -> None:
        """Name the setting, its value and what is allowed.

        Args:
            name: The setting's name.
            value: Its value; `HIDDEN` for one that may hold a secret.
            allowed: What is allowed, as the end of the sentence "it must be …".
            kind: What it is, if not a setting.
        """
        shown = value if value is HIDDEN else repr(str(value))
        super().__init__(f"{kind} '{name}' is invalid: {shown}; it must be {allowed}.")


class MissingSettingError(TapError):
    """A required setting has no value."""

    def __init__(self, name: str) -> None:
        """Name the setting and the places where it can be set."""
        setting, _, part = name.partition(".")
        where = (
            f"add it to '{setting}'"
            if part
            else "set it in the --config file, in the environment as "
            f"TAP_COMETLY_{name.upper()} (with --config ENV), or in Meltano"
        )
        super().__init__(f"Setting '{name}' is missing; {where}.")


class CometlyError(TapError):
    """Cometly refused a request, or its response was not as documented."""


class ExportError(TapError):
    """An export could not be read completely; the message names it and its window."""


class FileError(TapError):
    """An export's file ended early, changed, failed its checksum or could not be downloaded."""


class UrlRefused(FileError):  # noqa: N818 - as urllib3 and requests name theirs
    """The storage refused several download URLs in a row.

    Attributes:
        reason: What happened, without advice.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; check the proxy, if there is one, then rerun the tap")
        self.reason = reason


class LineError(TapError):
    """A line of an export's file is not a contact."""
