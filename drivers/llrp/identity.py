"""Whether a reader is the one in the store file, and the same as before."""

from __future__ import annotations

from drivers.links import LinkFailure
from drivers.llrp import codec
from drivers.llrp.ports import Tell
from drivers.llrp.state import Memory


def check_identity(wanted: str | None, identity: str | None, memory: Memory, peer: str, tell: Tell) -> None:
    """Remember a reader's identity; LinkFailure if another one is `wanted`. Changes are told."""
    if wanted is not None and (identity is None or codec.plain(identity) != codec.plain(wanted)):
        raise LinkFailure(
            f"the reader at {peer} is {codec.shown(identity)}, not {codec.shown(wanted)} as the store "
            "file says: have two readers swapped addresses, or was this one replaced?"
        )
    if identity is not None:
        before = memory.identity
        if before is not None and before != identity:
            tell(
                f"another reader than before answers at {peer}: {identity} instead of {before}; "
                "check that its antennas are where the store file says"
            )
        memory.identity = identity
