"""Tests; docs/testing.md describes how they are built."""
