"""What the tap promises, as tests; docs/testing.md tells how they are built."""
