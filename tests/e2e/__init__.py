"""End-to-end tests: a simulated Space, the tap, Meltano and real targets.

`installed.py` installs the programs into `.e2e/` once, `project.py` creates a Meltano project for
each test, `destinations.py` has the databases. Snowflake is only emulated (`emulated_snowflake/`).
"""
