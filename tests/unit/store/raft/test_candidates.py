"""Two members whose leader is gone, and who would both lead: one gives way, instead of sharing the votes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.store.raft.rig import TIMING, HardenedRig, Time, append, pass_time

GONE = "a"


class Pair:
    """Members b and c of a group of three; messages for the third are lost."""

    def __init__(self, time: Time, directory: Path) -> None:
        self.time = time
        self.rigs = {
            name: HardenedRig(time, directory / name, name=name, peers=(GONE, other)) for name, other in ("bc", "cb")
        }
        for rig in self.rigs.values():
            rig.deliver(GONE, append(5, (1, 0), [], commit=1))
            rig.hardened.disconnected(GONE)

    def want(self, *names: str) -> None:
        """Let the time-outs of these members end now; ticks come before messages."""
        for name in names:
            self.rigs[name].raft._SyncObj__raftElectionDeadline = self.time.now - 0.001
        for name in names:
            self.rigs[name].tick()

    def exchange(self) -> None:
        """Deliver what they have for each other, and what comes of that, with ticks between."""
        for _ in range(10):
            for name, rig in self.rigs.items():
                messages, rig.out[:] = list(rig.out), []
                for peer, message in messages:
                    if peer != GONE:
                        self.rigs[peer].deliver(name, message)
            for rig in self.rigs.values():
                rig.tick()

    def leaders(self) -> list[str]:
        return [name for name, rig in self.rigs.items() if rig.hardened.leads]


@pytest.fixture
def pair(time: Time, tmp_path: Path) -> Iterator[Pair]:
    made = Pair(time, tmp_path)
    yield made
    for rig in made.rigs.values():
        rig.journal.close()


def test_of_two_trials_at_once_that_of_the_later_name_goes_on(pair: Pair) -> None:
    pair.want("b", "c")
    pair.exchange()
    assert pair.leaders() == ["c"]
    assert {rig.hardened.term for rig in pair.rigs.values()} == {6}


def test_of_two_trials_at_once_that_with_the_better_log_goes_on(pair: Pair) -> None:
    pair.rigs["b"].deliver(GONE, append(5, (1, 0), [(2, 5), (3, 5)], commit=1))
    pair.rigs["b"].hardened.disconnected(GONE)
    pair.want("b", "c")
    pair.exchange()
    assert pair.leaders() == ["b"]


def test_who_gave_a_trial_vote_holds_none_before_the_other_may_have_won(pair: Pair) -> None:
    # c's own trial is due in the moment in which it votes for b's.
    pair.want("b")
    pair.rigs["c"].raft._SyncObj__raftElectionDeadline = pair.time.now + 0.001
    (request,) = pair.rigs["b"].replies("c", "request_vote")
    pair.rigs["c"].deliver("b", request)
    pair.time.now += 0.002
    pair.rigs["c"].tick()
    assert pair.rigs["c"].replies("b", "request_vote") == []
    pair.exchange()
    assert pair.leaders() == ["b"]


def test_who_gave_a_trial_vote_stands_when_the_other_is_not_heard_of_again(pair: Pair) -> None:
    pair.want("b")
    (request,) = pair.rigs["b"].replies("c", "request_vote")
    pair.rigs["c"].deliver("b", request)
    pass_time(pair.time, pair.rigs["c"], TIMING.election_max + 0.1)
    assert pair.rigs["c"].replies("b", "request_vote")


def test_who_gave_way_does_not_count_the_votes_of_its_trial(pair: Pair) -> None:
    pair.want("b", "c")
    (request,) = pair.rigs["c"].replies("b", "request_vote")
    pair.rigs["b"].deliver("c", request)
    pair.rigs["b"].deliver("c", {"type": "response_vote", "trial": True, "term": 6, "granted": True, "voter_term": 5})
    pair.rigs["b"].tick()
    assert pair.rigs["b"].hardened.term == 5


def test_who_has_the_votes_for_a_campaign_gives_none(pair: Pair) -> None:
    pair.want("b", "c")
    (request,) = pair.rigs["c"].replies("b", "request_vote")
    rig = pair.rigs["b"]
    rig.deliver("c", {"type": "response_vote", "trial": True, "term": 6, "granted": True, "voter_term": 5})
    rig.deliver("c", request)
    assert [vote["granted"] for vote in rig.replies("c", "response_vote")] == [False]
    rig.tick()
    assert rig.hardened.term == 6
