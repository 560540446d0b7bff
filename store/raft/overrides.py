"""Every name of PySyncObj that `core` and `elections` override, what each repairs, and the check that they still exist.

Most are private, so the version is pinned and its source is compared: a PySyncObj that differs in one byte of what is
relied on here is refused at start.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from pathlib import Path

from pysyncobj import SyncObj
from pysyncobj import syncobj as stock
from pysyncobj.version import VERSION

from kybern.daemon import StartupError

PINNED_VERSION = "0.3.17"
PINNED_SOURCE = "e8bdf06797085d734df86e24ab4802fe87893dff77268565ec036f7ad4a1cfe4"

OVERRIDDEN: Mapping[str, str] = {
    "_onTick": "campaigns without a trial vote; walks all entries of earlier terms in every tick of a new leader",
    "_checkCommandsToApply": "one entry per command, and pickles in between",
    "_SyncObj__onMessageReceived": (
        "truncates without a conflict; commits what was not compared; takes acknowledgements of other terms; no answer "
        "to a stale leader; votes although a leader lives; counts a voter twice; nextIndex moves back on success"
    ),
    "_SyncObj__sendNextNodeIdx": "acknowledges before the disk has it; replies without term and sequence",
    "_SyncObj__sendAppendEntries": "pickles entries that are larger than a batch, wrongly cut; sends without bound",
    "_SyncObj__applyLogEntries": "counts a leader's own entries before its disk has them; applies twice after an error",
    "_SyncObj__setCurrentTerm": "term and vote are used before they are durable, and are not fsynced",
    "_SyncObj__onBecomeLeader": "what was known of followers in an earlier term is forgotten",
    "_SyncObj__tryLogCompaction": "forks and trims the log in an order that loses acknowledged entries",
}

# What else is called, read or set.
USED_METHODS = (
    "_SyncObj__setState",
    "_SyncObj__generateRaftTimeout",
    "_SyncObj__onNodeConnected",
    "_SyncObj__onNodeDisconnected",
    "_isLeader",
)
USED_ATTRIBUTES = (
    "_SyncObj__raftLog",
    "_SyncObj__raftCurrentTerm",
    "_SyncObj__votedForNodeId",
    "_SyncObj__raftCommitIndex",
    "_SyncObj__raftLastApplied",
    "_SyncObj__raftNextIndex",
    "_SyncObj__raftMatchIndex",
    "_SyncObj__raftState",
    "_SyncObj__raftLeader",
    "_SyncObj__raftElectionDeadline",
    "_SyncObj__transferInProgress",
    "_SyncObj__newAppendEntriesTime",
    "_SyncObj__noopIDx",
    "_SyncObj__otherNodes",
    "_SyncObj__readonlyNodes",
    "_SyncObj__lastResponseTime",
    "_SyncObj__connectedNodes",
    "_poller",
)


def check(hardened: type[SyncObj]) -> None:
    """Make sure that the installed PySyncObj is the one that the overrides were written against.

    Raises:
        StartupError: when it is not, or the list above and the class differ.
    """
    if VERSION != PINNED_VERSION:
        raise StartupError(f"pysyncobj {VERSION} is installed; kybern-store needs exactly {PINNED_VERSION}")
    source = inspect.getsourcefile(stock)
    digest = hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""
    if digest != PINNED_SOURCE:
        raise StartupError(f"{source} is not the source of pysyncobj {PINNED_VERSION}; reinstall it")
    ours = hardened.__mro__[: hardened.__mro__.index(SyncObj)]
    own = {
        name
        for each in ours
        for name in vars(each)
        if name.startswith("_SyncObj__") or (name in vars(SyncObj) and name[:2] != "__")
    }
    if own != set(OVERRIDDEN):
        raise StartupError(f"the list of overridden names is wrong: {sorted(own ^ set(OVERRIDDEN))}")
    missing = [name for name in (*OVERRIDDEN, *USED_METHODS) if name not in vars(SyncObj)]
    if missing:
        raise StartupError(f"pysyncobj has no {', '.join(missing)}")


def check_instance(raft: SyncObj) -> None:
    """Make sure that the attributes that are relied on exist.

    Raises:
        StartupError: naming what is missing.
    """
    missing = [name for name in USED_ATTRIBUTES if name not in vars(raft)]
    if missing:
        raise StartupError(f"pysyncobj has no attribute {', '.join(missing)}")
