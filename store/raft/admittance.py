"""Whom a member lets in: what its certificate and its hello say, against what the group knows. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from kybern.config.models import StoreConfig
from kybern.pki import Identity
from store.raft.configuration import FIRST_GROUP, Configuration
from store.raft.connection import GROUP_MEMBERS
from store.raft.interface import Member
from store.raft.members import member_id
from store.raft.messages import PROTOCOL, Hello, LevelTooLow, Message, OlderCopy, OtherDirectory, Removed
from store.raft.standing import NOTHING, Standing, lacks


class Admittance:
    """What is known of the members, until `configure` by the configuration's file alone.

    `peers`: addresses of the others by name, `awaited`: those of members that have none yet. `behind`: there may be
    members that were added since. `leads`: this member leads, so that there is none that it has not in its log.
    """

    def __init__(self, config: StoreConfig) -> None:
        self._name = config.name
        self._cluster = config.cluster_name
        self.peers = {name: address for name, address in config.members.items() if name != config.name}
        self.awaited: frozenset[str] = frozenset()
        # Ids of those that are gone.
        self._removed: frozenset[int] = frozenset()
        self._members: dict[str, Member] = {}
        self._newest: frozenset[int] = frozenset()
        self._behind = self._leads = False
        # The group's, as far as this member has applied the log.
        self._level = 1
        self.group = "" if config.initial_state == "existing" else FIRST_GROUP

    def configure(
        self, configurations: Sequence[Configuration], *, behind: bool, leads: bool = False, level: int = 1
    ) -> bool:
        """Go by the members of any of these, of which the first is committed and the last is the newest.

        False when they have none. `level`: what who is let in must be able to apply.
        """
        self._behind, self._leads, self._level = behind, leads, level
        members = [member for configuration in configurations for member in configuration.members]
        if not members:
            return False
        self.group = configurations[-1].group
        # Later ones count more.
        self._members = {member.name: member for member in members if member.name not in ("", self._name)}
        self.peers = {name: member.peer_address for name, member in self._members.items()}
        self.awaited = frozenset(member.peer_address for member in members if not member.name)
        self._newest = frozenset(member.id for member in configurations[-1].members)
        # Who is told that it was removed ends for good: a removal that is not committed may yet be cut off.
        self._removed = frozenset(configurations[0].removed) - {member.id for member in members}
        return True

    def refusal(self, identity: Identity, hello: Hello, expected: str, known: Standing = NOTHING) -> str | None:
        """Why a peer is not let in; None when it is.

        `expected`: who was dialled, if anybody was. `known`: where it stood once.
        """
        name = hello.name
        if GROUP_MEMBERS not in identity.groups:
            return f"the certificate of {identity.name!r} is not a store member's (O={GROUP_MEMBERS})"
        if identity.name != name or name == self._name:
            return f"the certificate's {identity.name!r}, which calls itself {name!r}, is not another member"
        if expected and name != expected:
            return f"{name} answers where {expected} was dialled"
        if hello.cluster != self._cluster:
            return f"{name} belongs to the cluster {hello.cluster!r}, not {self._cluster!r}"
        if hello.protocol != PROTOCOL:
            return f"{name} speaks protocol {hello.protocol}, this member {PROTOCOL}"
        if (reason := self._of_another_group(hello)) is not None:
            return reason
        if self._was_removed(hello):
            return f"{name} was removed from the group"
        if self._other_directory(hello) is not None:
            return (
                f"{name} comes with another data directory than the one that it belongs to the group with, so it has "
                "lost what it acknowledged: `kybern store join` on its host lets it join anew"
            )
        if not self._knows(hello):
            return f"the certificate's {identity.name!r} is not another member"
        if forgotten := lacks(hello.standing, known):
            return f"{name} comes with an older copy of its data directory: {forgotten}"
        return self._too_low(hello)

    def parting(self, hello: Hello) -> str | None:
        """Why a peer that was let in is no longer; None when it is."""
        if (reason := self._of_another_group(hello)) is not None:
            return reason
        if self._was_removed(hello) or not self._knows(hello):
            return "it is not a member any more"
        if self._other_directory(hello) is not None:
            return "it comes with another data directory"
        return self._too_low(hello)

    def last_word(self, identity: Identity, hello: Hello, known: Standing = NOTHING) -> Message | None:
        """What a peer that is not let in should know before the connection ends; `known`: where it stood once.

        Nothing across groups: whoever recovered a group that was not lost must not end its members.
        """
        if self._of_another_group(hello) is not None or hello.cluster != self._cluster:
            return None
        if GROUP_MEMBERS not in identity.groups or identity.name != hello.name:
            return None
        if self._was_removed(hello):
            return Removed(hello.id)
        if self._joins_unawares(hello):
            return OtherDirectory(hello.id, 0)
        member = self._other_directory(hello)
        if member is not None:
            surely = hello.id or self._surely(member)
            return OtherDirectory(hello.id or member.id, member.directory_id) if surely else None
        if not self._knows(hello):
            return None
        if lacks(hello.standing, known):
            return OlderCopy(hello.id, known)
        return LevelTooLow(self._level) if self._too_low(hello) is not None else None

    def may_know_better(self, identity: Identity, hello: Hello) -> bool:
        """Whether a peer that is not let in may be of this member's group, and know why this member is not.

        One that founded a group alone, and has lost its disk, founds another one: it knows nobody.
        """
        if GROUP_MEMBERS not in identity.groups or identity.name != hello.name or hello.name == self._name:
            return False
        return hello.cluster == self._cluster and hello.protocol == PROTOCOL and self._of_another_group(hello) is None

    def _knows(self, hello: Hello) -> bool:
        """Whether this is a member, or may be one: it comes from where one that has no name yet is awaited."""
        if hello.name in self.peers or (not hello.id and hello.peer_address in self.awaited):
            return True
        return self._behind and hello.id != 0

    def _joins_unawares(self, hello: Hello) -> bool:
        """Whether one is awaited where the peer is, which takes itself for a founder: it was not told that it joins."""
        if hello.name in self._members or hello.peer_address not in self.awaited:
            return False
        return hello.id == member_id(self._cluster, hello.name)

    def _surely(self, member: Member) -> bool:
        """Whether nobody can have been given this one's name since.

        Who joins knows no id yet. Whoever has missed that the name was given to it knows an earlier member of that
        name, with another directory.
        """
        return self._leads and member.id in self._newest

    def _too_low(self, hello: Hello) -> str | None:
        """Why the peer could not apply what it would be sent; None when it can."""
        if hello.level >= self._level:
            return None
        return (
            f"{hello.name} can apply level {hello.level} of the state machine at most, and the group is at level "
            f"{self._level}: install the version that the other members run on its host"
        )

    def _of_another_group(self, hello: Hello) -> str | None:
        """Why the peer has no part in this group, whoever it is; None when it may have one."""
        if not hello.group or not self.group or hello.group == self.group:
            return None
        return (
            f"{hello.name} is of another group of this cluster (one of them was restored or recovered): what it holds "
            "is not this group's; `kybern store join` on its host lets it join anew, with nothing"
        )

    def _was_removed(self, hello: Hello) -> bool:
        """Whether this is a member that was removed, its name perhaps given to another since."""
        return hello.cluster == self._cluster and hello.id in self._removed

    def _other_directory(self, hello: Hello) -> Member | None:
        """The member that the peer says it is, when that one came with another data directory.

        Not one of a later id: this member may not know yet that the name was given to another. Who has nothing, and was
        not told that it joins, takes the id of a founder, which is earlier than any that was given since.
        """
        member = self._members.get(hello.name)
        if member is None or hello.id not in (0, member.id, member_id(self._cluster, hello.name)):
            return None
        if not member.directory_id or not hello.directory_id or member.directory_id == hello.directory_id:
            return None
        return member
