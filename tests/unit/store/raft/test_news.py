"""When a leader sends news of a commit that no entries have taken along."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import Mock

import pytest

from tests.unit.store.raft.nodes import unstarted_node


class Leader:
    """A node that leads, its core as told, and a loop whose timer fires when the test says so."""

    def __init__(self) -> None:
        self.timers: list[Callable[[], None]] = []
        self.node = unstarted_node()
        self.raft = self.node._raft = Mock(leads=True, commit_index=7, commit_told=6, news_awaited=False)
        self.node._loop = Mock(
            call_later=lambda _seconds, call, *arguments: self.timers.append(lambda: call(*arguments))
        )

    def fire(self) -> None:
        self.timers.pop()()


@pytest.fixture
def leader() -> Leader:
    return Leader()


def test_a_commit_that_nothing_took_along_is_news(leader: Leader) -> None:
    leader.node.remind()
    leader.fire()
    assert leader.raft.news_awaited
    assert leader.timers == []


def test_a_commit_that_went_with_entries_is_none(leader: Leader) -> None:
    leader.node.remind()
    leader.raft.commit_told = 7
    leader.fire()
    assert not leader.raft.news_awaited
    assert leader.timers == []


def test_a_later_commit_waits_as_long(leader: Leader) -> None:
    leader.node.remind()
    leader.raft.commit_index, leader.raft.commit_told = 8, 7
    leader.fire()
    assert not leader.raft.news_awaited
    leader.fire()
    assert leader.raft.news_awaited


def test_who_leads_no_more_has_no_news(leader: Leader) -> None:
    leader.node.remind()
    leader.raft.leads = False
    leader.fire()
    assert not leader.raft.news_awaited
    assert leader.timers == []
