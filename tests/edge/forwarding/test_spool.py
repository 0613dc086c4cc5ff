"""What a forwarder keeps on disk: within its quota, over torn ends, with every number once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.session import Link, Notice, ReaderStatus
from edge.forwarding import records, spool
from edge.forwarding.records import Begun, Dropped, Linked, Malformed, Record, Said, decoded, frames
from edge.forwarding.sender import Base
from edge.forwarding.spool import Spool, Stamp
from edge.store.errors import Trouble

UP = Linked(ReaderStatus("r", Link.UP, "taking inventory", 1))
QUOTA = 1 << 20


class Time:
    us = 1_800_000_000_000_000

    def __call__(self) -> Stamp:
        self.us += 1_000
        return Stamp(self.us, self.us - 1_700_000_000_000_000, True)


def opened(folder: Path, time: Time) -> Spool:
    return Spool(folder, QUOTA, "boot", time, lambda: [UP])


def kept(it: Spool) -> Iterator[tuple[str, Record]]:
    for file in it.files:
        for _, payload in frames(file.path.read_bytes()):
            yield file.life, decoded(payload)


def said(n: int) -> Said:
    return Said(Notice("r", n, os.urandom(500).hex()))


def test_the_oldest_go_first_and_leave_the_time_that_they_held(tmp_path: Path) -> None:
    it = opened(tmp_path / "s", Time())
    for n in range(3000):
        it.append(said(n))
    assert it.size <= QUOTA
    found = [record for _, record in kept(it)]
    numbers = [record.seq for record in found if not isinstance(record.what, Begun | Dropped)]
    assert numbers == sorted(numbers)
    assert found[-1].seq == it.seq
    [gone] = [record.what for record in found if isinstance(record.what, Dropped)]
    first = next(record for record in found if isinstance(record.what, Said))
    assert gone.from_us < gone.to_us < first.at_us
    assert first.at_us - gone.to_us < 10_000
    # Each file tells anew how the readers are.
    assert sum(isinstance(record.what, Linked) for record in found) == sum(not file.stub for file in it.files)
    it.close()
    again = opened(tmp_path / "s", Time())
    assert [record.what for _, record in kept(again) if isinstance(record.what, Dropped)] == [gone]
    again.close()


def test_what_is_acknowledged_is_deleted_and_no_number_is_given_twice(tmp_path: Path) -> None:
    time = Time()
    it = opened(tmp_path / "s", time)
    for n in range(200):
        it.append(said(n))
    half = it.seq // 2
    it.acknowledged(it.life, half)
    assert min(record.seq for _, record in kept(it)) <= half + 1
    assert it.file_after(it.life, half) is it.files[0]
    it.close()
    whole = it.files[-1].path.read_bytes()
    it.files[-1].path.write_bytes(whole[:-7])
    again = opened(tmp_path / "s", time)
    again.append(said(1))
    numbers = [(life, record.seq) for life, record in kept(again)]
    assert len(numbers) == len(set(numbers))
    assert again.file_after("unknown", 7) is again.files[0]
    again.acknowledged(again.life, again.seq)
    assert {life for life, _ in kept(again)} == {again.life}
    again.close()


def test_a_full_disk_is_told_once_it_takes_something_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    it = opened(tmp_path / "s", Time())
    write, full = os.write, True

    def sometimes(out: int, data: bytes) -> int:
        return write(out, data[:5] if full else data)

    monkeypatch.setattr(spool.os, "write", sometimes)
    before = it.seq
    it.append(said(1))
    it.append(said(2))
    full = False
    it.append(said(3))
    assert it.seq == before + 2
    last = [record for _, record in kept(it)][-2:]
    assert isinstance(last[0].what, Dropped)
    assert last[0].what.to_us > last[0].what.from_us
    assert last[1].seq == it.seq
    it.close()


@pytest.mark.parametrize("failures", [1, 2])
def test_a_full_disk_above_the_quota_leaves_only_files_that_can_be_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    """There is room for what a file leaves once it is gone, or not even then."""
    it = opened(tmp_path / "s", Time())
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        nonlocal failures
        if failures:
            failures -= 1
            write(path, data[:10])
            raise OSError(28, "No space left on device")
        return write(path, data)

    while not it.dropped:
        monkeypatch.setattr(Path, "write_bytes", full)
        it.append(said(it.seq))
    for file in it.files:
        data = file.path.read_bytes()
        assert len(data) == file.size
        assert [end for end, _ in frames(data)][-1] == len(data), "to the last byte"
    told = [record.what for _, record in kept(it) if isinstance(record.what, Dropped)]
    assert len(told) == it.files[0].stub
    assert {file.path for file in it.files} == set(tmp_path.glob("s/0*"))
    it.close()


def test_what_another_release_has_kept_does_not_stop_this_one(tmp_path: Path) -> None:
    it = opened(tmp_path / "s", Time())
    it.append(said(1))
    it.close()
    other = tmp_path / "s" / f"{0:012d}-other"
    other.write_bytes(records.frame(b"\x93another form of a record"))
    again = opened(tmp_path / "s", Time())
    assert not other.exists()
    assert any(isinstance(record.what, Said) for _, record in kept(again))
    again.close()


def test_two_processes_can_not_have_it(tmp_path: Path) -> None:
    it = opened(tmp_path / "s", Time())
    with pytest.raises(Trouble, match="another forwarder"):
        opened(tmp_path / "s", Time())
    it.close()


@given(st.binary(max_size=300))
def test_any_bytes_are_frames_or_not(data: bytes) -> None:
    for end, payload in frames(data):
        assert end <= len(data)
        with pytest.raises(Malformed):
            decoded(payload)
    with pytest.raises(Malformed):
        decoded(data)


@pytest.mark.parametrize("n", [0, -1, 7, records.READS_MAX + 1])
def test_reads_that_are_not_as_many_as_told_are_refused(n: int) -> None:
    with pytest.raises(Malformed):
        records.unpacked(records.Read([("r", n)], records._packer.compress(bytes(3 * records.READ.itemsize))))


def test_the_service_s_time_is_that_of_the_message_least_delayed() -> None:
    base = Base(1.0)
    for at, delay_us in enumerate([3_000, 200, 90_000, 400_000, 250]):
        base.heard(10_000_000_000 + at * 1_000_000, at * 1_000_000 + delay_us)
    assert base.us is not None
    assert abs(base.us - 10_000_000_000) < 10_000
    for at in range(5, 8):  # the service's clock is set back by an hour
        base.heard(6_400_000_000 + at * 1_000_000, at * 1_000_000 + 100)
    assert abs(base.us - 6_400_000_000) < 10_000
