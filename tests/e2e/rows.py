"""What the rows of a destination have to be, and what they are."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator import Contact
    from tests.e2e.destinations import Destination


def fields(contact: Contact, *more: str) -> dict[str, Any]:
    """What a row of a contact has to hold.

    Args:
        contact: The contact.
        *more: Fields besides those that are always there.
    """
    names = ("id", "email", "name", "phone", "location", *more)
    values = {name: getattr(contact, name) for name in names}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def expected(destination: Destination, contacts: list[Contact], *more: str) -> list[dict[str, Any]]:
    """The rows of these contacts, by id, without their windows.

    Args:
        destination: Where.
        contacts: The contacts.
        *more: Fields besides those that are always there.
    """
    rows = sorted((fields(one, *more) for one in contacts), key=lambda row: row["id"])
    return [
        {name: destination.kept(v) if isinstance(v, str) else v for name, v in row.items()}
        for row in rows
    ]


def loaded(destination: Destination) -> list[dict[str, Any]]:
    """The rows that are there, by id, without their windows.

    Args:
        destination: Where.
    """
    windows = {"created_from", "created_until"}
    return [
        {name: value for name, value in row.items() if name not in windows}
        for row in destination.rows()
    ]


def until(end: str, contacts: list[Contact]) -> list[Contact]:
    """Those created until then.

    Args:
        end: When, as in records.
        contacts: All of them.
    """
    return [one for one in contacts if one.created_at <= datetime.fromisoformat(end)]
