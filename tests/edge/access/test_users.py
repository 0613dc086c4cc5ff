"""Users, sessions, throttling and audit log, and the commands that make users."""

from __future__ import annotations

import sqlite3
import subprocess
from contextlib import suppress
from pathlib import Path

import forked
import pages
import pytest
import tomli_w
from shopdays import store_values

from edge.access.passwords import scrypt
from edge.access.users import (
    ADDRESS_TRIES,
    DEVICE_S,
    FREE_TRIES,
    IDLE_S,
    KEEP_AUDIT_S,
    LOCK_S,
    LOOK_S,
    PIN_TRIES,
    Role,
    Throttled,
    Users,
    users_path,
)
from edge.store.errors import Trouble

PASSWORD = "correct horse battery"


class Hands:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def users(tmp_path: Path, clock: Hands) -> Users:
    return Users(tmp_path / "store.web.db", clock)


cheap_passwords = pages.cheap_passwords


def test_a_password_costs_16_mib_and_five_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert scrypt(PASSWORD).startswith("scrypt$16384$8$5$")
    assert scrypt(PASSWORD) != scrypt(PASSWORD), "salted"


def test_there_is_nobody_until_the_console_says_so(users: Users, tmp_path: Path) -> None:
    assert not users.anyone()
    assert users.session("anything") is None
    assert list(tmp_path.iterdir()) == [], "looking makes no file"
    users.put("li", Role.MANAGER, PASSWORD)
    assert users.anyone()
    assert (tmp_path / "store.web.db").stat().st_mode & 0o077 == 0


def test_log_in_and_out(users: Users) -> None:
    users.put("li", Role.MANAGER, PASSWORD)
    assert users.log_in("li", "wrong horse battery", "here") is None
    assert users.log_in("LI", PASSWORD, "here") is None
    token = users.log_in("li", PASSWORD, "here")
    assert token is not None
    session = users.session(token)
    assert session is not None
    assert (session.name, session.role) == ("li", Role.MANAGER)
    assert users.session(token[:-1]) is None
    users.log_out(token)
    assert users.session(token) is None


def test_neither_passwords_nor_tokens_are_kept(users: Users, tmp_path: Path) -> None:
    users.put("li", Role.MANAGER, PASSWORD)
    token = users.log_in("li", PASSWORD, "here")
    assert token is not None
    kept = (tmp_path / "store.web.db").read_bytes()
    assert PASSWORD.encode() not in kept
    assert token.encode() not in kept


@pytest.mark.parametrize("poor", ["short", "aaaaaaaaaaaaaaa", "li-li-li-li-li", "x" * 2000])
def test_poor_passwords_are_refused(users: Users, poor: str) -> None:
    with pytest.raises(Trouble, match="password"):
        users.put("li", Role.VIEWER, poor)
    assert not users.anyone()


def test_a_new_password_or_role_ends_sessions(users: Users) -> None:
    users.put("li", Role.VIEWER, PASSWORD)
    token = users.log_in("li", PASSWORD, "here")
    users.put("li", Role.IT, PASSWORD + "!")
    assert users.session(token or "") is None
    assert users.log_in("li", PASSWORD, "here") is None


def test_idle_sessions_end_and_used_ones_go_on(users: Users, clock: Hands) -> None:
    users.put("li", Role.MANAGER, PASSWORD)
    token = users.log_in("li", PASSWORD, "here") or ""
    for _ in range(3):
        clock.now_s += IDLE_S["manager"] * 0.9
        assert users.session(token) is not None
    clock.now_s += IDLE_S["manager"] + 1
    assert users.session(token) is None


def test_too_many_wrong_passwords_have_to_wait_even_for_the_right_one(users: Users, clock: Hands) -> None:
    users.put("li", Role.MANAGER, PASSWORD)
    for _ in range(FREE_TRIES):
        assert users.log_in("li", "wrong wrong wrong", "a") is None
    with pytest.raises(Throttled):
        users.log_in("li", PASSWORD, "b")  # by name, from anywhere
    clock.now_s += 2
    assert users.log_in("li", "wrong wrong wrong", "a") is None
    with pytest.raises(Throttled) as second:
        users.log_in("li", PASSWORD, "a")
    assert second.value.wait_s == pytest.approx(2)
    clock.now_s += 3
    assert users.log_in("li", PASSWORD, "a") is not None


def test_who_tries_many_names_from_one_address_has_to_wait_too(users: Users) -> None:
    users.put("li", Role.MANAGER, PASSWORD)
    for n in range(ADDRESS_TRIES):
        assert users.log_in(f"somebody-{n}", "wrong wrong wrong", "a") is None
    with pytest.raises(Throttled):
        users.log_in("li", PASSWORD, "a")
    assert users.log_in("li", PASSWORD, "b") is not None


def test_ones_own_password_buys_no_guesses_at_others(users: Users, clock: Hands) -> None:
    """Neither from the address where the other has been, nor on the same device, nor by being right now and then."""
    users.put("li", Role.MANAGER, PASSWORD)
    users.put("wang", Role.VIEWER, PASSWORD)
    for name in ("li", "wang"):
        assert users.log_in(name, PASSWORD, "office", "shared") is not None
        users.trust(name, "shared")
    for device in ("", "shared"):
        guesses = 0
        for n in range(60):
            try:
                assert users.log_in("li", f"wrong wrong {n}", "office", device) is None
                guesses += 1
            except Throttled:
                pass
            if n % 4 == 3:
                assert users.log_in("wang", PASSWORD, "office", "shared") is not None
            clock.now_s += 0.5
        assert guesses <= FREE_TRIES + 6, device  # 1, 2, 4, 8, 16 s, however often somebody asks


def test_throttling_survives_a_restart(users: Users, clock: Hands, tmp_path: Path) -> None:
    users.put("li", Role.MANAGER, PASSWORD)
    for _ in range(FREE_TRIES):
        users.log_in("li", "wrong wrong wrong", "a")
    users.close()
    with pytest.raises(Throttled):
        Users(tmp_path / "store.web.db", clock).log_in("li", PASSWORD, "a")


def test_the_last_user_stays(users: Users) -> None:
    users.put("li", Role.MANAGER, PASSWORD)
    with pytest.raises(Trouble, match="last user"):
        users.remove("li")
    users.put("wang", Role.IT, PASSWORD)
    token = users.log_in("li", PASSWORD, "here") or ""
    assert users.remove("li")
    assert users.session(token) is None
    assert not users.remove("li")
    assert [user.name for user in users.users()] == ["wang"]


def test_a_damaged_file_lets_nobody_in(users: Users, tmp_path: Path) -> None:
    (tmp_path / "store.web.db").write_bytes(b"no database at all, but long enough to be looked at" * 99)
    with pytest.raises(Trouble, match="Create the users again"):
        users.anyone()


def test_the_audit_log_names_members_by_digest(users: Users) -> None:
    users.put("li", Role.MANAGER, PASSWORD)
    assert users.digest("M-1") == users.digest("M-1") != users.digest("M-2")
    users.record("li", "manager", "127.0.0.1", "looked at", users.digest("M-1"))
    assert [(line.name, line.action) for line in users.audit()] == [("li", "looked at")]


def test_commands(tmp_path: Path) -> None:
    file = tmp_path / "store.toml"
    file.write_text(tomli_w.dumps(store_values(tmp_path)))

    def tagtrail(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return forked.run("users", *arguments, "--config", file, given=given.encode())

    assert "at least 10" in tagtrail("set", "li", "--role", "manager", given="short\n").stderr
    made = tagtrail("set", "li", "--role", "manager", given=f"{PASSWORD}\n")
    assert (made.returncode, made.stdout) == (0, "user li set, role manager\n")
    assert tagtrail("set", "chen", "--role", "it", given=f"{PASSWORD}\n").returncode == 0
    assert tagtrail("list").stdout == "chen\tit\nli\tmanager\n"
    assert tagtrail("remove", "li").stdout == "user li removed\n"
    gone = tagtrail("remove", "li")
    assert (gone.returncode, gone.stderr) == (1, "tagtrail: no such user: li\n")
    with sqlite3.connect(tmp_path / "store.web.db") as conn:
        lines = conn.execute("SELECT name, action, object FROM audit ORDER BY id").fetchall()
    assert lines == [
        ("console", "user set", "li (manager)"),
        ("console", "user set", "chen (it)"),
        ("console", "user removed", "li"),
    ]


def test_tokens_of_programs_expire_and_are_kept_as_hashes(users: Users, clock: Hands, tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="create a user first"):
        users.make_token("reports")
    users.put("li", Role.MANAGER, PASSWORD)
    token = users.make_token("reports", days=2)
    with pytest.raises(Trouble, match="already"):
        users.make_token("reports")
    with pytest.raises(Trouble, match="invalid name"):
        users.make_token("two words")
    assert token.encode() not in (tmp_path / "store.web.db").read_bytes()
    assert users.programs()[0].used_s is None
    found = users.program(token)
    assert found is not None
    assert found.name == "reports"
    assert users.programs()[0].used_s == clock.now_s
    for wrong in ("", token[:-1], token + "x", "ttr_", PASSWORD):
        assert users.program(wrong) is None
    clock.now_s += 2 * 86_400 + 1
    assert users.program(token) is None
    assert not users.revoke_token("other")
    assert users.revoke_token("reports")
    assert users.program(users.make_token("reports")) is not None, "the name is free again"


def test_token_commands(tmp_path: Path) -> None:
    file = tmp_path / "store.toml"
    file.write_text(tomli_w.dumps(store_values(tmp_path)))

    def tagtrail(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return forked.run("users", *arguments, "--config", file, given=given.encode())

    assert "create a user first" in tagtrail("token", "make", "reports").stderr
    assert tagtrail("set", "li", "--role", "manager", given=f"{PASSWORD}\n").returncode == 0
    made = tagtrail("token", "make", "reports", "--days", "30")
    assert made.returncode == 0
    assert Users(tmp_path / "store.web.db").program(made.stdout.strip()) is not None
    name, _, _, used = tagtrail("token", "list").stdout.strip().split("\t")
    assert (name, used != "never") == ("reports", True)
    assert tagtrail("token", "revoke", "reports").stdout == "reports revoked\n"
    assert tagtrail("token", "revoke", "reports").stderr == "tagtrail: no such token: reports\n"
    with sqlite3.connect(tmp_path / "store.web.db") as conn:
        lines = conn.execute("SELECT action, object FROM audit WHERE action LIKE 'token%' ORDER BY id").fetchall()
    assert lines == [("token made", "reports"), ("token revoked", "reports")]


def test_the_file_lies_beside_the_database(tmp_path: Path) -> None:
    from config import StoreConfig

    assert users_path(StoreConfig.model_validate(store_values(tmp_path))) == tmp_path / "store.web.db"


def test_strangers_cannot_lock_a_user_out_of_a_known_device(users: Users, clock: Hands) -> None:
    users.put("li", Role.MANAGER, PASSWORD)
    users.trust("li", "li's phone")
    for address in ("stranger", "office"):
        for _ in range(FREE_TRIES):
            with suppress(Throttled):
                users.log_in("li", "wrong wrong wrong", address)
    with pytest.raises(Throttled):
        users.log_in("li", PASSWORD, "office")
    assert users.log_in("li", PASSWORD, "office", "li's phone") is not None
    with pytest.raises(Throttled):
        users.log_in("li", PASSWORD, "office", "made up")
    for _ in range(FREE_TRIES):
        assert users.log_in("li", "wrong wrong wrong", "office", "li's phone") is None
    with pytest.raises(Throttled):
        users.log_in("li", PASSWORD, "office", "li's phone")  # who guesses there waits there
    clock.now_s += DEVICE_S + 1
    for _ in range(FREE_TRIES):
        assert users.log_in("li", "wrong wrong wrong", "stranger") is None
    with pytest.raises(Throttled):
        users.log_in("li", PASSWORD, "office", "li's phone")


def test_a_new_password_forgets_devices(users: Users) -> None:
    users.put("li", Role.MANAGER, PASSWORD)
    users.trust("li", "lost phone")
    users.put("li", Role.MANAGER, PASSWORD + "!")
    for _ in range(FREE_TRIES):
        assert users.log_in("li", PASSWORD, "a", "lost phone") is None
    with pytest.raises(Throttled):
        users.log_in("li", PASSWORD + "!", "b")


@pytest.mark.parametrize(("role", "stays"), [("viewer", True), ("manager", False), ("it", False)])
def test_an_open_page_keeps_only_viewers_logged_in(users: Users, clock: Hands, role: str, stays: bool) -> None:
    users.put("li", Role(role), PASSWORD)
    token = users.log_in("li", PASSWORD, "a") or ""
    for _ in range(130):
        clock.now_s += IDLE_S[role] / 100
        users.session(token, watching=True)
    assert (users.session(token) is not None) is stays


def test_once_there_was_a_user_the_page_stays_closed(users: Users, tmp_path: Path, clock: Hands) -> None:
    assert not users.ever()
    users.put("li", Role.MANAGER, PASSWORD)
    users.close()
    (tmp_path / "store.web.db").unlink()
    again = Users(tmp_path / "store.web.db", clock)
    assert (again.anyone(), again.ever()) == (False, True)
    again.close()
    (tmp_path / "store.web.db.guarded").unlink()
    assert not Users(tmp_path / "store.web.db", clock).ever()
    (tmp_path / "store.web.db.corrupt-1").touch()  # moved aside before anybody had noticed that there were users
    assert Users(tmp_path / "store.web.db", clock).ever()


def test_users_of_before_close_the_page_for_good_too(users: Users, tmp_path: Path, clock: Hands) -> None:
    users.put("li", Role.MANAGER, PASSWORD)
    (tmp_path / "store.web.db.guarded").unlink()  # as made by a version that wrote no mark
    users.close()
    assert Users(tmp_path / "store.web.db", clock).ever()
    (tmp_path / "store.web.db").unlink()
    assert Users(tmp_path / "store.web.db", clock).ever()


def test_the_audit_log_is_read_in_pages_and_whole(users: Users) -> None:
    users.put("li", Role.MANAGER, PASSWORD)
    for n in range(7):
        users.record("li", "manager", "a", "export", str(n))
    first = users.audit(3)
    assert [line.object for line in first] == ["6", "5", "4"]
    assert [line.object for line in users.audit(9, first[-1].id)] == ["3", "2", "1", "0"]
    assert [line.object for line in users.whole_audit()] == list("6543210")


def test_a_list_that_stays_open_is_one_line_an_hour(users: Users, clock: Hands) -> None:
    users.put("li", Role.MANAGER, PASSWORD)
    for day in ("2026-03-14", "2026-03-14", "2026-03-15"):
        users.record_look("li", "manager", "a", "listed members", day)
    users.record_look("wang", "manager", "a", "listed members", "2026-03-15")
    assert len(users.audit()) == 3
    clock.now_s += LOOK_S + 1
    users.record_look("li", "manager", "a", "listed members", "2026-03-15")
    assert len(users.audit()) == 4


def test_what_is_too_old_is_deleted(users: Users, clock: Hands) -> None:
    users.put("li", Role.MANAGER, PASSWORD)
    users.record("li", "manager", "a", "export", "x")
    users.trust("li", "phone")
    manager = users.log_in("li", PASSWORD, "a", "phone") or ""
    users.log_in("li", "wrong wrong wrong", "b")
    clock.now_s += IDLE_S["manager"] + 1
    users.prune()
    assert [users._ask(f"SELECT COUNT(*) FROM {t}")[0][0] for t in ("session", "failure", "device")] == [0, 0, 1]
    assert users.session(manager) is None
    clock.now_s += KEEP_AUDIT_S
    users.prune()
    assert len(users.audit()) == 1, "whatever the clock says: it may be wrong for a moment"
    users.prune_audit(clock.now_s)
    assert [users._ask(f"SELECT COUNT(*) FROM {t}")[0][0] for t in ("device", "audit", "user")] == [0, 0, 1]


def test_throttled_tries_do_not_fill_the_audit_log(users: Users, clock: Hands) -> None:
    users.put("li", Role.MANAGER, PASSWORD)
    for name in ("li", "wang", "li"):
        users.record_throttled(name, "a")
    users.record_throttled("li", "b")
    assert [(line.name, line.address) for line in users.audit()] == [("li", "b"), ("li", "a")]
    clock.now_s += 1000
    users.record_throttled("li", "a")
    assert len(users.audit()) == 3


DAY_S = 9 * 3600.0


@pytest.fixture
def on_shift(users: Users) -> str:
    """The session of a manager with a PIN."""
    users.put("li", Role.MANAGER, PASSWORD)
    token = users.log_in("li", PASSWORD, "here", day_s=DAY_S) or ""
    assert users.set_pin(token, PASSWORD, "2580")
    return token


def locked(users: Users, token: str) -> bool | None:
    session = users.session(token)
    return None if session is None else session.locked


def test_a_session_is_locked_when_idle_and_opens_with_the_pin(users: Users, clock: Hands, on_shift: str) -> None:
    clock.now_s += LOCK_S
    assert locked(users, on_shift) is False
    clock.now_s += LOCK_S + 1
    assert locked(users, on_shift) is True
    assert locked(users, on_shift) is True, "looking does not unlock it"
    assert not users.unlock(on_shift, "2581")
    assert locked(users, on_shift) is True
    assert users.unlock(on_shift, "2580")
    assert locked(users, on_shift) is False


def test_without_a_pin_nothing_is_locked(users: Users, clock: Hands) -> None:
    users.put("li", Role.MANAGER, PASSWORD)
    token = users.log_in("li", PASSWORD, "here", day_s=DAY_S) or ""
    clock.now_s += DAY_S + 1
    assert locked(users, token) is False


def test_a_pin_is_of_no_use_after_the_day(users: Users, clock: Hands, on_shift: str) -> None:
    while clock.now_s < 1_000_000 + DAY_S - 600:
        clock.now_s += 600
        assert locked(users, on_shift) is False
    clock.now_s = 1_000_000 + DAY_S
    assert locked(users, on_shift) is None
    assert not users.unlock(on_shift, "2580")


def test_wrong_pins_end_the_session_however_slowly_they_come(users: Users, clock: Hands, on_shift: str) -> None:
    for _ in range(PIN_TRIES - 1):
        clock.now_s += LOCK_S + 1
        assert not users.unlock(on_shift, "1111")
    assert users.unlock(on_shift, "2580"), "and the right one forgets them"
    clock.now_s += LOCK_S + 1
    for _ in range(PIN_TRIES):
        assert locked(users, on_shift) is True
        assert not users.unlock(on_shift, "1111")
    assert locked(users, on_shift) is None
    assert not users.unlock(on_shift, "2580")


def test_a_pin_opens_no_other_session(users: Users, clock: Hands, on_shift: str) -> None:
    clock.now_s += LOCK_S + 1
    for stranger in ("", "made up", on_shift[:-1]):
        assert not users.unlock(stranger, "2580")
    users.log_out(on_shift)
    assert not users.unlock(on_shift, "2580")
    users.put("wu", Role.MANAGER, PASSWORD)
    other = users.log_in("wu", PASSWORD, "here", day_s=DAY_S) or ""
    users.set_pin(other, PASSWORD, "9137")
    clock.now_s += LOCK_S + 1
    assert not users.unlock(other, "2580")
    assert users.unlock(other, "9137")


def test_a_pin_is_set_and_removed_with_the_password(users: Users, clock: Hands, on_shift: str, tmp_path: Path) -> None:
    assert not users.set_pin(on_shift, "wrong horse battery", "1379")
    assert not users.set_pin(on_shift, "wrong horse battery", None)
    with sqlite3.connect(tmp_path / "store.web.db") as conn:
        ((kept,),) = conn.execute("SELECT hash FROM pin")
    assert kept.startswith("scrypt$")
    clock.now_s += LOCK_S + 1
    assert not users.set_pin(on_shift, PASSWORD, "1379"), "not while it is locked"
    assert users.unlock(on_shift, "2580")
    assert users.set_pin(on_shift, PASSWORD, None)
    clock.now_s += LOCK_S + 1
    assert locked(users, on_shift) is False
    for _ in range(FREE_TRIES):
        users.set_pin(on_shift, "wrong horse battery", "1379")
    with pytest.raises(Throttled):
        users.set_pin(on_shift, PASSWORD, "1379")


@pytest.mark.parametrize("poor", ["", "123", "1234", "4321", "9012", "7777", "123456789", "12a4", "١٢٣٥"])
def test_poor_pins_are_refused(users: Users, on_shift: str, poor: str) -> None:
    with pytest.raises(Trouble, match="PIN"):
        users.set_pin(on_shift, PASSWORD, poor)


def test_a_new_password_ends_the_pin(users: Users, clock: Hands, on_shift: str) -> None:
    users.put("li", Role.MANAGER, PASSWORD + "!")
    token = users.log_in("li", PASSWORD + "!", "here", day_s=DAY_S) or ""
    clock.now_s += LOCK_S + 1
    assert locked(users, token) is False


def test_viewers_have_no_pin(users: Users) -> None:
    users.put("wall", Role.VIEWER, PASSWORD)
    token = users.log_in("wall", PASSWORD, "here", day_s=DAY_S) or ""
    assert not users.set_pin(token, PASSWORD, "2580")


def test_a_file_of_an_earlier_release_gets_pins(tmp_path: Path, clock: Hands) -> None:
    before = Users(tmp_path / "store.web.db", clock)
    before.put("li", Role.MANAGER, PASSWORD)
    token = before.log_in("li", PASSWORD, "here") or ""
    before._do("DROP TABLE pin", ())
    before._do("DROP TABLE shift", ())
    before.close()
    users = Users(tmp_path / "store.web.db", clock)
    assert users.set_pin(token, PASSWORD, "2580")
    clock.now_s += LOCK_S + 1
    assert locked(users, token) is True
    assert users.unlock(token, "2580")
