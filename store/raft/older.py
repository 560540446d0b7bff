"""What a member does that learns from another one that its data directory is an older copy of what it was.

It votes, from then on, as the member that it was: for nobody who lacks what that one had, and not at all in a term in
which that one may have voted; and it does not stand for election before it has everything again, which any leader sends
it. So nothing that it acknowledged is lost while one of the others has it, and nobody has to do anything.
"""

from __future__ import annotations

import logging

from kybern.config.models import StoreConfig
from kybern.daemon import StartupError
from store.raft import excluded
from store.raft.core import HardenedRaft
from store.raft.datadir import DataDir, Owed, Vote
from store.raft.standing import Standing, both, lacks

log = logging.getLogger(__name__)


def told(config: StoreConfig, raft: HardenedRaft, directory: DataDir, peer: str, known: Standing) -> Exception | None:
    """A peer says where this member stood once; why it must end now, None when it need not.

    It ends to begin anew as a follower, with what it owes on its disk: what it has in memory may be of before, too,
    when a virtual machine is set back while it runs.
    """
    forgotten = lacks(raft.holds(), known)
    if not forgotten:
        # The hello was overtaken by what this member has acknowledged since.
        return None
    if raft.has_led:
        return excluded.older_copy_led(config, peer, forgotten)
    try:
        owed = known if raft.owed is None else both(known, raft.owed)
        directory.save_owed(Owed(raft.configurations.current.group, owed))
    except OSError as error:
        return error
    return StartupError(
        f"{peer} knows that {config.data_dir} is an older copy of what it was ({forgotten}). "
        f"{config.name} starts anew, and votes for nobody that lacks what it had, until it has it again",
        retry=True,
    )


def load(directory: DataDir, name: str, group: str) -> Standing | None:
    """What the member of this name owes to this group; None when nothing. Its term and vote are made good at once.

    Raises:
        StartupError: when what is kept cannot be read.
        OSError: when the disk takes nothing.
    """
    owed = directory.load_owed()
    if owed is None:
        return None
    if owed.group != group:
        directory.save_owed(None)
        return None
    log.warning(
        "%s is an older copy of what it was: this member votes for nobody that lacks entry %d of term %d, which it "
        "had, until it has it again",
        directory.path,
        owed.standing.index,
        owed.standing.index_term,
    )
    vote, standing = directory.load_vote(), owed.standing
    if standing.term > vote.term or (standing.term == vote.term and not vote.voted_for):
        # When nobody knows whom it voted for: for no other in this term.
        directory.save_vote(Vote(standing.term, standing.voted_for or name))
    return standing


def look_after(raft: HardenedRaft, directory: DataDir) -> None:
    """Forget what the member owes once its disk has it again."""
    if raft.owed is None or not raft.has_again(raft.owed, raft.journal.durable_index):
        return
    try:
        directory.save_owed(None)
    except OSError as error:
        log.debug("what this member owed stays in %s: %s", directory.path, error)
        return
    log.info("this member has again what it had: entry %d of term %d", raft.owed.index, raft.owed.index_term)
    raft.owed = None
