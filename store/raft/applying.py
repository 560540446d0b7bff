"""The state machine, and how far it has come: committed entries become commands, and their results answers."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from store.raft.entries import LEVEL, decode_group, decode_level
from store.raft.interface import Applied, Levels, StateMachine, UnknownCommand, UnknownLevel
from store.raft.proposals import Proposal, Proposals
from store.raft.snapshots import Header

log = logging.getLogger(__name__)

# An entry takes up the turn as so many commands as it has times so many bytes, if that is more than it has.
_BYTES_AS_A_COMMAND = 512


class Applying:
    """Feeds one machine, and tells the proposals of this member's callers what came of them."""

    def __init__(self, machine: StateMachine, proposals: Proposals) -> None:
        self._machine = machine
        self._proposals = proposals
        self._commands_applied = self._entries_applied = 0
        # Whether the machine has to be told that nothing more is to be applied for now.
        self._applied_any = False
        self._levels = machine.levels
        # Of the last command that was applied: its number, and the leader's clock in its entry.
        self.command_index = 0
        self.now_ms = 0

    @property
    def level(self) -> int:
        """The group's level, as of the last entry that was applied."""
        return self._machine.level

    @property
    def levels(self) -> Levels:
        """Those that the machine can apply."""
        return self._levels

    def entry(self, term: int, entry: bytes) -> tuple[int, bool]:
        """Apply an entry that is no configuration: how much work it was, in commands; whether another member waits.

        Raises:
            InvalidEntry: another version wrote it; nothing of it was applied.
            UnknownLevel: the machine cannot apply what the group is at, or rises to by this entry; nothing was applied.
            UnknownCommand: a command came with another version; neither it nor anything after it was applied.
        """
        if entry[0] == LEVEL:
            self._rise(decode_level(entry))
            return 1, False
        group = decode_group(entry)
        if group is None:
            return 1, False
        if self._machine.level not in self._levels:
            raise UnknownLevel(self._machine.level)
        now_ms, runs = group
        self.now_ms = max(self.now_ms, now_ms)
        count, awaited = 0, False
        for run in runs:
            # The member that proposed it waits to apply it.
            awaited = awaited or run.origin != self._proposals.origin
            for command, proposal in zip(run.commands, self._proposals.claim(run), strict=True):
                self.command_index += 1
                count += 1
                self._command(command, Applied(self.command_index, term, now_ms), proposal)
        self._commands_applied += count
        self._applied_any = True
        # A command may be a batch of transactions: what it takes goes by its bytes.
        return max(count, len(entry) // _BYTES_AS_A_COMMAND), awaited

    def counted(self) -> None:
        """One more entry, of whatever kind."""
        self._entries_applied += 1

    def caught_up(self) -> None:
        """Tell the machine, if anything was applied, that nothing more is committed yet."""
        if not self._applied_any:
            return
        self._applied_any = False
        try:
            self._machine.caught_up()
        except Exception:
            log.exception("the state machine raised when it had caught up")

    def restored(self, header: Header) -> None:
        """The state is a snapshot's: go on counting where it ends."""
        self.command_index, self.now_ms = header.command_index, header.now_ms

    def metrics(self) -> Mapping[str, float]:
        """Counters by name."""
        return {"commands_applied": self._commands_applied, "entries_applied": self._entries_applied}

    def _rise(self, level: int) -> None:
        if level > self._levels.highest:
            raise UnknownLevel(level)
        self._machine.rise(level)
        log.info("the group is at level %d", self._machine.level)

    def _command(self, command: bytes, applied: Applied, proposal: Proposal | None) -> None:
        waiting = proposal is not None and not proposal.future.done()
        try:
            result = self._machine.apply(command, applied)
        except UnknownCommand:
            raise
        except Exception as error:
            # The machine's contract forbids it; the command counts as applied everywhere all the same.
            log.critical("the state machine raised at command %d", applied.index, exc_info=True)
            if proposal is not None and waiting:
                proposal.future.set_exception(error)
            return
        if proposal is not None and waiting:
            proposal.future.set_result(result)
