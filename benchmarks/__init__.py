"""Compares the performance of the tap with its peers; see README.md in this folder."""
