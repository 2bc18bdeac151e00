"""The stream as a target sees it: records, schema, and what STATE claims."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tests.conftest import contacts_every

if TYPE_CHECKING:
    from tests.conftest import World

JUNE = datetime(2024, 6, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_every_contact_arrives_once(world: World) -> None:
    people = contacts_every(HOUR, JUNE + timedelta(minutes=7), JUNE + timedelta(days=29))
    world.fill(people)

    run = world.sync()

    assert run.error is None
    assert sorted(run.ids) == [person.id for person in people]
