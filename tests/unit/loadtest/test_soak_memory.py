"""An hour of load through the generator's own code, in virtual time: memory stays flat."""

import gc
import sys

import psutil

from loadtest.agenda import VirtualHost
from loadtest.engine import Engine, Limits
from loadtest.load import LoadSpec, read_load
from loadtest.meter import WindowMeter
from loadtest.result import Slo
from loadtest.shapes import soak
from tests.virtual_load import ScriptedServer

HOUR_S = 3_600.0
REQUESTS = 6_500
# In the second half, in which half of the requests come: a record kept for each would be tens of
# objects and a kilobyte. What grows is windows, of which there are as many as were asked for.
OBJECTS_MOST = REQUESTS // 2
BYTES_MOST = 512 << 10


def test_memory_stays_flat_over_an_hour_of_soak() -> None:
    host = VirtualHost()
    server = ScriptedServer(host, slots=64, step_s=0.02, tokens=4)
    load = read_load(LoadSpec("input=600,output=4,prefix_hit=0.5", "", None, None, 1, "s", "m"))
    shape = soak(2.0, HOUR_S)
    meters = [WindowMeter(span) for span in shape.spans(HOUR_S / 12)]
    limits = Limits(600.0, 600.0)
    engine = Engine(host, server, Slo(1.0, 0.1), limits, load.asks(shape, 0), meters)
    held: list[tuple[int, int]] = []

    def look() -> None:
        gc.collect()
        held.append((sys.getallocatedblocks(), psutil.Process().memory_info().rss))

    engine.start()
    for minute in (30, 40, 50, 59):
        host.call_at(60.0 * minute, look)
    host.run(lambda: engine.ending is not None)
    assert server.served > REQUESTS
    assert max(objects for objects, _ in held) - held[0][0] < OBJECTS_MOST
    assert max(rss_bytes for _, rss_bytes in held) - held[0][1] < BYTES_MOST
