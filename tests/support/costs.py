"""`--costs N`: CPU time by file and test, with that of every process a test starts.

A worker adds up itself and all of its descendants, from /proc, after each test. What a shared fixture costs is counted
where it is first used, and the start of each worker, with its imports, on a line of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from forked import Forked

NAME = "cpu_s"
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--costs", type=int, default=0, metavar="N", help="Print the N files and tests with the most CPU.")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--costs"):
        config.pluginmanager.register(Costs())


class Costs:
    """In a worker: measures. In the process that prints: adds up. Without workers: both."""

    def __init__(self) -> None:
        self._before_s = self._start_s = 0.0
        self._tests: dict[str, float] = {}
        self._starts_s: list[float] = []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._before_s = self._start_s = used_s()
        getattr(session.config, "workeroutput", {})[NAME] = self._start_s

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        now_s = used_s()
        # What nobody waited for, such as a browser's helpers, is gone with its time.
        report.user_properties.append((NAME, max(0.0, now_s - self._before_s)))
        self._before_s = now_s
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        measured: list[Any] = [value for name, value in report.user_properties if name == NAME]
        self._tests[report.nodeid] = self._tests.get(report.nodeid, 0.0) + sum(measured)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self._starts_s.append(node.workeroutput[NAME])

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        most: int = config.getoption("--costs")
        files: dict[str, float] = {}
        for test, cost_s in self._tests.items():
            file = test.partition("::")[0]
            files[file] = files.get(file, 0.0) + cost_s
        starts_s = sum(self._starts_s or [self._start_s])
        terminalreporter.section("CPU seconds")
        terminalreporter.write_line(f"{used_s():8.2f} in all")
        terminalreporter.write_line(f"{sum(files.values()):8.2f} tests")
        terminalreporter.write_line(f"{starts_s:8.2f} starts of {len(self._starts_s) or 1} workers, imports included")
        for title, costs in (("by file", files), ("by test", self._tests)):
            terminalreporter.section(title, sep="-")
            for name, cost_s in sorted(costs.items(), key=itemgetter(1), reverse=True)[:most]:
                terminalreporter.write_line(f"{cost_s:8.2f} {name}")


def used_s() -> float:
    """CPU time of this process and all that it has started so far."""
    ended = os.times()
    waiting, total_s = [*_children(os.getpid()), *Forked.running], time.process_time() + Forked.ended_s
    total_s += ended.children_user + ended.children_system
    while waiting:
        pid = waiting.pop()
        waiting += _children(pid)
        total_s += _of(pid)
    return total_s


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    except OSError:  # it has just ended
        pass
    return found


def _of(pid: int) -> float:
    """Its own, and that of children it has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) * TICK_S
