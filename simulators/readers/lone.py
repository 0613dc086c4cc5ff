"""Single simulated reader with resting tags at its antennas, for any client."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from config.tags import sgtin96
from simulators.readers.llrp import HELD_MAX, LlrpReader
from simulators.readers.llrp_faults import Faults, WrongClock
from simulators.readers.observation import Observation, SimulatedReader
from simulators.readers.pushed import GENERIC, json_reader
from simulators.readers.serial_families import serial_reader
from simulators.readers.serial_line import Faults as LineFaults

PUSH_S = 0.02
PORTS = 4


@dataclass(frozen=True)
class Wrongs:
    """Faults of an LLRP reader; the clock's fields are WrongClock's."""

    clock_offset_s: float = 0.0
    drift_ppm: float = 0.0
    from_2000: bool = False
    uptime: bool = False
    gpi_s: float | None = None
    """Interval at which a contact at input 1 changes."""
    held: int | None = None
    """Reports buffered for an absent client; 0: none."""
    faults: tuple[str, ...] = ()
    """Names in llrp_faults.NAMES, played in turn."""
    every_s: float = 30.0


async def run_llrp(tcp_port: int, tags: int, rate: float, say: Callable[[str], None], wrongs: Wrongs) -> None:
    """Run an LLRP reader, see `run`."""
    clock = WrongClock(_now_us, wrongs.clock_offset_s, wrongs.drift_ppm, wrongs.from_2000, wrongs.uptime)
    target = LlrpReader(
        clock,
        name="lone",
        ports=PORTS,
        tcp_port=tcp_port,
        holds=wrongs.held != 0,
        held_max=wrongs.held or HELD_MAX,
        uptime=wrongs.uptime,
    )
    faults = Faults(target, clock)
    work = [faults.play(list(wrongs.faults), wrongs.every_s)] if wrongs.faults else []
    if wrongs.gpi_s is not None:
        work.append(faults.doors(wrongs.gpi_s))
    tasks = [asyncio.create_task(each) for each in (run("llrp", target, clock, tags, rate, say), *work)]
    done, under_way = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in under_way:
        task.cancel()
    await asyncio.gather(*under_way, return_exceptions=True)
    for task in done:
        task.result()


async def run_serial(family: str, tags: int, rate: float, say: Callable[[str], None], faults: LineFaults) -> None:
    """Run a serial reader, see `run`; `faults` are those of its line."""
    await run(family, serial_reader(family, _now_us, PORTS, faults), _now_us, tags, rate, say)


async def run_json(profile: str, address: str, tags: int, rate: float, say: Callable[[str], None]) -> None:
    """Run a reader that pushes JSON, see `run`; `address`: as in the store file."""
    if profile == "generic":
        keys = ", ".join(f'{key} = "{pointer}"' for key, pointer in GENERIC.items())
        say(f"mapping = {{ {keys} }}")
    await run(f"json ({profile})", json_reader(_now_us, profile, address), _now_us, tags, rate, say)


async def run(
    family: str,
    target: SimulatedReader,
    clock: Callable[[], int],
    tags: int,
    rate: float,
    say: Callable[[str], None],
) -> None:
    """Run a reader until SIGINT or SIGTERM; `rate`: total reads a second, `say` gets the address."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
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
                [Observation(clock(), port, epc, level + round(chance.gauss(0, 150))) for epc, port, level in heard]
            )
            await asyncio.sleep(PUSH_S)
    finally:
        await target.stop()


def _now_us() -> int:
    return time.time_ns() // 1000
