"""The contacts of a simulated Space: listed, or generated from a seed."""
# ruff: noqa: RUF001 - names in many scripts

from __future__ import annotations

import heapq
import math
import random
import sys
from array import array
from bisect import bisect_left, bisect_right
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Sequence

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_HOUR = 3_600_000_000  # microseconds

DEFAULT_SINCE = datetime(2024, 1, 1, tzinfo=UTC)
DEFAULT_UNTIL = datetime(2026, 1, 1, tzinfo=UTC)


class Contact(msgspec.Struct, frozen=True, gc=False):
    """A contact of a Space.

    Attributes:
        id: Cometly's id of the contact.
        created_at: Aware creation time. Exports filter by it but do not contain it.
        email: The main email address.
        name: The full name, in any script.
        phone: The phone number in international format.
        location: The two-letter country code.
        comet_tokens: Up to five tokens, newest first.
        emails: All addresses, including those of merged profiles; the main one first.
    """

    id: int
    created_at: datetime
    email: str | None = None
    name: str | None = None
    phone: str | None = None
    location: str | None = None
    comet_tokens: Sequence[str | None] | None = ()
    emails: Sequence[str | None] | None = ()


class Population:
    """Contacts with unique ids, by creation time; immutable, so exports can keep a snapshot."""

    def __init__(self, contacts: Iterable[Contact] = ()) -> None:
        ordered = sorted(contacts, key=_created_at)
        ids = frozenset(contact.id for contact in ordered)
        if len(ids) != len(ordered):
            message = "two contacts have the same id"
            raise ValueError(message)
        self._times = array("q", (_microseconds(contact.created_at) for contact in ordered))
        self._ids: Container[int] = ids
        self._contact: Callable[[int], Contact] = ordered.__getitem__
        self._later = _Later({}, [], [])

    @classmethod
    def generate(
        cls,
        size: int,
        seed: int = 0,
        since: datetime = DEFAULT_SINCE,
        until: datetime = DEFAULT_UNTIL,
    ) -> Population:
        """Generate contacts: the same arguments give the same contacts.

        Only times and random bits are stored, and contacts are created on demand, so a Space of
        millions uses little memory.

        Args:
            size: Number of contacts; their ids are 1 to `size`.
            seed: Any integer.
            since: Earliest possible creation time, aware.
            until: End of the creation times (exclusive), aware; more contacts are created near it.

        Raises:
            ValueError: `until` is not after `since`.
        """
        if until <= since:
            message = "until must be after since"
            raise ValueError(message)
        rng = random.Random(seed)
        times = _creation_times(size, rng, _microseconds(since), _microseconds(until))
        ids = _mostly_ascending(size, rng)
        bits = array("Q", rng.randbytes(8 * size))
        if sys.byteorder == "big":
            bits.byteswap()

        def contact(index: int) -> Contact:
            return _make_contact(ids[index], times[index], bits[index])

        population = cls()
        population._times = times
        population._ids = range(1, size + 1)
        population._contact = contact
        return population

    def plus(self, contacts: Iterable[Contact]) -> Population:
        """A population with these contacts added; they replace those with the same id.

        Raises:
            TypeError: A `created_at` has no time zone.
        """
        by_id = self._later.by_id | {contact.id: contact for contact in contacts}
        ordered = sorted(by_id.values(), key=_created_at)
        times = [_microseconds(contact.created_at) for contact in ordered]
        population = Population()
        population._times, population._ids, population._contact = (
            self._times,
            self._ids,
            self._contact,
        )
        population._later = _Later(by_id, ordered, times)
        return population

    def between(
        self, start: datetime, end: datetime, *, end_inclusive: bool = False
    ) -> Iterator[Contact]:
        """The contacts created from `start` to `end`, in order of creation."""
        find_end = bisect_right if end_inclusive else bisect_left
        first, last = _microseconds(start), _microseconds(end)
        indexes = range(bisect_left(self._times, first), find_end(self._times, last))
        contacts = map(self._contact, indexes)
        by_id, ordered, times = self._later
        if not by_id:
            return contacts
        unchanged = (contact for contact in contacts if contact.id not in by_id)
        later = ordered[bisect_left(times, first) : find_end(times, last)]
        return heapq.merge(unchanged, later, key=_created_at)

    def count(self, start: datetime, end: datetime) -> int:
        """The number of contacts created from `start` to `end` (exclusive)."""
        if self._later.by_id:
            return sum(1 for _ in self.between(start, end))
        first, last = (bisect_left(self._times, _microseconds(time)) for time in (start, end))
        return max(last - first, 0)

    @property
    def last_created_at(self) -> datetime | None:
        """The latest creation time in UTC; None without contacts."""
        newest = max([*self._times[-1:], *self._later.times[-1:]], default=None)
        return None if newest is None else _EPOCH + newest * _MICROSECOND

    def __len__(self) -> int:  # noqa: D105
        new = sum(number not in self._ids for number in self._later.by_id)
        return len(self._times) + new

    def __iter__(self) -> Iterator[Contact]:
        """All contacts, in order of creation."""
        return self.between(
            datetime.min.replace(tzinfo=UTC),
            datetime.max.replace(tzinfo=UTC),
            end_inclusive=True,
        )


class _Later(NamedTuple):
    """Contacts that were added or replaced later."""

    by_id: dict[int, Contact]
    ordered: list[Contact]
    times: list[int]


def _created_at(contact: Contact) -> datetime:
    return contact.created_at


def _microseconds(instant: datetime) -> int:
    return (instant - _EPOCH) // _MICROSECOND


def _creation_times(size: int, rng: random.Random, since: int, until: int) -> array[int]:
    """Sorted times: three times as dense at the end as at the start, sparse at night."""
    hours = range(since, until, _HOUR)
    weights = [
        (1 + 2 * number / len(hours))
        * (1.1 - math.cos(hour % (24 * _HOUR) / (24 * _HOUR) * math.tau))
        for number, hour in enumerate(hours)
    ]
    # Rounding the running sum instead of each hour gives exactly `size` times.
    scale = size / sum(weights)
    times = array("q")
    expected = 0.0
    for hour, weight in zip(hours, weights, strict=True):
        expected += weight * scale
        length = min(_HOUR, until - hour)
        missing = round(expected) - len(times)
        times.extend(sorted(hour + int(rng.random() * length) for _ in range(missing)))
    # One in four on a whole second, because windows start and end on whole seconds.
    for index in range(0, size, 4):
        times[index] = max(since, times[index] // 1_000_000 * 1_000_000)
    return array("q", sorted(times))


def _mostly_ascending(size: int, rng: random.Random) -> array[int]:
    """Ids in ascending order, but one in eight is swapped with one of the next eight."""
    ids = array("q", range(1, size + 1))
    for first in range(0, size - 8, 8):
        second = first + rng.randrange(1, 9)
        ids[first], ids[second] = ids[second], ids[first]
    return ids


def _make_contact(number: int, created_at: int, bits: int) -> Contact:
    """Make a contact from 64 random bits."""
    country, prefix, names = _LOCALES[bits & 7]
    mailbox, full_name = names[bits >> 3 & 63]
    name: str | None = full_name
    if not bits >> 9 & 15:
        name = None
    elif not bits >> 13 & 31:
        name = full_name + _UNUSUAL_SUFFIXES[bits >> 18 & 15]
    email = f"{mailbox}{number}@{_DOMAINS[bits >> 22 & 7]}" if bits >> 25 & 31 else None
    emails = [email] if email else []
    if not bits >> 30 & 7:
        emails.extend(
            f"{mailbox}.{number}.{old}@{_DOMAINS[bits >> 33 + old & 7]}"
            for old in range(1 + (bits >> 33 & 1))
        )
    return Contact(
        number,
        _EPOCH + timedelta(microseconds=created_at),
        email,
        name,
        f"{prefix}{bits >> 34 & 0xFFFFFFF:09d}" if bits >> 62 else None,
        country if bits >> 58 & 15 else None,
        [f"ct_{bits * factor & 0xFFFFFFFFFFFFFFFF:016x}" for factor in _FACTORS[bits >> 55 & 7]],
        emails,
    )


_DOMAINS = (
    "example.com",
    "example.org",
    "example.net",
    "mail.example",
    "post.example",
    "shop.example.com",
    "büro.example",
    "web.example.org",
)
_UNUSUAL_SUFFIXES = (
    " 🦊",
    " 👩‍🚀🇪🇺",
    "\u2028Jr.",
    "\u2029",
    "\u0085III",
    ' "Ace"',
    " \\ Söhne",
    "\tTab",
    "\nSecond Line",
    "\r\n",
    " O’Neil",
    " e\u0301",
    " </script>&amp;",
    "\u200f",
    ' {"id":0}',
    "\ufeff",
)
# Odd factors make the tokens of a contact differ; two in eight contacts have none.
_ODD_NUMBERS = (
    0x9E3779B97F4A7C15,
    0xBF58476D1CE4E5B9,
    0x94D049BB133111EB,
    0xD6E8FEB86659FD93,
    0xA0761D6478BD642F,
)
_FACTORS = tuple(_ODD_NUMBERS[:count] for count in (0, 0, 1, 1, 2, 3, 4, 5))


def _locale(
    country: str, prefix: str, mailboxes: str, firsts: str, lasts: str
) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    """Pair eight first names (and their mailboxes) with eight last names."""
    names = tuple(
        (mailbox, f"{first} {last}")
        for mailbox, first in zip(mailboxes.split(), firsts.split(), strict=True)
        for last in lasts.split()
    )
    return country, prefix, names


_LOCALES = (
    _locale(
        "US",
        "+1",
        "john jane mary liam noah emma ava zoe",
        "John Jane Mary Liam Noah Emma Ava Zoë",
        "Doe Smith O'Brien Johnson Lee Garcia Nguyen Williams-Jones",
    ),
    _locale(
        "DE",
        "+49",
        "juergen anna soeren bjoern greta lukas mia karl",
        "Jürgen Anna Sören Björn Greta Lukas Mia Karl",
        "Müller Groß Schäfer Weiß Krüger Vogel Jäger Fuchs",
    ),
    _locale(
        "BR",
        "+55",
        "joao maria jose conceicao luis ines antonio flavia",
        "João María José Conceição Luís Inês António Flávia",
        "Silva Gonçalves Araújo Muñoz Ibáñez Peña Assunção Simões",
    ),
    _locale(
        "JP",
        "+81",
        "taro hanako kenji yuki sakura haruto aoi ren",
        "太郎 花子 健二 雪 さくら 陽翔 葵 蓮",
        "佐藤 鈴木 高橋 田中 渡辺 伊藤 山本 中村",
    ),
    _locale(
        "UA",
        "+380",
        "olena taras iryna andriy yuliya petro ivan oksana",
        "Олена Тарас Ірина Андрій Юлія Петро Іван Оксана",
        "Шевченко Коваль Мельник Бондар Ткаченко Кравець Гончар Лисенко",
    ),
    _locale(
        "EG",
        "+20",
        "ahmed fatima omar layla youssef nour karim salma",
        "أحمد فاطمة عمر ليلى يوسف نور كريم سلمى",
        "حسن علي منصور خليل إبراهيم سعيد فاروق زكي",
    ),
    _locale(
        "IN",
        "+91",
        "aarav priya rohan ananya vikram neha arjun kavya",
        "आरव प्रिया रोहन अनन्या विक्रम नेहा अर्जुन काव्या",
        "शर्मा पटेल सिंह गुप्ता कुमार वर्मा मेहता जोशी",
    ),
    _locale(
        "GR",
        "+30",
        "giorgos eleni nikos sofia dimitris katerina kostas anna",
        "Γιώργος Ελένη Νίκος Σοφία Δημήτρης Κατερίνα Κώστας Άννα",
        "Παπαδόπουλος Γεωργίου Νικολάου Βλάχος Ιωάννου Οικονόμου Μακρής Αντωνίου",
    ),
)
