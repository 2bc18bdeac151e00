"""The package `target-snowflake-emulated`."""
