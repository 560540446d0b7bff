"""The levels of the state machine: what changes what a command means, or adds one, gets a level of its own.

All members apply the same log. While two versions run side by side, what differs between them in applying a command, or
in what a dump holds, must go by `StoreMachine.level`, which is the same for all of them at any entry; and only members
whose machine has reached a level propose what came with it. That goes for fields too: a newer client's message reaches
the log as it came, through members that do not know them. How the group rises: `store.raft.level`.

    1   what there was before there were levels; logs, snapshots and dumps without one are of this level
"""

from __future__ import annotations

# The highest that this version can apply. The group rises to it once all members can.
LEVEL = 1
# The lowest whose log and snapshots it can still apply, for members that come from an earlier version. A version that
# raises it has to see to new groups too, which begin at level 1.
LOWEST_LEVEL = 1
