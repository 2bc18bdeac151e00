"""Programs that do the tap's job in other ways; each is run as a process of its own.

`python -m benchmarks.peers.NAME --config config.json`, with the tap's settings.
"""
