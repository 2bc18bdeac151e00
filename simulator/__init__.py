"""A simulated Cometly Space over real HTTP, for tests, demos and benchmarks.

`python -m simulator` serves one. In Python:

    space = Space(Population.generate(1000), processing_seconds=0, timezone="Europe/Berlin")
    with Simulator(space) as simulator:
        simulator.faults.add("download", Cut(at=1000), times=2)
        run_the_tap(api_url=simulator.api_url, api_key=space.api_key)
        downloads = [request for request in simulator.requests if request.kind == "download"]
"""

from simulator.population import Contact, Population
from simulator.request_log import Request
from simulator.server import Simulator
from simulator.space import Space

__all__ = ["Contact", "Population", "Request", "Simulator", "Space"]
