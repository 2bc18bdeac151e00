"""The people of a simulated Space: given ones, or any number made from a seed."""
# ruff: noqa: RUF001 - people write their names in their own scripts

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
    """One contact of a Space.

    Attributes:
        id: Cometly's number of the contact.
        created_at: When it was created: an aware instant, to the microsecond. Exports filter by it
            and never show it.
        email: The main e-mail address.
        name: The full name, in any script.
        phone: The phone number, international form.
        location: The country, as its two letters.
        comet_tokens: Up to five tokens, newest first.
        emails: All addresses, those of merged profiles included; the main one first.
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
    """Contacts by creation time; immutable, so an export can keep the one it saw."""

    def __init__(self, contacts: Iterable[Contact] = ()) -> None:
        """Hold these contacts.

        Args:
            contacts: In any order, each with an id of its own.

        Raises:
            ValueError: Two contacts have the same id.
            TypeError: A `created_at` has no time zone.
        """
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
        """Make people from a seed: the same arguments, the same people.

        Only their times and dice are kept; a contact is made when it is asked for, so a Space of
        millions is cheap.

        Args:
            size: How many; their ids are 1 to this.
            seed: Any integer.
            since: Earliest creation, an aware instant.
            until: Creations are before this aware instant. Later ones are denser: the Space grows.

        Returns:
            The population.

        Raises:
            ValueError: `until` is not after `since`.
        """
        if until <= since:
            message = "until must be after since"
            raise ValueError(message)
        chance = random.Random(seed)
        times = _creation_times(size, chance, _microseconds(since), _microseconds(until))
        ids = _mostly_rising(size, chance)
        dice = array("Q", chance.randbytes(8 * size))
        if sys.byteorder == "big":
            dice.byteswap()

        def contact(index: int) -> Contact:
            return _person(ids[index], times[index], dice[index])

        population = cls()
        population._times = times
        population._ids = range(1, size + 1)
        population._contact = contact
        return population

    def plus(self, contacts: Iterable[Contact]) -> Population:
        """Give the population with these contacts added.

        Args:
            contacts: New ones; a contact whose id is known replaces the known one.

        Returns:
            Another population; this one stays as it is.

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
        """Give the contacts created between two instants, in order of creation.

        Args:
            start: Aware instant, included.
            end: Aware instant.
            end_inclusive: Whether a creation at the very microsecond of `end` belongs to it.

        Returns:
            The contacts, made while one iterates.
        """
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

    @property
    def last_created_at(self) -> datetime | None:
        """The newest creation, an instant in UTC; None if nobody is here."""
        newest = max([*self._times[-1:], *self._later.times[-1:]], default=None)
        return None if newest is None else _EPOCH + newest * _MICROSECOND

    def __len__(self) -> int:
        """How many contacts there are."""
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
    """Contacts added to or changed in a population, with their order."""

    by_id: dict[int, Contact]
    ordered: list[Contact]
    times: list[int]


def _created_at(contact: Contact) -> datetime:
    return contact.created_at


def _microseconds(instant: datetime) -> int:
    return (instant - _EPOCH) // _MICROSECOND


def _creation_times(size: int, chance: random.Random, since: int, until: int) -> array[int]:
    """Spread creations over the hours: three times as many at the end, few at night."""
    hours = range(since, until, _HOUR)
    weights = [
        (1 + 2 * number / len(hours))
        * (1.1 - math.cos(hour % (24 * _HOUR) / (24 * _HOUR) * math.tau))
        for number, hour in enumerate(hours)
    ]
    # Rounding the running sum, not each hour, makes them `size` in all.
    scale = size / sum(weights)
    times = array("q")
    expected = 0.0
    for hour, weight in zip(hours, weights, strict=True):
        expected += weight * scale
        length = min(_HOUR, until - hour)
        missing = round(expected) - len(times)
        times.extend(sorted(hour + int(chance.random() * length) for _ in range(missing)))
    # One in four on a whole second: there the bounds of a window matter.
    for index in range(0, size, 4):
        times[index] = max(since, times[index] // 1_000_000 * 1_000_000)
    return array("q", sorted(times))


def _mostly_rising(size: int, chance: random.Random) -> array[int]:
    """Number people in order of creation, but for some that change places with a near one."""
    ids = array("q", range(1, size + 1))
    for first in range(0, size - 8, 8):
        second = first + chance.randrange(1, 9)
        ids[first], ids[second] = ids[second], ids[first]
    return ids


def _person(number: int, created_at: int, dice: int) -> Contact:
    """Make a contact of 64 random bits; different bits decide on different things."""
    country, prefix, people = _LOCALES[dice & 7]
    mailbox, full_name = people[dice >> 3 & 63]
    name: str | None = full_name
    if not dice >> 9 & 15:
        name = None
    elif not dice >> 13 & 31:
        name = full_name + _ODDITIES[dice >> 18 & 15]
    email = f"{mailbox}{number}@{_DOMAINS[dice >> 22 & 7]}" if dice >> 25 & 31 else None
    emails = [email] if email else []
    if not dice >> 30 & 7:
        emails.extend(
            f"{mailbox}.{number}.{old}@{_DOMAINS[dice >> 33 + old & 7]}"
            for old in range(1 + (dice >> 33 & 1))
        )
    return Contact(
        number,
        _EPOCH + timedelta(microseconds=created_at),
        email,
        name,
        f"{prefix}{dice >> 34 & 0xFFFFFFF:09d}" if dice >> 62 else None,
        country if dice >> 58 & 15 else None,
        [f"ct_{dice * factor & 0xFFFFFFFFFFFFFFFF:016x}" for factor in _FACTORS[dice >> 55 & 7]],
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
_ODDITIES = (
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
# One to five odd numbers, so that each token of a contact is another; two in eight have none.
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
    people = tuple(
        (mailbox, f"{first} {last}")
        for mailbox, first in zip(mailboxes.split(), firsts.split(), strict=True)
        for last in lasts.split()
    )
    return country, prefix, people


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
