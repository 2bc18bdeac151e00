"""Other programs that read the same export; each runs in a separate process.

`python -m benchmarks.peers.NAME --config config.json`, with the tap's settings.
"""
