"""Starts a Cometly Space by hand: `python -m simulator --help`."""

from __future__ import annotations

import json
import signal
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from simulator import Population, Simulator, Space
from simulator.script import add_from_text, describe

if TYPE_CHECKING:
    from simulator import Request

_DAYS_AHEAD = 7


def _list_faults(context: click.Context, _option: click.Parameter, wanted: bool) -> None:  # noqa: FBT001
    if wanted:
        click.echo(describe())
        context.exit()


def _zone(_context: click.Context, _option: click.Parameter, name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        message = f"{name!r} is no IANA time zone"
        raise click.BadParameter(message) from None
    return name


@click.command(name="python -m simulator", context_settings={"show_default": True})
@click.option("--size", type=click.IntRange(min=0), default=20_000, help="How many contacts.")
@click.option("--seed", type=int, default=0, help="The same seed makes the same people.")
@click.option(
    "--since",
    type=click.DateTime(),
    help="Earliest creation, UTC.",
    show_default="two years ago",
)
@click.option(
    "--until",
    type=click.DateTime(),
    help="Creations are before it, UTC; who is created after now does not exist yet.",
    show_default=f"in {_DAYS_AHEAD} days",
)
@click.option("--timezone", default="UTC", callback=_zone, help="The Space's time zone.")
@click.option(
    "--end-inclusive/--end-exclusive",
    default=True,
    help="Whether a contact created at the very end_date is exported.",
)
@click.option("--api-key", default="simulated-key", help="The key that is let in.")
@click.option("--api-port", type=click.IntRange(0, 65535), default=8765, help="0: any free one.")
@click.option(
    "--storage-port", type=click.IntRange(0, 65535), default=8766, help="0: any free one."
)
@click.option("--queued-seconds", type=click.FloatRange(min=0), default=1.0)
@click.option("--processing-seconds", type=click.FloatRange(min=0), default=2.0)
@click.option("--creates-per-minute", type=click.IntRange(min=0), default=5, help="0: no limit.")
@click.option("--polls-per-minute", type=click.IntRange(min=0), default=30, help="0: no limit.")
@click.option("--url-lifetime-seconds", type=click.IntRange(min=0), default=900)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="TEXT",
    help="Goes wrong, such as 'download cut at=1000 times=3'; see --list-faults. Repeatable.",
)
@click.option(
    "--list-faults",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_faults,
    help="List all that can go wrong, and exit.",
)
@click.option("--verbose", is_flag=True, help="Print a line for each request.")
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write URLs, key and zone to this file, as JSON, once it listens.",
)
def main(  # noqa: PLR0913
    *,
    size: int,
    seed: int,
    since: datetime | None,
    until: datetime | None,
    timezone: str,
    end_inclusive: bool,
    api_key: str,
    api_port: int,
    storage_port: int,
    queued_seconds: float,
    processing_seconds: float,
    creates_per_minute: int,
    polls_per_minute: int,
    url_lifetime_seconds: int,
    faults: tuple[str, ...],
    verbose: bool,
    ready_file: Path | None,
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
        api_key=api_key,
        timezone=timezone,
        end_inclusive=end_inclusive,
        queued_seconds=queued_seconds,
        processing_seconds=processing_seconds,
        creates_per_minute=creates_per_minute or None,
        polls_per_minute=polls_per_minute or None,
        url_lifetime_seconds=url_lifetime_seconds,
    )
    simulator = Simulator(
        space,
        api_port=api_port,
        storage_port=storage_port,
        on_answer=_print_line if verbose else None,
    )
    for text in faults:
        try:
            add_from_text(simulator.faults, text)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--fault") from error
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        simulator.start()
    except OSError as error:
        raise click.ClickException(str(error)) from error
    config = {
        "api_key": api_key,
        "start_date": first.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "timezone": timezone,
        "api_url": simulator.api_url,
    }
    _greet(simulator, config)
    if ready_file is not None:
        ready = config | {"storage_url": simulator.storage_url}
        # Whoever waits for the file must never see half of it.
        half = ready_file.with_name(f"{ready_file.name}.part")
        half.write_text(json.dumps(ready), encoding="utf-8")
        half.replace(ready_file)
    stopped.wait()
    simulator.stop()
    click.echo("Stopped.")


def _greet(simulator: Simulator, config: dict[str, str]) -> None:
    space = simulator.space
    overview = f"{simulator.api_url.removesuffix('/public-api/v1')}/simulator"
    click.echo(
        f"A Cometly Space with {len(space.population):,} contacts, in the zone {space.timezone}.\n"
        f"  API       {simulator.api_url}\n"
        f"  key       {space.api_key}\n"
        f"  storage   {simulator.storage_url}\n"
        f"  overview  {overview}\n"
        f"A config.json for the tap:\n{json.dumps(config, indent=2)}\n"
        "Ctrl-C stops it."
    )


def _print_line(request: Request) -> None:
    time = datetime.fromtimestamp(request.time, UTC).strftime("%H:%M:%S")
    about = f" export {request.export_id}" if request.export_id else ""
    window = (
        f" {request.start:%Y-%m-%d %H:%M:%S}/{request.end:%Y-%m-%d %H:%M:%S}"
        if request.start and request.end
        else ""
    )
    said = f" {request.said}" if request.said else ""
    fault = f" [{request.fault}]" if request.fault else ""
    click.echo(
        f"{time} {request.kind}{about}{window}: "
        f"{request.status or 'no answer'}{said}, {request.bytes_sent:,} bytes{fault}"
    )


if __name__ == "__main__":
    main()
