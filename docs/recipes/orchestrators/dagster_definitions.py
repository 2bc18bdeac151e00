"""Every night, one asset for each Space: `dagster dev -f dagster_definitions.py`."""

import subprocess

import dagster as dg

PROJECT = "/srv/cometly"  # the folder of meltano.yml
SPACES = ("berlin", "new-york")


def contacts_of(space: str) -> dg.AssetsDefinition:
    """The table of a Space's contacts."""

    @dg.asset(
        name=f"cometly_{space.replace('-', '_')}_contacts",
        retry_policy=dg.RetryPolicy(max_retries=3, delay=600),
        pool=f"cometly_{space}",  # limit the pool to 1: one run of a Space at a time
    )
    def contacts() -> None:
        command = ["meltano", "run", f"tap-cometly--{space}", "target-postgres"]
        subprocess.run(command, cwd=PROJECT, check=True)

    return contacts


assets = [contacts_of(space) for space in SPACES]
nightly = dg.ScheduleDefinition(
    name="cometly_nightly",
    target=dg.AssetSelection.assets(*assets),
    cron_schedule="5 3 * * *",
)
definitions = dg.Definitions(assets=assets, schedules=[nightly])
