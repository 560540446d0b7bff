"""Why the others go on without a member: it ends, and says what its operator can do."""

from __future__ import annotations

from kybern.config.models import StoreConfig


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


def lost_directory(config: StoreConfig, peer: str) -> Excluded:
    """It acknowledged writes with another data directory than it has now, and cannot vouch for them any more."""
    return Excluded(
        f"{peer} knows {config.name} with another data directory than {config.data_dir} is now. What it acknowledged "
        "there must not count as lost while others may need it, so it takes no part in the group. If that directory is "
        "only somewhere else (a disk that was not mounted), bring it back. If it is lost for good, `kybern store join` "
        "on this host lets the member join anew, with all that the others have"
    )
