"""Five rules that other middleware decides zones by, written from their descriptions, to compare the engine with.

All take one recording as `Heard` and a timeout and give stays. They see the reads in order of time, goods left out, and
are compiled as the engine is, so that speeds compare too. What they aren't told, the engine isn't told either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dwell.read import RSSI_UNKNOWN, Reads

UNKNOWN_DB = -999.0
TIMEOUTS_S = (1, 2, 5, 10, 20, 30, 60, 120, 300)
"""Each peer is scored with the one that suits it best on the very recordings that are scored."""


@dataclass(frozen=True)
class Heard:
    """A recording tag by tag, each in order of time: tag i's reads are `start[i]:start[i + 1]`."""

    epc: list[str]
    start: NDArray[np.int64]
    time_us: NDArray[np.int64]
    antenna: NDArray[np.int64]
    rssi_db: NDArray[np.float64]
    zone: NDArray[np.int64]
    """(A,) zone of each antenna."""

    @staticmethod
    def of(reads: Reads, antenna_zone: NDArray[np.int16], *, goods: str = "30") -> Heard:
        """From 96-bit EPCs; those that begin like `goods` are left out."""
        order = np.lexsort((reads["time_us"], reads["epc"][:, 1], reads["epc"][:, 0]))
        reads = reads[order]
        if goods:
            reads = reads[(reads["epc"][:, 0] >> np.uint64(56)) != np.uint64(int(goods, 16))]
        words = reads["epc"][:, :2]
        new = np.flatnonzero((words[1:] != words[:-1]).any(axis=1)) + 1 if len(reads) else np.zeros(0, np.int64)
        first = np.concatenate([[0], new]) if len(reads) else np.zeros(0, np.int64)
        return Heard(
            epc=[w.astype(">u8").tobytes()[:12].hex() for w in words[first]],
            start=np.append(first, len(reads)).astype(np.int64),
            time_us=reads["time_us"].astype(np.int64),
            antenna=reads["antenna"].astype(np.int64),
            rssi_db=np.where(reads["rssi_cdbm"] == RSSI_UNKNOWN, UNKNOWN_DB, reads["rssi_cdbm"] / 100.0),
            zone=antenna_zone.astype(np.int64),
        )


Rows = NDArray[np.int64]
"""(N, 4) tag, zone, enter_us, exit_us."""
Peer = Callable[[Heard, float], Rows]


def edgex(heard: Heard, timeout_s: float) -> Rows:
    """EdgeX RFID LLRP's mobility profile: a tag moves to the antenna whose mean of the last 20 RSSI exceeds that of
    the antenna where it is by min(6 dB, 10 dB − 0.008 dB/ms since that one heard it), with at least two reads."""
    found: Rows = _edgex(heard.start, heard.time_us, heard.antenna, heard.rssi_db, heard.zone, round(timeout_s * 1e6))
    return found


def ema(heard: Heard, timeout_s: float) -> Rows:
    """What most in-house code does: RSSI smoothed for each antenna, the strongest wins by 3 dB, an antenna is forgotten
    and a tag gone after a silence."""
    found: Rows = _ema(heard.start, heard.time_us, heard.antenna, heard.rssi_db, heard.zone, round(timeout_s * 1e6))
    return found


def presence(heard: Heard, timeout_s: float) -> Rows:
    """A presence tracker an antenna: arrived with the third read, gone after a silence; in the antenna's zone
    meanwhile. A tag may be in several zones at once."""
    found: Rows = _presence(heard.start, heard.time_us, heard.antenna, heard.zone, round(timeout_s * 1e6))
    return found


def smurf(heard: Heard, timeout_s: float) -> Rows:
    """SMURF (Jeffery, Garofalakis, Franklin, VLDB 2006): for each tag and antenna a window that grows to ln(1/δ)/p̄
    epochs and is halved when its reads differ from p̄ by more than two deviations; the fullest window has the tag.
    The timeout is the longest window."""
    found: Rows = _smurf(heard.start, heard.time_us, heard.antenna, heard.zone, round(timeout_s * 1e6))
    return found


def strongest(heard: Heard, timeout_s: float) -> Rows:
    """What one does with a recording on one's desk: each second, the antenna that heard the tag loudest in the mean of
    a window around it, past and future. The timeout is the window's length."""
    found: Rows = _strongest(
        heard.start, heard.time_us, heard.antenna, heard.rssi_db, heard.zone, round(timeout_s * 1e6)
    )
    return found


PEERS: dict[str, Peer] = {
    "EdgeX mobility": edgex,
    "SMURF": smurf,
    "presence tracker": presence,
    "RSSI EMA": ema,
    "strongest mean": strongest,
}

KEEP = 20
SLOPE_DB_PER_MS, THRESHOLD_DB, MOST_DB = -0.008, 10.0, 6.0


@njit(cache=True)
def _edgex(start: Any, time_us: Any, antenna: Any, rssi: Any, zone: Any, timeout_us: int) -> Any:
    rows, n = np.empty((len(time_us) + 1, 4), np.int64), 0
    ring = np.empty((len(zone), KEEP))
    count = np.zeros(len(zone), np.int64)
    last_us = np.zeros(len(zone), np.int64)
    for tag in range(len(start) - 1):
        at, enter, seen = -1, 0, 0
        for i in range(start[tag], start[tag + 1]):
            t, a = time_us[i], antenna[i]
            if at >= 0 and t - seen > timeout_us:
                rows[n] = (tag, zone[at], enter, seen)
                n += 1
                at = -1
            if at < 0:
                count[:] = 0
                at, enter = a, t
            seen = t
            last_us[a] = t
            if rssi[i] > UNKNOWN_DB:
                ring[a, count[a] % KEEP] = rssi[i]
                count[a] += 1
            if a != at and count[a] >= 2:
                new = ring[a, : min(count[a], KEEP)].mean()
                old = ring[at, : min(count[at], KEEP)].mean() if count[at] else UNKNOWN_DB
                age_ms = (t - last_us[at]) / 1000.0
                if new > old + min(MOST_DB, SLOPE_DB_PER_MS * age_ms + THRESHOLD_DB):
                    if zone[a] != zone[at]:
                        rows[n] = (tag, zone[at], enter, t)
                        n += 1
                        enter = t
                    at = a
        if at >= 0:
            rows[n] = (tag, zone[at], enter, seen)
            n += 1
    return rows[:n]


ALPHA, HYSTERESIS_DB = 0.3, 3.0


@njit(cache=True)
def _ema(start: Any, time_us: Any, antenna: Any, rssi: Any, zone: Any, timeout_us: int) -> Any:
    rows, n = np.empty((len(time_us) + 1, 4), np.int64), 0
    level = np.empty(len(zone))
    last_us = np.empty(len(zone), np.int64)
    for tag in range(len(start) - 1):
        at, enter, seen = -1, 0, 0
        for i in range(start[tag], start[tag + 1]):
            t, a = time_us[i], antenna[i]
            if at >= 0 and t - seen > timeout_us:
                rows[n] = (tag, zone[at], enter, seen)
                n += 1
                at = -1
            if at < 0:
                level[:] = UNKNOWN_DB
                last_us[:] = -1
                at, enter = a, t
            seen = t
            if last_us[a] >= 0 and t - last_us[a] > timeout_us:
                level[a] = UNKNOWN_DB
            last_us[a] = t
            if rssi[i] > UNKNOWN_DB:
                level[a] = rssi[i] if level[a] == UNKNOWN_DB else level[a] + ALPHA * (rssi[i] - level[a])
            old = level[at] if t - last_us[at] <= timeout_us else UNKNOWN_DB
            if a != at and level[a] > old + HYSTERESIS_DB:
                if zone[a] != zone[at]:
                    rows[n] = (tag, zone[at], enter, t)
                    n += 1
                    enter = t
                at = a
        if at >= 0:
            rows[n] = (tag, zone[at], enter, seen)
            n += 1
    return rows[:n]


ARRIVE_READS = 3


@njit(cache=True)
def _presence(start: Any, time_us: Any, antenna: Any, zone: Any, timeout_us: int) -> Any:
    rows, n = np.empty((len(time_us) + 1, 4), np.int64), 0
    first = np.empty(len(zone), np.int64)
    last = np.empty(len(zone), np.int64)
    count = np.zeros(len(zone), np.int64)
    for tag in range(len(start) - 1):
        count[:] = 0
        for i in range(start[tag], start[tag + 1]):
            t, a = time_us[i], antenna[i]
            if count[a] and t - last[a] > timeout_us:
                if count[a] >= ARRIVE_READS:
                    rows[n] = (tag, zone[a], first[a], last[a])
                    n += 1
                count[a] = 0
            if count[a] == 0:
                first[a] = t
            count[a] += 1
            last[a] = t
        for a in range(len(zone)):
            if count[a] >= ARRIVE_READS:
                rows[n] = (tag, zone[a], first[a], last[a])
                n += 1
    return rows[:n]


SECOND_US = 1_000_000


@njit(cache=True)
def _strongest(start: Any, time_us: Any, antenna: Any, rssi: Any, zone: Any, window_us: int) -> Any:
    rows, n = np.empty((2 * len(time_us) + 2, 4), np.int64), 0
    total, count = np.zeros(len(zone)), np.zeros(len(zone), np.int64)
    for tag in range(len(start) - 1):
        total[:], count[:] = 0, 0
        first, last = start[tag], start[tag]  # reads in the window
        end = start[tag + 1]
        at, enter = -1, 0
        now = time_us[first]
        while now <= time_us[end - 1]:
            while last < end and time_us[last] <= now + window_us // 2:
                if rssi[last] > UNKNOWN_DB:
                    total[antenna[last]] += rssi[last]
                    count[antenna[last]] += 1
                last += 1
            while first < last and time_us[first] < now - window_us // 2:
                if rssi[first] > UNKNOWN_DB:
                    total[antenna[first]] -= rssi[first]
                    count[antenna[first]] -= 1
                first += 1
            best, level = -1, UNKNOWN_DB
            for a in range(len(zone)):
                if count[a] and total[a] / count[a] > level:
                    best, level = a, total[a] / count[a]
            here = zone[best] if best >= 0 else -1
            if here != at:
                if at >= 0:
                    rows[n] = (tag, at, enter, now)
                    n += 1
                at, enter = here, now
            if first == last and last < end:
                now += max(SECOND_US, (time_us[last] - window_us // 2 - now) // SECOND_US * SECOND_US)
            else:
                now += SECOND_US
        if at >= 0:
            rows[n] = (tag, at, enter, time_us[end - 1])
            n += 1
    return rows[:n]


EPOCH_US = 500_000
CYCLES = 3.0
"""Queries an epoch: 6.5 a second for each of four antennas that take turns."""
DELTA = 0.05


@njit(cache=True)
def _smurf(start: Any, time_us: Any, antenna: Any, zone: Any, timeout_us: int) -> Any:
    rows, n = np.empty((2 * len(time_us) + 1, 4), np.int64), 0
    longest = max(1, timeout_us // EPOCH_US)
    place = np.full(len(zone), -1, np.int64)
    for tag in range(len(start) - 1):
        from_, to = start[tag], start[tag + 1]
        mine, own = np.empty(len(zone), np.int64), 0
        for i in range(from_, to):
            if place[antenna[i]] < 0:
                place[antenna[i]] = own
                mine[own] = antenna[i]
                own += 1
        base = time_us[from_] // EPOCH_US
        epochs = time_us[to - 1] // EPOCH_US - base + 1
        seen = np.zeros((own, epochs + 1), np.int64)  # epochs with reads, summed up
        rate = np.zeros((own, epochs + 1))  # their read rates, summed up
        last_us = np.full((own, epochs), -1, np.int64)
        for i in range(from_, to):
            rate[place[antenna[i]], time_us[i] // EPOCH_US - base + 1] += 1
            last_us[place[antenna[i]], time_us[i] // EPOCH_US - base] = time_us[i]
        for k in range(own):
            place[mine[k]] = -1
            for e in range(epochs):
                got = rate[k, e + 1]
                seen[k, e + 1] = seen[k, e] + (1 if got > 0 else 0)
                rate[k, e + 1] = rate[k, e] + min(1.0, got / CYCLES)
                if e and last_us[k, e] < 0:
                    last_us[k, e] = last_us[k, e - 1]
        window = np.ones(own, np.int64)
        at, enter, left = -1, 0, 0
        for e in range(epochs):
            best, fullest = -1, 0
            for k in range(own):
                w = min(window[k], e + 1)
                s = seen[k, e + 1] - seen[k, e + 1 - w]
                if s:
                    p = (rate[k, e + 1] - rate[k, e + 1 - w]) / s
                    wanted = np.log(1 / DELTA) / p
                    if abs(s - w * p) > 2 * np.sqrt(w * p * (1 - p)) and s < w * p:
                        window[k] = max(1, window[k] // 2)
                    elif wanted > window[k]:
                        window[k] = min(longest, window[k] + 2)
                    if s > fullest or (s == fullest and k == at):
                        best, fullest = k, s
                else:
                    window[k] = max(1, min(window[k], longest))
            now = (base + e) * EPOCH_US
            if best >= 0 and at >= 0 and zone[mine[best]] == zone[mine[at]]:
                at = best
            elif best != at:
                if at >= 0:
                    rows[n] = (tag, zone[mine[at]], enter, left if best < 0 else now)
                    n += 1
                at, enter = best, now
            if at >= 0:
                left = max(last_us[at, e], enter)
        if at >= 0:
            rows[n] = (tag, zone[mine[at]], enter, max(left, time_us[to - 1]))
            n += 1
    return rows[:n]
