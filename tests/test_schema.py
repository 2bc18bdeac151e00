"""Catalogs: replication, schemas that differ from discovery's, and selection."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from simulator.faults import Layout
from simulator.files import FileLayout
from tap_cometly.errors import TapError
from tests.conftest import JUNE, contact
from tests.test_state import STATE

if TYPE_CHECKING:
    from tests.conftest import World

A_DAY: dict[str, Any] = {"end_date": "2024-06-02T00:00:00Z"}


@pytest.fixture
def catalog(world: World) -> dict[str, Any]:
    """The catalog of discovery, as JSON."""
    world.fill([contact(1, JUNE, email="a@b.c", emails=["a@b.c"])])
    found: dict[str, Any] = json.loads(json.dumps(world.tap().catalog_dict))
    return found


def metadata(catalog: dict[str, Any], *breadcrumb: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        item["metadata"]
        for item in catalog["streams"][0]["metadata"]
        if item["breadcrumb"] == list(breadcrumb)
    )
    return found


# Replication.


@pytest.mark.parametrize("method", ["FULL_TABLE", "full_table", "Full_Table"])
@pytest.mark.parametrize("where", ["replication-method", "forced-replication-method", "entry"])
def test_full_table_may_have_any_letter_case(
    world: World, catalog: dict[str, Any], where: str, method: str
) -> None:
    if where == "entry":
        catalog["streams"][0]["replication_method"] = method
    else:
        metadata(catalog)[where] = method
        if where.startswith("forced"):
            del catalog["streams"][0]["replication_method"]

    world.sync(STATE, catalog, **A_DAY)

    assert world.windows()[0][0] == JUNE


@pytest.mark.parametrize("method", ["INCREMENTAL", "incremental", None, ""])
def test_incremental_may_have_any_letter_case_and_is_the_default(
    world: World, catalog: dict[str, Any], method: str | None
) -> None:
    metadata(catalog)["replication-method"] = method

    world.sync(STATE, catalog)

    assert world.windows()[0][0] > JUNE


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("replication-method", "LOG_BASED", "INCREMENTAL or FULL_TABLE"),
        ("replication-key", "updated_at", "'created_until'"),
    ],
)
@pytest.mark.parametrize("where", ["metadata", "entry"])
def test_another_replication_method_or_key_is_rejected_before_output_and_requests(  # noqa: PLR0913, PLR0917
    world: World, catalog: dict[str, Any], where: str, name: str, value: str, allowed: str
) -> None:
    if where == "metadata":
        metadata(catalog)[name] = value
    else:
        catalog["streams"][0][name.replace("-", "_")] = value

    run = world.sync(STATE, catalog)

    assert str(run.error) == (
        f"The catalog asks for the {name.replace('-', ' ')} '{value}' for 'contacts'; it must be "
        f"{allowed}."
    )
    assert (run.output, world.simulator.requests) == (b"", [])


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"streams": []},
        {"streams": None},
        {"streams": [5]},
        {"streams": {"contacts": {}}},
        {"streams": [{"tap_stream_id": "contacts", "metadata": [5]}]},
        {"streams": [{"tap_stream_id": "deals", "schema": {"properties": {}}, "metadata": []}]},
    ],
    ids=json.dumps,
)
def test_a_catalog_without_contacts_is_rejected(world: World, given: dict[str, Any]) -> None:
    run = world.sync(catalog=given)

    assert isinstance(run.error, TapError)
    assert str(run.error).startswith("The --catalog file has no usable stream 'contacts'; ")
    assert run.output == b""


@pytest.mark.parametrize(
    "changes",
    [
        {"metadata": None},
        {"metadata": []},
        {"metadata": [{"breadcrumb": ["properties", "email"], "metadata": {"selected": True}}]},
        {"key_properties": None},
        {"key_properties": []},
        {"key_properties": ["email"]},
        {"stream": "people"},
    ],
    ids=repr,
)
def test_a_catalog_with_missing_or_other_keys_selects_every_field_under_the_streams_own_key(
    world: World, catalog: dict[str, Any], changes: dict[str, Any]
) -> None:
    entry = {**catalog["streams"][0], **changes}
    entry = {name: value for name, value in entry.items() if value is not None}

    run = world.sync(catalog={"streams": [entry]}, **A_DAY)

    assert run.of_type("SCHEMA") == world.sync(**A_DAY).of_type("SCHEMA")
    assert run.records == world.sync(**A_DAY).records


# Schemas.


@pytest.mark.parametrize("schema", ["none", None, {}, {"type": "object"}, {"properties": {}}])
def test_without_a_schema_in_the_catalog_the_streams_own_schema_is_used(
    world: World, catalog: dict[str, Any], schema: object
) -> None:
    catalog["streams"][0]["schema"] = schema
    if schema == "none":
        del catalog["streams"][0]["schema"]

    run = world.sync(catalog=catalog, **A_DAY)

    assert run.records[0]["email"] == "a@b.c"
    assert run.of_type("SCHEMA") == world.sync(**A_DAY).of_type("SCHEMA")


def test_a_field_enabled_later_is_added_to_an_older_catalog(
    world: World, catalog: dict[str, Any]
) -> None:
    run = world.sync(catalog=catalog, include_all_emails=True, **A_DAY)

    assert run.records[0]["emails"] == ["a@b.c"]
    assert "emails" in run.of_type("SCHEMA")[0]["schema"]["properties"]


def test_a_field_disabled_later_is_removed_from_an_older_catalog(world: World) -> None:
    older = world.tap(include_all_emails=True).catalog_dict
    world.fill([contact(1, JUNE, emails=["a@b.c"])])

    run = world.sync(catalog=older, **A_DAY)

    assert "emails" not in run.records[0]
    assert "emails" not in run.of_type("SCHEMA")[0]["schema"]["properties"]


def test_a_property_removed_from_the_catalog_is_not_emitted(
    world: World, catalog: dict[str, Any]
) -> None:
    del catalog["streams"][0]["schema"]["properties"]["email"]

    assert "email" not in world.sync(catalog=catalog, **A_DAY).records[0]


@pytest.mark.parametrize("deselected", [set(), {"plan"}])
def test_a_property_added_to_the_catalog_is_read_and_emitted_unless_deselected(
    world: World, catalog: dict[str, Any], deselected: set[str]
) -> None:
    line = b'{"id":1,"plan":"gold","vip":1,"tags":{"a":[1.5]},"unknown":1}'
    form = Layout(FileLayout(lines=(line,), only_lines=True))
    world.simulator.faults.add("create", form, times=None)
    added = {
        "plan": {"type": ["string", "null"]},
        "vip": {"type": ["boolean", "null"]},
        "tags": {"type": ["object", "null"], "additionalProperties": True},
        "absent": {"type": ["string", "null"]},
    }
    catalog["streams"][0]["schema"]["properties"] |= added
    for name in deselected:
        item = {"breadcrumb": ["properties", name], "metadata": {"selected": False}}
        catalog["streams"][0]["metadata"].append(item)

    run = world.sync(catalog=catalog, **A_DAY)

    values = {"plan": "gold", "vip": True, "tags": {"a": [1.5]}, "absent": None}
    expected = {name: value for name, value in values.items() if name not in deselected}
    for found in (run.records[0], run.of_type("SCHEMA")[0]["schema"]["properties"]):
        assert found.keys() & {*values, "unknown"} == expected.keys()
    assert run.records[0].items() >= {**expected, "id": 1}.items()


def test_the_emitted_schema_has_no_dollar_schema_key(world: World, catalog: dict[str, Any]) -> None:
    catalog["streams"][0]["schema"]["$schema"] = "https://json-schema.org/draft/2020-12/schema"

    for run in (world.sync(catalog=catalog, **A_DAY), world.sync(**A_DAY)):
        assert "$schema" not in run.of_type("SCHEMA")[0]["schema"]


# Selection.


def test_a_deselected_stream_makes_no_request(world: World, catalog: dict[str, Any]) -> None:
    metadata(catalog)["selected"] = False

    run = world.sync(catalog=catalog, **A_DAY)

    assert (run.error, world.simulator.requests) == (None, [])


@pytest.mark.parametrize("inclusion", ["automatic", "available", None])
@pytest.mark.parametrize("removed", [True, False])
def test_the_primary_key_and_the_replication_key_cannot_be_deselected_or_removed(
    world: World, catalog: dict[str, Any], inclusion: str | None, *, removed: bool
) -> None:
    for field in ("id", "created_until", "email"):
        metadata(catalog, "properties", field)["selected"] = False
        if field != "email":
            metadata(catalog, "properties", field)["inclusion"] = inclusion
        if removed:
            del catalog["streams"][0]["schema"]["properties"][field]

    run = world.sync(catalog=catalog, **A_DAY)

    assert {"id", "created_until"} <= set(run.records[0])
    assert "email" not in run.records[0]
