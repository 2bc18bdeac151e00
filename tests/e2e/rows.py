"""Expected and loaded rows."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator import Contact
    from tests.e2e.destinations import Destination


def fields(contact: Contact, *more: str) -> dict[str, Any]:
    """The expected row of a contact."""
    names = ("id", "email", "name", "phone", "location", *more)
    values = {name: getattr(contact, name) for name in names}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def expected(destination: Destination, contacts: list[Contact], *more: str) -> list[dict[str, Any]]:
    """The expected rows of contacts, by id, without their windows."""
    rows = sorted((fields(one, *more) for one in contacts), key=lambda row: row["id"])
    return [
        {name: destination.as_stored(v) if isinstance(v, str) else v for name, v in row.items()}
        for row in rows
    ]


def loaded(destination: Destination) -> list[dict[str, Any]]:
    """The loaded rows, by id, without their windows."""
    windows = {"created_from", "created_until"}
    return [
        {name: value for name, value in row.items() if name not in windows}
        for row in destination.rows()
    ]


def until(end: str, contacts: list[Contact]) -> list[Contact]:
    """The contacts created up to a time."""
    return [one for one in contacts if one.created_at <= datetime.fromisoformat(end)]
