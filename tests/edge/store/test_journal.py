"""Log lines with the priorities of systemd's journal, and plain ones elsewhere."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

PROGRAM = """
import logging
from edge.store.journal import set_up
set_up()
log = logging.getLogger("tagtrail.x")
log.info("fine"); log.warning("hm"); log.error("bad")
try: 1 / 0
except ZeroDivisionError: log.exception("worse")
"""
PLAIN = ["INFO tagtrail.x: fine", "WARNING tagtrail.x: hm", "ERROR tagtrail.x: bad", "ERROR tagtrail.x: worse"]


def lines(program: str = PROGRAM, **environment: str) -> list[str]:
    there = {name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"} | environment
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=there, check=False)
    return done.stderr.splitlines()


def test_each_line_has_its_priority_in_the_journal_those_of_a_traceback_too() -> None:
    found = lines(JOURNAL_STREAM="8:1234")
    assert found[:4] == [f"<{n}>{line}" for n, line in zip((6, 4, 3, 3), PLAIN, strict=True)]
    assert len(found) > 6
    assert all(line.startswith("<3>") for line in found[3:])
    assert found[-1] == "<3>ZeroDivisionError: division by zero"


def test_elsewhere_lines_are_plain() -> None:
    assert lines()[:4] == PLAIN


def test_a_terminal_within_a_unit_is_no_journal() -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"JOURNAL_STREAM": "8:1234"}
    subprocess.run([sys.executable, "-c", PROGRAM], stderr=theirs, env=environment, check=False)
    os.close(theirs)
    assert os.read(ours, 100).startswith(b"INFO tagtrail.x: fine")
    os.close(ours)


@pytest.mark.parametrize(("stream", "begin"), [("8:1234", "<3>tagtrail: "), ("", "tagtrail: ")])
def test_why_a_command_failed_has_one_too(stream: str, begin: str, tmp_path: object) -> None:
    program = f"""
import sys
sys.argv = ["tagtrail", "summary", "--config", "{tmp_path}/store.toml"]
import edge.cli.main as cli
from edge.store.errors import Trouble
def fail(*_, **__): raise Trouble("no")
cli.app, cli.entry_points = fail, lambda **_: ()
cli.main()
"""
    environment = {"JOURNAL_STREAM": stream} if stream else {}
    assert lines(program, **environment) == [f"{begin}no"]
