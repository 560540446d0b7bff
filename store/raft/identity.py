"""Who a member is that joined: it has a name and a data directory, and is given its id by the group."""

from __future__ import annotations

import logging

from kybern.config.models import StoreConfig
from store.raft.configuration import Configuration
from store.raft.datadir import DataDir
from store.raft.interface import Member

log = logging.getLogger(__name__)


def itself(configuration: Configuration, config: StoreConfig, directory_id: int) -> Member | None:
    """Who a member that does not know its id yet is in a group: no other one of its name has its data directory."""
    own = configuration.named(config.name)
    return own if own is not None and own.directory_id == directory_id else None


def learn_id(committed: Configuration, config: StoreConfig, directory_id: int, directory: DataDir) -> int:
    """The id that a member has been given that joined, which is kept then; 0 when it has none yet, or cannot keep it.

    `committed`: one that is not may be cut off, and a member that came with its id would be refused where the name is
    not known, or keep an id that was given to nobody.
    """
    own = itself(committed, config, directory_id)
    if own is None:
        return 0
    try:
        directory.save_id(own.id)
    except OSError as error:
        log.warning("this member's id cannot be saved, and will be looked for again: %s", error)
        return 0
    log.info("%s is a member with the id %x", own.name, own.id)
    return own.id
