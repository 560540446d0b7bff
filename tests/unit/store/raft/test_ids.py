"""When a member that joins knows its id."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from store.raft.configuration import Configuration, Configurations
from store.raft.interface import Member
from store.raft.node import RaftNode
from tests.unit.store.raft.nodes import unstarted_node

_FOUNDER = Member(1, "s2", "127.0.0.1:3", "")
_AWAITED = Member(7, "", "127.0.0.1:2", "", learner=True)
_NAMED = Member(7, "s1", "127.0.0.1:2", "", learner=True, directory_id=77)
# Who had the name before.
_EARLIER = Member(3, "s1", "127.0.0.1:2", "", directory_id=33)


@pytest.fixture
def node() -> RaftNode:
    """It has joined: entry 4 awaits it, entry 5 names it."""
    node = unstarted_node()
    known = Configurations(Configuration(group=""))
    known.append(4, Configuration((_FOUNDER, _AWAITED)))
    known.append(5, Configuration((_FOUNDER, _NAMED)))
    node._configurations, node._directory_id = known, 77
    return node


def _learns(node: RaftNode, *, commit_index: int, leader_commit: int) -> int:
    directory, journal = Mock(), Mock(last_index=5)
    raft = Mock(leader="s2", commit_index=commit_index, leader_commit=leader_commit, journal=journal)
    node._learn_id(raft, directory)
    assert [call.args[0] for call in directory.save_id.mock_calls] == ([node._id] if node._id else [])
    return node._id


def test_a_member_knows_its_id_by_the_entry_that_names_it(node: RaftNode) -> None:
    assert _learns(node, commit_index=5, leader_commit=5) == 7


def test_an_entry_that_may_be_cut_off_yet_tells_no_id(node: RaftNode) -> None:
    # With the id of a member whose name they do not know the others would let it in no more, nor would they dial it.
    assert _learns(node, commit_index=4, leader_commit=4) == 0


def test_a_member_that_lacks_what_is_committed_does_not_know_yet_whether_it_is_one(node: RaftNode) -> None:
    assert _learns(node, commit_index=5, leader_commit=6) == 0


def test_a_member_takes_no_id_of_one_that_had_its_name(node: RaftNode) -> None:
    # As from a leader that was restarted, and knows of nothing yet that is committed.
    node._configurations = Configurations(Configuration((_EARLIER,)))
    assert _learns(node, commit_index=2, leader_commit=1) == 0


@pytest.mark.parametrize("earlier", [_EARLIER, Member(3, "s1", "127.0.0.1:2", "")])
def test_a_member_has_no_vote_of_one_that_had_its_name(node: RaftNode, earlier: Member) -> None:
    votes = [node._has_a_vote]
    node._configurations = Configurations(Configuration((earlier,)))
    votes.append(node._has_a_vote)
    # One that knows its id has had all that was committed.
    node._id = 3
    votes.append(node._has_a_vote)
    assert votes == [True, False, True]
