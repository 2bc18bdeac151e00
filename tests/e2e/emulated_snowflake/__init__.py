"""The package `target-snowflake-emulated`: what its one module says."""
