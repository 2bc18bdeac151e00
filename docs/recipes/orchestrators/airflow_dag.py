"""Every night, one task for each Space: a file for Airflow's DAG folder."""

from datetime import timedelta

import pendulum
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

PROJECT = "/srv/cometly"  # the folder of meltano.yml
SPACES = ("berlin", "new-york")

with DAG(
    "cometly",
    schedule="5 3 * * *",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    catchup=False,  # a run's range depends on the bookmark, not on the logical date
    max_active_runs=1,  # one run of a Space at a time
    default_args={"retries": 3, "retry_delay": timedelta(minutes=10)},
) as dag:
    for space in SPACES:
        BashOperator(
            task_id=f"load_{space}",
            bash_command=f"meltano run tap-cometly--{space} target-postgres",
            cwd=PROJECT,
        )
