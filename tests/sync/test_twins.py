"""What the states that the broker delivers tell of other gateways."""

from __future__ import annotations

import pytest

from sync.contract import State
from sync.twins import TwinError, Twins


def state(instance: str, started_us: int, online: bool = True) -> bytes:
    return (
        State(
            store="s1",
            online=online,
            version="1",
            epoch="0" * 16,
            config_generation="g",
            directory_generation=0,
            instance=instance,
            started_us=started_us,
        )
        .model_dump_json()
        .encode()
    )


OURS = state("ours", 2)


@pytest.fixture
def twins() -> Twins:
    made = Twins("ours", 2)
    made.connected()
    return made


@pytest.mark.parametrize("online", [False, True])
def test_an_earlier_process_is_no_twin_though_what_is_retained_of_it_comes_late(twins: Twins, online: bool) -> None:
    assert twins.look(OURS) is None
    assert twins.look(state("earlier", 1, online), retained=True) is None
    assert twins.look(state("earlier", 1, online=False)) is None  # its last will


@pytest.mark.parametrize("online", [False, True])
def test_a_gateway_that_was_there_before_us_keeps_us_away(twins: Twins, online: bool) -> None:
    twins.look(OURS)
    with pytest.raises(TwinError, match="started 1"):
        twins.look(state("elder", 1, online))


def test_a_gateway_that_came_after_us_is_told(twins: Twins) -> None:
    twins.look(OURS)
    assert "another gateway publishes" in (twins.look(state("younger", 3)) or "")


def test_what_is_retained_on_a_later_connection_was_written_over_ours(twins: Twins) -> None:
    twins.look(OURS)
    twins.connected()
    with pytest.raises(TwinError):
        twins.look(state("elder", 1), retained=True)
