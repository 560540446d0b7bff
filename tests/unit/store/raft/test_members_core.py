"""Who votes, who counts and who is sent the log, as configurations come into the log and fall out of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from store.raft.configuration import Configuration, encode
from tests.unit.store.raft.rig import HardenedRig, Time, acknowledge, append, elect, group, pass_time

THREE = ("a", "b", "c")


def commit_all(rig: HardenedRig, term: int, *peers: str) -> None:
    """The peers acknowledge everything there is."""
    for peer in peers:
        rig.deliver(peer, acknowledge(term, rig.journal.last_index + 1, sequence=rig.hardened.append_sequence))
    rig.tick()


def may_change(rig: HardenedRig) -> bool:
    return rig.hardened.may_change


@pytest.fixture
def leading(rig: HardenedRig) -> tuple[HardenedRig, int]:
    """A leader of three that has committed an entry of its term."""
    term = elect(rig)
    commit_all(rig, term, "b", "c")
    assert may_change(rig)
    return rig, term


@pytest.fixture
def alone(time: Time, tmp_path: Path) -> Iterator[HardenedRig]:
    made = HardenedRig(time, tmp_path / "alone", peers=())
    made.tick()
    made.tick()
    made.tick()
    assert may_change(made)
    yield made
    made.journal.close()


def deliver_configuration(
    rig: HardenedRig, term: int, previous: tuple[int, int], configuration: Configuration
) -> tuple[int, int]:
    """The leader b sends a configuration; its place in the log."""
    index = previous[0] + 1
    message = append(term, previous, [(index, term)], commit=0)
    message["entries"] = [(encode(configuration), index, term)]
    rig.deliver("b", message)
    return index, term


def test_a_learner_is_sent_the_log_and_counts_for_nothing(leading: tuple[HardenedRig, int]) -> None:
    rig, term = leading
    rig.hardened.connected("d")
    rig.hardened.change(group(*THREE, learners=("d",)))
    rig.tick()
    assert rig.replies("d", "append_entries")
    index = rig.journal.last_index
    commit_all(rig, term, "d")
    assert rig.hardened.commit_index < index
    assert not may_change(rig)
    commit_all(rig, term, "b")
    assert rig.hardened.commit_index == index
    assert may_change(rig)
    assert rig.hardened.caught_up("d")


def test_a_member_that_lacks_the_entry_that_names_it_gets_no_vote_yet(leading: tuple[HardenedRig, int]) -> None:
    rig, term = leading
    before = rig.journal.last_index
    rig.hardened.connected("d")
    index = rig.hardened.change(group(*THREE, learners=("d",)))
    rig.tick()
    # What it lacks is next to nothing, but without it the member knows no group and would vote for nobody.
    rig.deliver("d", acknowledge(term, before + 1, sequence=rig.hardened.append_sequence))
    assert not rig.hardened.caught_up("d")
    rig.deliver("d", acknowledge(term, index + 1, sequence=rig.hardened.append_sequence))
    assert rig.hardened.caught_up("d")


def test_one_change_at_a_time(leading: tuple[HardenedRig, int]) -> None:
    rig, term = leading
    rig.hardened.change(group(*THREE, "d"))
    with pytest.raises(RuntimeError):
        rig.hardened.change(group("a", "b"))
    commit_all(rig, term, "b")
    # Four votes: two are no quorum of them, though they were one of three.
    assert not may_change(rig)
    commit_all(rig, term, "c")
    assert may_change(rig)


def test_no_change_before_an_entry_of_the_term_is_committed(rig: HardenedRig) -> None:
    elect(rig)
    assert not may_change(rig)
    with pytest.raises(RuntimeError):
        rig.hardened.change(group("a", "b"))


def test_who_is_removed_is_not_needed_and_not_asked(leading: tuple[HardenedRig, int]) -> None:
    rig, term = leading
    rig.hardened.change(group("a", "b"))
    sent = len(rig.replies("c", "append_entries"))
    rig.tick()
    assert len(rig.replies("c", "append_entries")) == sent
    index = rig.journal.last_index
    # Its acknowledgement counts for nothing, whatever it says.
    rig.deliver("c", acknowledge(term + 5, index + 1, sequence=rig.hardened.append_sequence))
    rig.tick()
    assert rig.leadership[-1]
    assert rig.hardened.commit_index < index
    commit_all(rig, term, "b")
    assert rig.hardened.commit_index == index


def test_a_group_grows_from_one(alone: HardenedRig) -> None:
    alone.hardened.connected("b")
    alone.hardened.change(group("a", learners=("b",)))
    alone.tick()
    alone.tick()
    assert may_change(alone)
    term = alone.hardened.term
    alone.hardened.change(group("a", "b"))
    alone.tick()
    assert not may_change(alone)
    commit_all(alone, term, "b")
    assert may_change(alone)


def test_a_learner_never_stands_for_election(rig: HardenedRig, time: Time) -> None:
    deliver_configuration(rig, 1, (1, 0), group("b", "c", learners=("a",)))
    pass_time(time, rig, 10)
    assert not [m for _, m in rig.out if m["type"] == "request_vote"]
    # It votes all the same: it may have been promoted without knowing it yet.
    rig.deliver("c", {"type": "request_vote", "term": 5, "last_log_index": 9, "last_log_term": 5})
    assert rig.replies("c", "response_vote")[-1]["granted"]


def test_time_that_passes_within_a_tick_makes_nobody_a_candidate(rig: HardenedRig, time: Time) -> None:
    """The deadline is still to come when the tick begins, and has passed when PySyncObj looks at the clock.

    A learner with the vote of one of two would lead as they do; and who votes holds no trial.
    """
    for term, configuration in ((1, group("b", "c", learners=("a",))), (2, group(*THREE))):
        deliver_configuration(rig, term, (rig.journal.last_index, rig.journal.last_term), configuration)
        rig.raft._SyncObj__raftElectionDeadline = time.now + 0.0015
        time.passing = 0.001
        rig.tick()
        assert rig.raft._SyncObj__raftElectionDeadline < time.now
        time.passing = 0.0
        assert not [m for _, m in rig.out if m["type"] == "request_vote"]
        assert rig.hardened.term == term
    # The next tick holds the trial.
    rig.tick()
    assert [m for _, m in rig.out if m["type"] == "request_vote" and m["trial"]]
    assert rig.hardened.term == 2


def test_a_learners_vote_does_not_count(rig: HardenedRig, time: Time) -> None:
    deliver_configuration(rig, 1, (1, 0), group("a", "b", "c", learners=("d",)))
    time.now += 3
    rig.tick()
    for peer in ("d", "e"):
        rig.deliver(peer, {"type": "response_vote", "trial": True, "term": 2, "granted": True, "voter_term": 1})
    rig.tick()
    assert rig.hardened.term == 1
    rig.deliver("c", {"type": "response_vote", "trial": True, "term": 2, "granted": True, "voter_term": 1})
    rig.tick()
    assert rig.hardened.term == 2
    rig.deliver("d", {"type": "response_vote", "term": 2, "granted": True, "voter_term": 2})
    assert not rig.hardened.leads
    rig.deliver("c", {"type": "response_vote", "term": 2, "granted": True, "voter_term": 2})
    assert rig.hardened.leads


def test_a_configuration_that_is_cut_off_holds_no_more(rig: HardenedRig) -> None:
    first = deliver_configuration(rig, 1, (1, 0), group(*THREE, "d"))
    deliver_configuration(rig, 1, first, group(*THREE, "d", "e"))
    assert rig.configurations.current.voters == {"a", "b", "c", "d", "e"}
    # Another leader has something else in the place of the second one.
    rig.deliver("c", append(2, first, [(3, 2)], commit=0))
    assert rig.configurations.current.voters == {"a", "b", "c", "d"}
    rig.deliver("c", append(2, (1, 0), [(2, 2)], commit=0))
    assert rig.configurations.current.voters == {"a", "b", "c"}
    assert rig.configurations.index == 0


def test_a_snapshots_members_hold_from_then_on(leading: tuple[HardenedRig, int]) -> None:
    rig, term = leading
    rig.hardened.connected("d")
    rig.hardened.adopt(rig.journal.last_index, group("a", "b", learners=("d",)))
    rig.tick()
    assert rig.hardened.transfer("c") is None
    assert rig.replies("d", "append_entries")
    commit_all(rig, term, "b")
    assert may_change(rig)


def test_a_restart_finds_the_configuration_in_the_log(time: Time, tmp_path: Path) -> None:
    rig = HardenedRig(time, tmp_path)
    first = deliver_configuration(rig, 1, (1, 0), group(*THREE, "d"))
    deliver_configuration(rig, 1, first, group("a", "d"))
    rig.journal.close()
    again = HardenedRig(time, tmp_path)
    assert again.configurations.current == group("a", "d")
    assert again.configurations.as_of(first[0]) == group(*THREE, "d")
    again.deliver("c", append(2, first, [(3, 2)], commit=0))
    again.journal.close()
    # On disk the entry that was cut off is there yet, before the one that took its place.
    last = HardenedRig(time, tmp_path)
    assert last.configurations.current == group(*THREE, "d")
    last.journal.close()


def test_handing_over_waits_for_the_other_and_holds_proposals_back(
    leading: tuple[HardenedRig, int], time: Time
) -> None:
    rig, term = leading
    rig.groups.append(b"\x00" + bytes(8) + b"\x90")
    rig.tick()
    assert rig.hardened.transfer("c") == "c"
    assert not rig.replies("c", "timeout_now")
    rig.groups.append(b"\x00" + bytes(8) + b"\x90")
    before = rig.journal.last_index
    rig.tick()
    assert rig.journal.last_index == before
    assert not may_change(rig)
    commit_all(rig, term, "c")
    assert [m["term"] for m in rig.replies("c", "timeout_now")] == [term]
    # The question may be lost: it is asked again, though not in every turn.
    rig.tick()
    assert len(rig.replies("c", "timeout_now")) == 1
    time.now += 0.5
    rig.tick()
    assert len(rig.replies("c", "timeout_now")) == 2
    rig.hardened.end_transfer()
    rig.tick()
    assert rig.journal.last_index == before + 1


def test_leadership_is_given_to_reachable_votes_alone(leading: tuple[HardenedRig, int]) -> None:
    rig, term = leading
    rig.hardened.connected("d")
    rig.hardened.change(group(*THREE, learners=("d",)))
    commit_all(rig, term, "b", "d")
    assert rig.hardened.transfer("d") is None
    assert rig.hardened.transfer("e") is None
    # By default it is the one that has most.
    assert rig.hardened.transfer() == "b"
    rig.hardened.end_transfer()
    rig.hardened.disconnected("b")
    assert rig.hardened.transfer("b") is None
    assert rig.hardened.transfer() == "c"


def test_who_does_not_answer_is_not_active(leading: tuple[HardenedRig, int], time: Time) -> None:
    rig, term = leading
    time.now += 1.5
    rig.tick()
    commit_all(rig, term, "b")
    assert rig.hardened.active() == {"a", "b"}
    rig.hardened.disconnected("b")
    assert rig.hardened.active() == {"a"}


def test_a_member_is_not_taken_for_one_that_had_its_name_before(leading: tuple[HardenedRig, int]) -> None:
    rig, term = leading
    late = acknowledge(term, rig.journal.last_index + 1, sequence=rig.hardened.append_sequence)
    rig.hardened.change(group("a", "b"))
    commit_all(rig, term, "b")
    rig.hardened.change(group("a", "b", "c"))
    node = rig.hardened._nodes["c"]
    rig.deliver("c", late)
    assert rig.raft._SyncObj__raftMatchIndex[node] == 0
    rig.tick()
    commit_all(rig, term, "c")
    assert rig.raft._SyncObj__raftMatchIndex[node] == rig.journal.last_index
