"""The errors a user can act on: each is one sentence, and ends the run with a non-zero exit."""

from __future__ import annotations


class TapError(Exception):
    """Something foreseeable that ends the run.

    Its text is one sentence for a person: what, where, why, what to do. It never holds a secret
    or a contact's data.
    """


class _Phrase(str):
    """Stands where a setting's value would, and is shown as it is."""

    __slots__ = ()


MISSING = _Phrase("missing")
HIDDEN = _Phrase("not usable (its value is not shown)")


class SettingError(TapError):
    """A setting, or the bookmark in the state, has a value that the tap does not take."""

    def __init__(self, name: str, value: object, allowed: str, kind: str = "Setting") -> None:
        """Name the setting, its value and what is allowed.

        Args:
            name: The setting's name.
            value: What it was set to; `HIDDEN` for what may be a secret, `MISSING` for nothing.
            allowed: What the setting takes, as the end of the sentence "it has to be …".
            kind: What it is, where it is no setting.
        """
        shown = value if isinstance(value, _Phrase) else repr(str(value))
        if value is MISSING:
            variable = f"TAP_COMETLY_{name.upper()}"
            allowed += (
                f"; put it into the file of --config, or as {variable} into the environment "
                "(for --config ENV) or Meltano's .env"
            )
        super().__init__(f"{kind} '{name}' is {shown}; it has to be {allowed}.")


class CometlyError(TapError):
    """Cometly or its file storage refused, or did not answer as it promises."""


class ExportError(TapError):
    """An export could not be read whole: names the export and its window."""


class FileError(TapError):
    """An export's file ended early, changed, failed its checksum or could not be fetched."""


class UrlRefused(FileError):  # noqa: N818 - as urllib3 and requests name theirs
    """The storage refused fresh download URLs of an export, three in a row."""


class LineError(TapError):
    """A line of an export's file is not a contact."""
