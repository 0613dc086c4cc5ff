"""What the CRM sends down to a running service: commands, configuration, directory; and what it answers to nonsense."""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import hashlib
import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from gateways import STORE, Gateway, antennas, member_card
from headquarters import directory_file, headquarters
from llrpkit.emulator import EmulatedTag, LLRPEmulator

from config.check import ConfigError, load
from dwell.markov.field import Field
from edge.crm import configuration
from edge.crm.configuration import Overlay, merged
from edge.store import calibration_file
from edge.store.compose import compose
from simulators.headquarters.broker import NatsBroker
from sync.mqtt import Incoming

SECTIONS = ("store", "floors", "zones", "tag_classes")


def now_us() -> int:
    return time.time_ns() // 1000


async def test_commands_are_done_once_answered_and_refused_with_a_reason(gateway: Gateway, nats: NatsBroker) -> None:
    gateway.configure(mqtt={"url": nats.url})
    async with headquarters(nats.url) as hq:
        gateway.start("--no-web")
        await gateway.until(lambda s: s["broker"]["connected"])
        ping = await hq.command("c1", "ping")
        assert ping["state"] == "applied"
        assert ping["output"]["version"]
        states = [r["state"] for r in hq.came["up/result"] if r["id"] == "c1"]
        assert states == ["received", "applied"]

        diagnosis = await hq.command("c2", "diagnostics")
        assert diagnosis["output"]["broker"]["connected"]
        assert (await hq.command("c3", "summary"))["output"]["store"]

        # Everything acknowledged or not is sent again, with its old ids.
        epoch = ping["output"]["epoch"]
        await hq.first("up/health", lambda b: b["first"] == 1)
        sent = len(hq.came["up/health"])
        again = await hq.command("c4", "replay", **{"class": "health", "epoch": epoch, "from": 1, "to": 10**6})
        assert again["output"]["events"] >= 1
        assert again["output"]["lost"] == 0
        assert any(b["first"] == 1 for b in hq.came["up/health"][sent:])
        other = await hq.command("c5", "replay", **{"class": "health", "epoch": "x", "from": 1, "to": 2})
        assert other["state"] == "failed"

        for id_, order, reason in (
            ("r1", hq.order("r1", "ping", expires_us=now_us() - 1), "expired"),
            ("r2", hq.order("r2", "ping", expires_us=now_us() + 10**13), "7 days"),
            ("r3", hq.order("r3", "format-disk"), "format-disk"),
            ("r4", hq.order("r4", "replay", **{"class": "health", "epoch": "e", "from": 5, "to": 2}), "from is after"),
            ("r5", hq.order("r5", "capture", seconds="5"), "seconds"),
            ("", b"\xff\x00", "JSON"),
            ("", rb'{"id":"\ud800"}', "JSON"),
            ("", json.dumps(hq.order("r6", "erase", member="x" * 5000)).encode(), "the limit is"),
        ):
            came = len(hq.came["up/result"])
            await hq.send("down/cmd", order)
            async with asyncio.timeout(30):
                while len(hq.came["up/result"]) == came:
                    await asyncio.sleep(0.02)
            refusal = hq.came["up/result"][-1]
            assert (refusal["id"], refusal["state"]) == (id_, "refused"), refusal
            assert reason.lower() in refusal["reason"].lower()
        assert (await hq.command("c6", "restart-reader", reader="nobody"))["state"] == "failed"

        # Under its id a command is done once, also after a restart.
        assert gateway.end() == 0, gateway.log()
        gateway.start("--no-web")
        await gateway.until(lambda s: s["broker"]["connected"])
        hq.came["up/result"].clear()
        assert (await hq.command("c1", "ping"))["at_us"] == ping["at_us"]

        # A reload reads the file anew, in the same process.
        pid = gateway.process.pid if gateway.process else 0
        gateway.configure(mqtt={"url": nats.url}, zones=STORE["zones"][:3])
        assert (await hq.command("c7", "reload"))["state"] == "applied"
        state = await gateway.until(lambda s: len(s["zones"]) == 3 and s["broker"]["connected"])
        assert state["pid"] == pid
        gateway.file.write_text("nonsense")
        failed = await hq.command("c8", "reload")
        assert failed["state"] == "failed"
        assert "TOML" in failed["reason"]
        gateway.configure(mqtt={"url": nats.url})

        hq.came["up/result"].clear()
        for n in range(200):
            await hq.send("down/cmd", hq.order(f"f{n}", "ping"))
        await hq.send("down/cmd", b"x")
        await gateway.until(lambda s: s["broker"]["connected"])
        assert len({r["id"] for r in hq.came["up/result"]}) < 60
    assert gateway.end() == 0, gateway.log()


async def test_a_reader_is_restarted_and_captured_and_a_member_erased(gateway: Gateway, nats: NatsBroker) -> None:
    tags = [EmulatedTag(member_card(n), (1 + n % 2,)) for n in range(3)]
    async with LLRPEmulator(tags=tags, reads_per_sec=100) as reader, headquarters(nats.url) as hq:
        address = f"127.0.0.1:{reader.port}"
        gateway.configure(
            mqtt={"url": nats.url},
            readers=[{"id": "r1", "driver": "llrp", "address": address, "antennas": antennas("door", "shoes")}],
        )
        rows = [f"{member_card(n).hex()},M{n},A,1,welcome," for n in range(3)]
        entry, packed = directory_file(rows, 1)
        hq.files[entry["sha256"]] = packed
        manifest = {"generation": 1, "valid_until_us": now_us() + 10**12, "files": [entry]}
        await hq.send("down/directory", manifest, retain=True)
        gateway.start("--no-web")
        state = await gateway.until(lambda s: s["reads"] > 50)
        await hq.first("up/directory", lambda m: m["state"] == "applied" and m["members"] == 3)
        capture = asyncio.create_task(hq.command("c2", "capture", seconds=2, reader="r1"))
        restart = await hq.command("c1", "restart-reader", reader="r1")
        assert (await capture)["state"] == "applied"
        assert restart["state"] == "applied"
        captured = (await capture)["output"]
        assert captured["reads"] > 0
        text = gzip.decompress((gateway.folder / captured["file"]).read_bytes()).decode()
        assert text.count("\n") == captured["reads"] + 1
        assert not any(member_card(n).hex().upper() in text.upper() for n in range(3))
        state = await gateway.until(lambda s: len(s["members"]) == 3)
        cue = (await hq.first("up/member", lambda b: b["n"] > 0))["events"][0]
        assert cue["hint"] == "welcome"

        receipt = await hq.command("c3", "erase", member="M1")
        assert receipt["state"] == "applied", receipt
        assert receipt["output"]["directory"] == 1
        state = await gateway.until(lambda s: len(s["members"]) == 2)
        assert {m["member"] for m in state["members"]} == {"M0", "M2"}

        # Consent taken back: gone at once, though no file says so.
        manifest = {"generation": 1, "valid_until_us": now_us() + 10**12, "files": [entry], "withdrawn": ["M0"]}
        await hq.send("down/directory", manifest, retain=True)
        await gateway.until(lambda s: {m["member"] for m in s["members"]} == {"M2"})

        # A card is issued anew: changes only, the old card out, the new one in.
        entry2, packed2 = directory_file([f"{member_card(2).hex()},,,,,", f"{member_card(9).hex()},M2,A,1,,"], 2, 1)
        hq.files[entry2["sha256"]] = packed2
        manifest = {"generation": 2, "valid_until_us": now_us() + 10**12, "files": [entry, entry2]}
        await hq.send("down/directory", manifest, retain=True)
        applied = await hq.first("up/directory", lambda m: m["state"] == "applied" and m["generation"] == 2)
        assert applied["members"] == 1
        await hq.first("state", lambda state: state["directory_generation"] == 2)
        await gateway.until(lambda s: not s["members"])

        # Its time runs out: closed.
        manifest = {"generation": 2, "valid_until_us": now_us() - 1, "files": [entry, entry2]}
        await hq.send("down/directory", manifest, retain=True)
        await hq.first("up/directory", lambda m: m["state"] == "expired")
    assert gateway.end() == 0, gateway.log()
    everything = b"".join(file.read_bytes() for file in gateway.folder.glob("store.db*"))
    assert b'"M1"' not in everything


async def test_bad_directories_are_refused_and_a_cut_off_one_is_resumed(gateway: Gateway, nats: NatsBroker) -> None:
    gateway.configure(mqtt={"url": nats.url})
    rows = [f"{member_card(n).hex()},M{n}-{hashlib.sha256(b'%d' % n).hexdigest()},A,1,," for n in range(6000)]
    entry, packed = directory_file(rows, 3)
    assert len(packed) > 4 * 48 * 1024
    async with headquarters(nats.url) as hq:
        gateway.start("--no-web")
        await gateway.until(lambda s: s["broker"]["connected"])
        valid_until_us = now_us() + 10**12
        bad, bad_packed = directory_file(["zz,M1,A,1,,"], 2)
        for manifest, reason in (
            (b"{}", "manifest"),
            ({"generation": 2, "valid_until_us": valid_until_us, "files": []}, "no files lead"),
        ):
            await hq.send("down/directory", manifest)
            await hq.first("up/directory", lambda m, r=reason: m["state"] == "failed" and r in m["reason"])
        hq.files[bad["sha256"]] = bad_packed
        await hq.send("down/directory", {"generation": 2, "valid_until_us": valid_until_us, "files": [bad]})
        await hq.first("up/directory", lambda m: "line 2 is not a member" in m["reason"])

        # The line is cut in the middle; the next life of the service goes on where this one was.
        hq.files[entry["sha256"]] = packed[: 3 * 48 * 1024]
        manifest = {"generation": 3, "valid_until_us": valid_until_us, "files": [entry]}
        await hq.send("down/directory", manifest, retain=True)
        await hq.first("up/directory/want", lambda w: w["sha256"] == entry["sha256"])
        part = next(iter(gateway.folder.glob("store.db.directory-*.part")), Path("none"))
        async with asyncio.timeout(30):
            while not part.exists() or part.stat().st_size < 3 * 48 * 1024:
                part = next(iter(gateway.folder.glob("store.db.directory-*.part")), part)
                await asyncio.sleep(0.1)
        gateway.end(signal.SIGKILL)
        hq.files[entry["sha256"]] = packed
        hq.came["up/directory/want"].clear()
        gateway.start("--no-web")
        await hq.first("up/directory", lambda m: m["state"] == "applied" and m["members"] == 6000)
        assert min(w["offset"] for w in hq.came["up/directory/want"]) >= 3 * 48 * 1024
    assert gateway.end() == 0, gateway.log()
    assert not list(gateway.folder.glob("store.db.directory-*"))
    assert member_card(1) not in gateway.database.read_bytes()


def push_of(generation: int, **sections: Any) -> dict[str, Any]:
    text = tomli_w.dumps({name: STORE[name] for name in SECTIONS} | sections)
    return {"generation": generation, "sha256": hashlib.sha256(text.encode()).hexdigest(), "toml": text}


async def test_a_configuration_is_tried_applied_reported_and_refused(gateway: Gateway, nats: NatsBroker) -> None:
    gateway.configure(mqtt={"url": nats.url})
    async with headquarters(nats.url) as hq:
        gateway.start("--no-web")
        await gateway.until(lambda s: s["broker"]["connected"] and len(s["zones"]) == 4)
        good = push_of(5, zones=STORE["zones"][:3])
        await hq.send("down/config", good, retain=True)
        report = await hq.first("up/config", lambda m: m["state"] == "applied")
        assert (report["generation"], report["running"], report["sha256"]) == (5, 5, good["sha256"])
        assert {"mqtt", "database"} <= set(report["kept"])
        assert "zones" not in report["kept"]
        await gateway.until(lambda s: len(s["zones"]) == 3)
        check = gateway.run("summary", "-c", str(gateway.file))
        assert check.returncode == 0, check.stderr
        for generation, bad, reason in (
            (6, push_of(6, mqtt={"url": "mqtt://elsewhere"}), "may not set mqtt"),
            (7, push_of(7, zones=[]), "zones"),
            (8, push_of(8) | {"sha256": "0" * 64}, "hash"),
            (4, push_of(4), "generation 5 is active"),
            (9, push_of(9, store=STORE["store"] | {"id": "s2"}), "[store] id"),
        ):
            await hq.send("down/config", bad, retain=True)
            failed = await hq.first(
                "up/config", lambda m, g=generation: m["generation"] == g and m["state"] == "failed"
            )
            assert reason in failed["reason"]
            assert failed["running"] == 5
        # By hand beats by message.
        assert gateway.end() == 0, gateway.log()
        gateway.configure(mqtt={"url": nats.url}, zones=STORE["zones"][:2])
        await hq.send("down/config", b"", retain=True)
        gateway.start("--no-web")
        await hq.first("up/config", lambda m: m["state"] == "rolled_back" and "has been changed" in m["reason"])
        await gateway.until(lambda s: len(s["zones"]) == 2)
    assert gateway.end() == 0, gateway.log()


OWN: dict[str, Any] = {
    "readers": [{"id": "r1", "driver": "llrp", "address": "r1", "antennas": antennas("door", "shoes")}],
    "opening_hours": [{"open": "10:00", "close": "22:00"}],
    "special_days": [{"date": dt.date(2026, 2, 17), "name": "New Year"}],
    "promotions": [
        {
            "id": "sale",
            "name": {"zh": "促销", "en": "Sale"},
            "zones": ["bags"],
            "first_day": dt.date(2026, 3, 1),
            "last_day": dt.date(2026, 3, 7),
        }
    ],
    "layout_changes": [{"id": "moved", "name": "Moved", "zones": ["shoes"], "date": dt.date(2026, 3, 2)}],
    "service_targets": [{"tier": "A", "wait_s": 60}],
    "thresholds": {"visit_s": 25, "def_version": 7},
    "cues": {"rules": [{"id": "own", "kind": "arrival"}]},
}
"""What a store keeps itself, by section."""


def test_sections_that_a_wish_does_not_carry_stay_the_stores_and_are_named(gateway: Gateway) -> None:
    gateway.configure(**OWN)
    own = load(gateway.file)
    made = merged(push_of(1)["toml"], own)
    assert made == own
    overlay = Overlay(own, gateway.file)
    one = push_of(1)
    overlay.try_out(1, one["sha256"], one["toml"])
    assert overlay.kept() == (sorted({*OWN, "mqtt", "database", "web"}), [])
    assert overlay.config() == own


@pytest.mark.parametrize(
    ("section", "theirs"),
    [
        ("readers", []),
        ("opening_hours", []),
        ("special_days", []),
        ("promotions", []),
        ("layout_changes", []),
        ("service_targets", [{"tier": "B", "wait_s": 30}]),
        ("thresholds", {"touch_s": 4}),
        ("cues", {"rules": [{"id": "theirs", "kind": "arrival"}]}),
    ],
)
def test_a_section_that_a_wish_carries_replaces_the_stores_whole(gateway: Gateway, section: str, theirs: Any) -> None:
    gateway.configure(**OWN)
    own = load(gateway.file)
    made = merged(push_of(1, **{section: theirs})["toml"], own)
    assert getattr(made, section) == getattr(
        type(own).model_validate(STORE | {"database": {"path": "x"}, section: theirs}), section
    )
    assert made.model_copy(update={section: getattr(own, section)}) == own
    overlay = Overlay(own, gateway.file)
    one = push_of(1, **{section: theirs})
    overlay.try_out(1, one["sha256"], one["toml"])
    assert section not in overlay.kept()[0]


def test_what_the_store_keeps_must_fit_what_the_wish_brings(gateway: Gateway) -> None:
    gateway.configure(**OWN)
    with pytest.raises(ConfigError, match=r"the store's own file: promotions\[0\].zones.*bags"):
        merged(push_of(1, zones=[zone for zone in STORE["zones"] if zone["id"] != "bags"])["toml"], load(gateway.file))


def test_a_calibration_stays_while_the_layout_does_and_is_told_of_when_it_cannot(gateway: Gateway) -> None:
    gateway.configure(**OWN)
    shop = compose(load(gateway.file))
    file = gateway.folder / "calibration.json"
    learnt = calibration_file.Calibration(Field.prior(shop.layout), 1, 1000, 10, 300, -2.0, -1.0)
    calibration_file.save(file, "s1", shop.layout, shop.zones, shop.ports, learnt)
    gateway.configure(**OWN, calibration={"file": str(file)})
    own = load(gateway.file)
    moved = [reader | {"antennas": antennas("door", "out")} for reader in OWN["readers"]]
    for sections, kept in (({}, True), ({"thresholds": {"touch_s": 4}}, True), ({"readers": moved}, False)):
        one = push_of(1, **sections)
        overlay = Overlay(own, gateway.file)
        overlay.try_out(1, one["sha256"], one["toml"])
        assert (overlay.config().calibration == own.calibration) == kept
        assert overlay.kept()[1] == ([] if kept else ["calibration"])
        assert ("calibration" in overlay.kept()[0]) == kept
        compose(overlay.config())
    with pytest.raises(ValueError, match="may not set calibration"):
        merged(push_of(1, calibration={"file": "elsewhere"})["toml"], own)


def test_a_configuration_that_did_not_live_is_taken_back(gateway: Gateway) -> None:
    gateway.configure()
    own = load(gateway.file)

    def overlay() -> Overlay:
        return Overlay(own, gateway.file)

    first, second = push_of(1, zones=STORE["zones"][:3]), push_of(2, zones=STORE["zones"][:2])
    for one in (first, second):
        trying = overlay()
        trying.try_out(one["generation"], one["sha256"], one["toml"])
        started = overlay()
        started.begin()
        if one is first:
            started.confirm()
    assert len(overlay().config().zones) == 2
    again = overlay()
    again.begin()  # the second start of one that was never confirmed
    assert (again.pushed.state, again.pushed.running) == ("rolled_back", 1)
    assert len(overlay().config().zones) == 3


@pytest.mark.parametrize("writes", [0, 1])
def test_a_configuration_that_could_not_be_written_leaves_what_ran(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """A disk that is full, or a kill, after so many files of it."""
    gateway.configure()
    own = load(gateway.file)
    first, second = push_of(1, zones=STORE["zones"][:3]), push_of(2, zones=STORE["zones"][:2])
    running = Overlay(own, gateway.file)
    running.try_out(first["generation"], first["sha256"], first["toml"])
    running.confirm()
    replace, left = configuration._replace, [None] * writes

    def until_full(file: Path, text: str) -> None:
        if not left:
            raise OSError(28, "No space left on device")
        left.pop()
        replace(file, text)

    monkeypatch.setattr(configuration, "_replace", until_full)
    with pytest.raises(OSError, match="No space"):
        running.try_out(second["generation"], second["sha256"], second["toml"])
    after = Overlay(own, gateway.file)
    after.begin()
    assert (after.pushed.state, after.pushed.running, len(after.config().zones)) == ("applied", 1, 3)
    monkeypatch.setattr(configuration, "_replace", replace)
    running.refuse(second["generation"], second["sha256"], "the disk was full")
    assert (Overlay(own, gateway.file).pushed.running, len(Overlay(own, gateway.file).config().zones)) == (1, 3)


@pytest.mark.parametrize(
    ("saw", "well", "sees", "state", "reason"),
    [
        (True, True, True, "applied", ""),
        (False, True, False, "applied", ""),  # there was nothing to be lost
        (True, True, False, "rolled_back", "no reader was reached"),
        (True, False, True, "rolled_back", "the broker was not reached"),
    ],
)
async def test_the_self_test_wants_the_broker_and_the_readers_that_were_there(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, saw: bool, well: bool, sees: bool, state: str, reason: str
) -> None:
    monkeypatch.setattr(configuration, "SELF_TEST_S", 0.3)
    gateway.configure()
    one = push_of(1)
    Overlay(load(gateway.file), gateway.file).try_out(1, one["sha256"], one["toml"], saw=saw)
    overlay = Overlay(load(gateway.file), gateway.file)
    overlay.begin()
    said: list[dict[str, Any]] = []
    again: list[str] = []
    trial = configuration.Desired(
        overlay, now_us, lambda _, message: said.append(json.loads(message)), lambda: well, lambda: sees, again.append
    )
    running = asyncio.create_task(trial.run())
    async with asyncio.timeout(30):
        while overlay.pushed.state == "trying":
            await asyncio.sleep(0.01)
    running.cancel()
    assert (overlay.pushed.state, bool(again)) == (state, state == "rolled_back")
    assert reason in overlay.pushed.reason
    assert said[0]["state"] == "trying"


@pytest.mark.parametrize(
    "topic", ["down/directory/part/x/-1", f"down/directory/part/x/{'9' * 5000}", "down/directory/x"]
)
async def test_topics_that_name_no_part_are_nothing(gateway: Gateway, topic: str) -> None:
    from edge.crm.directory import MemberDirectory

    said: list[Any] = []
    members = MemberDirectory(
        None,  # type: ignore[arg-type]
        now_us,
        lambda *what: said.append(what),
        lambda: asyncio.sleep(0),
        lambda _: None,
    )
    await members.take(Incoming(f"tagtrail/v1/1/s1/{topic}", b"x", False))
    assert not said
    assert members._parts.empty()
