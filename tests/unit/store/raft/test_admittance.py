"""Whom a member lets in, and what it tells those whom it does not, by what it knows of the group."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast
from unittest.mock import Mock

from kybern.pki import Identity
from store.raft.admittance import Admittance
from store.raft.configuration import Add, Configuration, Publish, Remove, changed
from store.raft.core import HardenedRaft
from store.raft.members import member_id
from store.raft.messages import PROTOCOL, Hello, OtherDirectory, Removed
from tests.unit.store.raft.nodes import unstarted_config, unstarted_node
from tests.unit.store.raft.rig import group

_BEFORE = group("s1", "s2", "s3")
_ADDED, _X = changed(_BEFORE, Add("x", "x", "x", False), 9)
_REMOVED, _ = changed(_ADDED, Remove(9), 0)


def _admittance(*configurations: Configuration) -> Admittance:
    admittance = Admittance(unstarted_config())
    assert admittance.configure(configurations, behind=True)
    return admittance


def _hello(name: str, own_id: int, directory_id: int = 0) -> Hello:
    cluster = unstarted_config().cluster_name
    return Hello(cluster, name, PROTOCOL, own_id, name, group="first", directory_id=directory_id)


def _identity(name: str) -> Identity:
    return Identity(name, ("kybern:store",))


def test_who_was_removed_is_told() -> None:
    admittance, hello = _admittance(_REMOVED, _REMOVED), _hello("x", 9)
    assert admittance.refusal(_identity("x"), hello, "") == "x was removed from the group"
    assert admittance.last_word(_identity("x"), hello) == Removed(9)


def test_nobody_is_told_of_a_removal_that_is_not_committed() -> None:
    """A member that was restarted knows its log, and not how far it is committed: it may be cut off yet."""
    for committed in (_ADDED, _BEFORE):
        admittance, hello = _admittance(committed, _REMOVED), _hello("x", 9)
        assert admittance.refusal(_identity("x"), hello, "") is None
        assert admittance.parting(hello) is None
        assert admittance.last_word(_identity("x"), hello) is None


def test_who_joined_and_lost_its_disk_is_not_let_in_with_a_founders_id() -> None:
    """Its file does not say that it joins, so it takes the id that a founder of its name would have."""
    known, _ = changed(_ADDED, Publish(9, "x", "", 77), 0)
    admittance = _admittance(known, known)
    hello = _hello("x", member_id(unstarted_config().cluster_name, "x"), directory_id=78)
    assert "another data directory" in (admittance.refusal(_identity("x"), hello, "") or "")
    assert admittance.last_word(_identity("x"), hello) == OtherDirectory(hello.id, 77)
    # One of a later id may have the name by now.
    assert admittance.refusal(_identity("x"), _hello("x", 10, directory_id=78), "") is None


def test_who_joins_is_told_of_its_directory_by_a_leader_alone() -> None:
    """It has no id yet; whoever lags behind knows an earlier member of its name."""
    known, _ = changed(_ADDED, Publish(9, "x", "", 77), 0)
    hello = _hello("x", 0, directory_id=78)
    follows, leads, replaces = (Admittance(unstarted_config()) for _ in range(3))
    follows.configure((known, known), behind=False)
    leads.configure((known, known), behind=False, leads=True)
    # The removal is in its log, and not committed as far as it knows.
    replaces.configure((known, changed(known, Remove(9), 0)[0]), behind=False, leads=True)
    for admittance in (follows, leads, replaces):
        assert "another data directory" in (admittance.refusal(_identity("x"), hello, "") or "")
    told = OtherDirectory(9, 77)
    assert [a.last_word(_identity("x"), hello) for a in (follows, leads, replaces)] == [None, told, None]


def test_who_is_awaited_and_takes_itself_for_a_founder_is_told() -> None:
    added, _ = changed(_BEFORE, Add("", "x", "x", False), 9)
    admittance = _admittance(added, added)
    hello = _hello("x", member_id(unstarted_config().cluster_name, "x"), directory_id=78)
    assert admittance.last_word(_identity("x"), hello) == OtherDirectory(hello.id, 0)
    for awaited in (_hello("x", 0), _hello("x", 9)):
        assert admittance.last_word(_identity("x"), awaited) is None
    assert admittance.last_word(_identity("y"), hello) is None


def test_a_leader_that_this_member_has_not_heard_of_is_let_in() -> None:
    """It was added while this member was away, has just been restarted, and cannot say yet how far it has committed."""
    node = unstarted_node()
    transport = cast(Mock, node._transport)
    for leader, behind in (("s1", False), ("x", True)):
        raft = SimpleNamespace(leader=leader, leads=False, applied_index=50, leader_commit=1)
        node._look_around(cast(HardenedRaft, raft))
        assert transport.configure.call_args.kwargs["behind"] is behind
