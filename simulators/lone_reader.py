"""One reader by itself, with tags that lie still before its antennas: something for any client to talk to."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable

from config.tags import sgtin96
from simulators.llrp_reader import LlrpReader
from simulators.observation import Observation, SimulatedReader
from simulators.serial_families import serial_reader
from simulators.serial_line import Faults

PUSH_S = 0.02
PORTS = 4


async def run(
    family: str, tcp_port: int, tags: int, rate: float, say: Callable[[str], None], faults: Faults | None = None
) -> None:
    """Listen and be heard until SIGINT or SIGTERM; `rate` reads a second in all, `say` gets the address.

    `faults` are those of a serial line.
    """
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    target: SimulatedReader = (
        LlrpReader(_now_us, name="lone", ports=PORTS, tcp_port=tcp_port)
        if family == "llrp"
        else serial_reader(family, _now_us, PORTS, faults)
    )
    chance = random.Random(1)
    lying = [(sgtin96("9521141", 1, i), 1 + i % PORTS, -4500 - 300 * (i % 8)) for i in range(tags)]
    say(f"{family} reader with {tags} tags at {await target.start()}")
    due = 0.0
    try:
        while not stopped.is_set():
            due += rate * PUSH_S
            heard = [chance.choice(lying) for _ in range(int(due))]
            due -= len(heard)
            target.push(
                [Observation(_now_us(), port, epc, level + round(chance.gauss(0, 150))) for epc, port, level in heard]
            )
            await asyncio.sleep(PUSH_S)
    finally:
        await target.stop()


def _now_us() -> int:
    return time.time_ns() // 1000
