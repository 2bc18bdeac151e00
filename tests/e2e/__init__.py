"""The tap by Meltano and by pipe into real programs, from a simulated Space.

`installed.py` brings the programs, once, into `.e2e/` of the checkout; `project.py` has a Meltano
project for each test, `destinations.py` the databases. Snowflake is an emulation, whatever its
tests show: `emulated_snowflake/`.
"""
