"""Why the others go on without a member: it ends, and says what its operator can do."""

from __future__ import annotations

from kybern.config.models import StoreConfig
from store.raft.messages import OtherDirectory


class Excluded(Exception):  # noqa: N818 - names what happened
    """The group does not let this member take part."""


def removed(config: StoreConfig) -> Excluded:
    """It was removed, and that is committed."""
    return Excluded(
        f"{config.name} was removed from the store's group {config.cluster_name!r} and ends. To come back it joins "
        f"anew, with nothing: `kybern store join` on this host puts what {config.data_dir} has aside and adds it again"
    )


def older_copy_led(config: StoreConfig, peer: str, forgotten: str) -> Excluded:
    """It has led with an older copy of its data directory: entries that it made may have the place of others."""
    return Excluded(
        f"{peer} knows that {config.data_dir} is an older copy of what it was ({forgotten}), and {config.name} has led "
        "the group with it: what it wrote may contradict what the others have. It takes no part any more: `kybern "
        "store join` on this host lets the member join anew, with all that the others have"
    )


def concerns(word: OtherDirectory, own_id: int, waited: float, config: StoreConfig) -> bool:
    """Whether such a word is about this member, which has waited for so many seconds to be let in.

    One that joins has the id 0 until it is let in, and is told by leaders alone. What a leader says that was replaced
    and does not know it yet may be about an earlier member of this name: such a one leads no longer than an election
    takes, and the group had another leader by the time that it let this member join.
    """
    return word.id == own_id or (not own_id and waited >= 2 * config.election_timeout_max)


def by_directory(config: StoreConfig, peer: str, word: OtherDirectory) -> Excluded:
    """The group has no place for a member with the data directory that this one has."""
    return _lost_directory(config, peer) if word.directory_id else _not_told(config, peer)


def _not_told(config: StoreConfig, peer: str) -> Excluded:
    """It is to join, and does not know: what told it so was lost, or forgotten."""
    return Excluded(
        f"{peer} awaits a member that joins at {config.peer_address}, but {config.data_dir} does not say that "
        f"{config.name} joins: it was emptied since, or the member was added without `initial_state: existing` in its "
        "store.yaml. `kybern store join` on this host prepares it, and lets it join anew, with all that the others have"
    )


def _lost_directory(config: StoreConfig, peer: str) -> Excluded:
    """It acknowledged writes with another data directory than it has now, and cannot vouch for them any more."""
    return Excluded(
        f"{peer} knows {config.name} with another data directory than {config.data_dir} is now. What it acknowledged "
        "there must not count as lost while others may need it, so it takes no part in the group. If that directory is "
        "only somewhere else (a disk that was not mounted), bring it back. If it is lost for good, `kybern store join` "
        "on this host lets the member join anew, with all that the others have"
    )
