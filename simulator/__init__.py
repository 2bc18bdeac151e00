"""A Cometly Space over real HTTP, for tests, demos and benchmarks.

`python -m simulator` starts one by hand.
"""

from simulator.journal import Request
from simulator.population import Contact, Population
from simulator.server import Simulator
from simulator.space import Space

__all__ = ["Contact", "Population", "Request", "Simulator", "Space"]
