"""Serves a simulated Cometly Space: `python -m simulator --help`."""

from __future__ import annotations

import json
import signal
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from simulator import Population, Simulator, Space
from simulator.fault_syntax import add_from_text, describe

if TYPE_CHECKING:
    from simulator import Request

_DAYS_AHEAD = 7
_PORT = click.IntRange(0, 65535)
_NOT_NEGATIVE = click.FloatRange(min=0)
_COUNT = click.IntRange(min=0)


def _list_faults(context: click.Context, _option: click.Parameter, selected: bool) -> None:  # noqa: FBT001
    if selected:
        click.echo(describe())
        context.exit()


def _zone(_context: click.Context, _option: click.Parameter, name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        message = f"{name!r} is not an IANA time zone"
        raise click.BadParameter(message) from None
    return name


@click.command(name="python -m simulator", context_settings={"show_default": True})
@click.option("--size", type=_COUNT, default=20_000, help="Number of contacts.")
@click.option("--seed", type=int, default=0, help="Seed of the generated contacts.")
@click.option(
    "--since",
    type=click.DateTime(),
    help="Earliest creation time, UTC.",
    show_default="two years ago",
)
@click.option(
    "--until",
    type=click.DateTime(),
    help="Contacts are created before this time, UTC; those in the future do not exist yet.",
    show_default=f"in {_DAYS_AHEAD} days",
)
@click.option("--timezone", default="UTC", callback=_zone, help="The Space's time zone.")
@click.option(
    "--end-inclusive/--end-exclusive",
    default=True,
    help="Whether a contact created exactly at end_date is exported.",
)
@click.option("--api-key", default="simulated-key", help="The only valid API key.")
@click.option("--api-port", type=_PORT, default=8765, help="0: any free port.")
@click.option("--storage-port", type=_PORT, default=8766, help="0: any free port.")
@click.option("--queued-seconds", type=_NOT_NEGATIVE, default=1.0)
@click.option("--processing-seconds", type=_NOT_NEGATIVE, default=2.0)
@click.option(
    "--seconds-per-contact", type=_NOT_NEGATIVE, default=0.0, help="Added to the processing time."
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Number of exports processed in parallel; the others stay queued.",
    show_default="no limit",
)
@click.option(
    "--max-exports-in-flight",
    type=click.IntRange(min=1),
    help="Refuse a create while this many exports are queued or processing.",
    show_default="no limit",
)
@click.option(
    "--in-flight-refusal",
    type=click.Choice(["409", "422", "423"]),
    default="409",
    help="The HTTP status of that refusal.",
)
@click.option(
    "--max-range-days",
    type=click.FloatRange(min=0, min_open=True),
    help="Refuse a create with a longer range with 422.",
    show_default="no limit",
)
@click.option("--creates-per-minute", type=_COUNT, default=5, help="0: no limit.")
@click.option("--polls-per-minute", type=_COUNT, default=30, help="0: no limit.")
@click.option("--url-lifetime-seconds", type=_COUNT, default=900)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="TEXT",
    help="Inject a fault, e.g. 'download cut at=1000 times=3'; see --list-faults. Repeatable.",
)
@click.option(
    "--list-faults",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_faults,
    help="List all faults and exit.",
)
@click.option("--verbose", is_flag=True, help="Print a line for each request.")
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the config and the storage URL as JSON to this file once the ports are open.",
)
def main(  # noqa: PLR0913
    *,
    size: int,
    seed: int,
    since: datetime | None,
    until: datetime | None,
    api_port: int,
    storage_port: int,
    in_flight_refusal: str,
    creates_per_minute: int,
    polls_per_minute: int,
    faults: tuple[str, ...],
    verbose: bool,
    ready_file: Path | None,
    **rules: Any,
) -> None:
    """Serve a simulated Cometly Space until Ctrl-C or SIGTERM."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    first = since.replace(tzinfo=UTC) if since else midnight - timedelta(days=730)
    last = until.replace(tzinfo=UTC) if until else midnight + timedelta(days=_DAYS_AHEAD)
    if last <= first:
        message = "--until must be after --since"
        raise click.UsageError(message)
    space = Space(
        Population.generate(size, seed, first, last),
        in_flight_refusal=int(in_flight_refusal),  # type: ignore[arg-type]
        creates_per_minute=creates_per_minute or None,
        polls_per_minute=polls_per_minute or None,
        **rules,
    )
    simulator = Simulator(
        space,
        api_port=api_port,
        storage_port=storage_port,
        on_response=_print_request if verbose else None,
    )
    for text in faults:
        try:
            add_from_text(simulator.faults, text)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--fault") from error
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)
    stopped = threading.Event()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, lambda *_: stopped.set())
    try:
        simulator.start()
    except OSError as error:
        raise click.ClickException(str(error)) from error
    config = {
        "api_key": space.api_key,
        "start_date": first.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "timezone": space.timezone,
        "api_url": simulator.api_url,
    }
    if ready_file is not None:
        ready = config | {"storage_url": simulator.storage_url}
        # Written to a temporary file first, so that no process reads an incomplete file.
        part = ready_file.with_name(f"{ready_file.name}.part")
        part.write_text(json.dumps(ready), encoding="utf-8")
        part.replace(ready_file)
    _print_config(simulator, config)
    stopped.wait()
    simulator.stop()
    click.echo("Stopped.")


def _print_config(simulator: Simulator, config: dict[str, str]) -> None:
    space = simulator.space
    overview = f"{simulator.api_url.removesuffix('/public-api/v1')}/simulator"
    click.echo(
        f"Simulated Cometly Space: {len(space.population):,} contacts, zone {space.timezone}\n"
        f"  API       {simulator.api_url}\n"
        f"  key       {space.api_key}\n"
        f"  storage   {simulator.storage_url}\n"
        f"  overview  {overview}\n"
        f"config.json for the tap:\n{json.dumps(config, indent=2)}\n"
        "Press Ctrl-C to stop."
    )


def _print_request(request: Request) -> None:
    time = datetime.fromtimestamp(request.time, UTC).strftime("%H:%M:%S")
    export = f" export {request.export_id}" if request.export_id else ""
    window = (
        f" {request.start:%Y-%m-%d %H:%M:%S}/{request.end:%Y-%m-%d %H:%M:%S}"
        if request.start and request.end
        else ""
    )
    export_status = f" {request.export_status}" if request.export_status else ""
    fault = f" [{request.fault}]" if request.fault else ""
    click.echo(
        f"{time} {request.kind}{export}{window}: "
        f"{request.status or 'no response'}{export_status}, {request.bytes_sent:,} bytes{fault}"
    )


if __name__ == "__main__":
    main()
