"""Each fault of PySyncObj that `store.raft.core` repairs, as a script of messages.

A test with `either` runs on both classes: `faulty` tells which one must show the fault, so that a repair that is no
longer needed (or a script that shows nothing) is noticed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from store.raft.core import CommittedConflict
from store.raft.datadir import Vote
from store.raft.messages import InvalidMessage
from tests.unit.store.raft.rig import (
    NO_OP,
    TIMING,
    HardenedRig,
    Rig,
    StockRig,
    Time,
    acknowledge,
    append,
    elect,
    pass_time,
)


def faulty(rig: Rig) -> bool:
    return isinstance(rig, StockRig)


def entries(first: int, last: int, term: int = 1) -> list[tuple[int, int]]:
    return [(index, term) for index in range(first, last + 1)]


def indices(rig: Rig) -> list[int]:
    return [index for index, _ in rig.log()]


# --- log matching


def test_a_duplicate_append_truncates_nothing(either: Rig) -> None:
    either.deliver("b", append(1, (1, 0), entries(2, 101), commit=1))
    either.deliver("b", append(1, (1, 0), entries(2, 2), commit=1))
    assert (len(either.log()) == 101) is not faulty(either)


def test_a_heartbeat_that_was_overtaken_truncates_nothing(either: Rig) -> None:
    either.deliver("b", append(1, (1, 0), entries(2, 50), commit=1))
    either.deliver("b", append(1, (10, 1), [], commit=1))
    assert (len(either.log()) == 50) is not faulty(either)


def test_a_conflict_truncates_from_where_it_begins(rig: HardenedRig) -> None:
    rig.deliver("b", append(1, (1, 0), entries(2, 10), commit=3))
    rig.deliver("c", append(2, (4, 1), [(5, 1), (6, 2), (7, 2)], commit=3))
    assert rig.log() == [(1, 0), *entries(2, 5), (6, 2), (7, 2)]
    assert rig.replies("c", "next_node_idx")[-1]["next_node_idx"] == 8


def test_what_was_not_compared_with_the_leader_is_not_committed(rig: HardenedRig) -> None:
    rig.deliver("b", append(1, (1, 0), entries(2, 10), commit=1))
    # A new leader whose log is the same up to 5 has committed 10 entries of its own.
    rig.deliver("c", append(2, (5, 1), [], commit=10))
    assert rig.hardened.commit_index == 5


def test_a_conflict_with_committed_entries_is_refused(rig: HardenedRig) -> None:
    rig.deliver("b", append(1, (1, 0), entries(2, 10), commit=8))
    with pytest.raises(CommittedConflict):
        rig.deliver("c", append(2, (4, 1), [(5, 2)], commit=8))
    assert len(rig.log()) == 10


def test_a_follower_that_disagrees_names_the_beginning_of_the_term(rig: HardenedRig) -> None:
    rig.deliver("b", append(1, (1, 0), entries(2, 10), commit=3))
    rig.deliver("c", append(3, (9, 2), [(10, 3)], commit=3))
    reply = rig.replies("c", "next_node_idx")[-1]
    assert (reply["reset"], reply["success"], reply["next_node_idx"]) == (True, False, 4)


def test_a_follower_with_a_shorter_log_says_where_it_ends(rig: HardenedRig) -> None:
    rig.deliver("b", append(1, (1, 0), entries(2, 10), commit=1))
    rig.deliver("b", append(1, (20, 1), entries(21, 22), commit=1))
    reply = rig.replies("b", "next_node_idx")[-1]
    assert (reply["reset"], reply["next_node_idx"]) == (True, 11)


# --- terms and sequences on replies


def test_an_acknowledgement_of_another_term_commits_nothing(either: Rig) -> None:
    either.deliver("b", append(4, (1, 0), [], commit=1))
    term = elect(either)
    last = either.log()[-1][0]
    either.deliver("b", acknowledge(term - 1, last + 1, sequence=0))
    either.tick()
    assert (either.raft._SyncObj__raftCommitIndex == last) is faulty(either)


def test_an_acknowledgement_of_this_term_commits(either: Rig) -> None:
    term = elect(either)
    last = either.log()[-1][0]
    either.deliver("b", acknowledge(term, last + 1))
    either.tick()
    assert either.raft._SyncObj__raftCommitIndex == last


def test_success_never_moves_the_next_index_back(either: Rig) -> None:
    term = elect(either)
    node = next(iter(n for n in either.raft._SyncObj__otherNodes if n.id == "b"))
    either.raft._SyncObj__raftNextIndex[node] = 40
    either.deliver("b", acknowledge(term, 3))
    assert (either.raft._SyncObj__raftNextIndex[node] == 40) is not faulty(either)


def test_a_stale_reset_is_dropped(rig: HardenedRig) -> None:
    rig.deliver("b", append(1, (1, 0), entries(2, 10), commit=1))
    rig.time.now += 5
    term = elect(rig)
    node = rig.hardened._nodes["b"]
    rig.tick()
    sent = rig.hardened.append_sequence
    rig.deliver("b", acknowledge(term, 5, sequence=sent, success=False, reset=True))
    assert rig.raft._SyncObj__raftNextIndex[node] == 5
    rig.tick()
    assert rig.raft._SyncObj__raftNextIndex[node] == 12
    # Answers to appends from before the first reset was handled.
    rig.deliver("b", acknowledge(term, 5, sequence=sent, success=False, reset=True))
    assert rig.raft._SyncObj__raftNextIndex[node] == 12
    assert rig.hardened.stale_replies == 1


def acknowledged(rig: HardenedRig, caplog: pytest.LogCaptureFixture) -> tuple[int, int]:
    """A leader with entries up to 12, of which b has acknowledged those up to 8; its term and b's last append."""
    rig.deliver("b", append(1, (1, 0), entries(2, 10), commit=1))
    rig.time.now += 5
    term = elect(rig)
    rig.groups.append(b"x")
    rig.tick()
    last = rig.hardened.append_sequence
    rig.deliver("b", acknowledge(term, 9, sequence=last - 1))
    caplog.clear()
    return term, last


def test_a_reset_that_an_acknowledgement_overtook_is_no_loss(
    rig: HardenedRig, caplog: pytest.LogCaptureFixture
) -> None:
    term, last = acknowledged(rig, caplog)
    node = rig.hardened._nodes["b"]
    # Sent when the follower had less: the last append came before those that it follows.
    rig.deliver("b", acknowledge(term, 4, sequence=last, success=False, reset=True))
    assert (rig.raft._SyncObj__raftMatchIndex[node], rig.raft._SyncObj__raftNextIndex[node]) == (8, 9)
    assert not caplog.records


def test_a_follower_that_steps_over_a_term_has_lost_nothing(rig: HardenedRig, caplog: pytest.LogCaptureFixture) -> None:
    term, last = acknowledged(rig, caplog)
    node = rig.hardened._nodes["b"]
    # Entry 12 follows 11, where the follower has another one, of the term that began at 4.
    rig.raft._SyncObj__raftNextIndex[node] = 12
    rig.time.now += 1
    rig.tick()
    sent = rig.hardened.append_sequence
    assert sent > last
    rig.deliver("b", acknowledge(term, 4, sequence=sent, success=False, reset=True))
    assert (rig.raft._SyncObj__raftMatchIndex[node], rig.raft._SyncObj__raftNextIndex[node]) == (8, 9)
    assert not caplog.records


def test_a_follower_that_lost_what_it_acknowledged_is_reported_and_sent_it_again(
    rig: HardenedRig, caplog: pytest.LogCaptureFixture
) -> None:
    term, last = acknowledged(rig, caplog)
    rig.deliver("b", acknowledge(term, 4, sequence=last, success=False, reset=True))
    rig.out.clear()
    rig.tick()
    # This one asks for the last entry that was acknowledged.
    asked = rig.replies("b", "append_entries")[0]
    assert asked["prevLogIdx"] == 8
    rig.deliver("b", acknowledge(term, 4, sequence=asked["sequence"], success=False, reset=True))
    assert [record.getMessage() for record in caplog.records] == [
        "b lost entries from 4 on that it had acknowledged up to 8"
    ]
    rig.out.clear()
    rig.tick()
    assert rig.replies("b", "append_entries")[0]["entries"][0][1] == 4


def test_an_acknowledgement_of_what_does_not_exist_is_an_error(rig: HardenedRig) -> None:
    term = elect(rig)
    with pytest.raises(InvalidMessage, match="does not exist"):
        rig.deliver("b", acknowledge(term, 99))


def test_a_stale_leader_is_answered_and_gives_up(either: Rig) -> None:
    either.deliver("b", append(5, (1, 0), [(2, 5)], commit=1))
    either.out.clear()
    either.deliver("c", append(3, (1, 0), [(2, 3)], commit=1))
    answered = [message for peer, message in either.out if peer == "c"]
    assert bool(answered) is not faulty(either)
    if answered:
        assert answered[0]["term"] == 5


def test_a_leader_follows_a_later_term_in_a_reply(rig: HardenedRig) -> None:
    term = elect(rig)
    rig.deliver("b", acknowledge(term + 3, 0, success=False))
    assert not rig.raft._isLeader()
    assert rig.hardened.term == term + 3
    assert rig.votes[-1].term == term + 3


# --- elections


def test_no_vote_while_a_leader_lives(either: Rig) -> None:
    either.deliver("b", append(5, (1, 0), [], commit=1))
    either.out.clear()
    either.deliver("c", {"type": "request_vote", "term": 6, "last_log_index": 9, "last_log_term": 5})
    granted = [message for _, message in either.out if message["type"] == "response_vote"]
    assert bool(granted) is faulty(either)


def test_a_vote_when_the_leader_is_silent(rig: HardenedRig) -> None:
    rig.deliver("b", append(5, (1, 0), [], commit=1))
    rig.time.now += TIMING.election_min
    rig.deliver("c", {"type": "request_vote", "term": 6, "last_log_index": 9, "last_log_term": 5})
    assert rig.replies("c", "response_vote")[-1]["granted"]
    assert (rig.votes[-1].term, rig.votes[-1].voted_for) == (6, "c")


def test_a_vote_when_the_leader_itself_asks_for_the_election(rig: HardenedRig) -> None:
    rig.deliver("b", append(5, (1, 0), [], commit=1))
    rig.deliver("c", {"type": "request_vote", "term": 6, "last_log_index": 9, "last_log_term": 5, "transfer": True})
    assert rig.replies("c", "response_vote")[-1]["granted"]


def test_one_vote_per_term(rig: HardenedRig) -> None:
    request = {"type": "request_vote", "term": 6, "last_log_index": 9, "last_log_term": 5}
    rig.deliver("c", request)
    rig.deliver("b", request)
    assert [peer for peer, message in rig.out if message["type"] == "response_vote"] == ["c"]


def test_a_member_that_is_cut_off_does_not_raise_the_term(either: Rig, time: Time) -> None:
    pass_time(time, either, 30.0)
    assert (either.raft._SyncObj__raftCurrentTerm == 0) is not faulty(either)


def test_a_trial_vote_changes_nothing(rig: HardenedRig) -> None:
    rig.deliver("c", {"type": "request_vote", "trial": True, "term": 6, "last_log_index": 9, "last_log_term": 5})
    reply = rig.replies("c", "response_vote")[-1]
    assert (reply["trial"], reply["granted"]) == (True, True)
    assert rig.hardened.term == 0
    assert rig.votes == [rig.votes[0]]


@pytest.mark.parametrize(("index", "term"), [(1, 0), (4, 1), (9, 0)])
def test_no_trial_vote_for_a_log_that_lacks_something(rig: HardenedRig, index: int, term: int) -> None:
    rig.deliver("b", append(1, (1, 0), entries(2, 5), commit=1))
    rig.time.now += TIMING.election_min
    request = {"type": "request_vote", "trial": True, "term": 6, "last_log_index": index, "last_log_term": term}
    rig.deliver("c", request)
    assert not rig.replies("c", "response_vote")[-1]["granted"]


def test_a_candidate_learns_of_a_later_term_by_its_trial(rig: HardenedRig) -> None:
    rig.raft._SyncObj__raftElectionDeadline = 0.0
    rig.tick()
    rig.deliver("c", {"type": "response_vote", "trial": True, "term": 1, "granted": False, "voter_term": 7})
    assert rig.hardened.term == 7
    assert not rig.raft._isLeader()


def test_the_loss_of_the_leaders_connection_brings_the_trial_forward(rig: HardenedRig) -> None:
    rig.deliver("b", append(5, (1, 0), [], commit=1))
    heard = [rig.hardened.leader]
    rig.hardened.disconnected("b")
    heard.append(rig.hardened.leader)
    assert heard == ["b", None]
    pass_time(rig.time, rig, TIMING.heartbeat + TIMING.election_min / 2 + 0.1)
    assert [request["trial"] for request in rig.replies("c", "request_vote")] == [True]
    assert rig.hardened.term == 5


def test_the_loss_of_a_followers_connection_changes_nothing(rig: HardenedRig) -> None:
    rig.deliver("b", append(5, (1, 0), [], commit=1))
    rig.hardened.disconnected("c")
    pass_time(rig.time, rig, 0.9)
    assert rig.hardened.leader == "b"
    assert rig.replies("c", "request_vote") == []


def test_a_voter_counts_once(time: Time, tmp_path: Path) -> None:
    rig = HardenedRig(time, tmp_path, peers=("b", "c", "d", "e"))
    rig.raft._SyncObj__raftElectionDeadline = 0.0
    rig.tick()
    for peer in ("b", "b", "b"):
        rig.deliver(peer, {"type": "response_vote", "trial": True, "term": 1, "granted": True, "voter_term": 0})
    rig.tick()
    assert rig.hardened.term == 0
    rig.deliver("c", {"type": "response_vote", "trial": True, "term": 1, "granted": True, "voter_term": 0})
    rig.tick()
    assert rig.hardened.term == 1
    for _ in range(3):
        rig.deliver("b", {"type": "response_vote", "term": 1, "granted": True, "voter_term": 1})
    assert not rig.raft._isLeader()
    rig.deliver("c", {"type": "response_vote", "term": 1, "granted": True, "voter_term": 1})
    assert rig.raft._isLeader()
    rig.journal.close()


def test_a_leader_without_a_quorum_steps_down(either: Rig, time: Time) -> None:
    elect(either)
    pass_time(time, either, 5.0)
    assert either.raft._isLeader() is faulty(either)


def test_a_leader_that_one_follower_answers_stays(rig: HardenedRig) -> None:
    term = elect(rig)
    for _ in range(50):
        pass_time(rig.time, rig, 0.1)
        rig.deliver("b", acknowledge(term, 3, sequence=rig.hardened.append_sequence))
    assert rig.raft._isLeader()


def test_only_answers_to_later_appends_confirm_a_leader(rig: HardenedRig) -> None:
    term = elect(rig)
    rig.deliver("b", acknowledge(term, 3, sequence=rig.hardened.append_sequence))
    asked = rig.hardened.append_sequence
    assert not rig.hardened.confirmed_since(asked)
    rig.hardened.heartbeat()
    rig.deliver("b", acknowledge(term, 3, sequence=asked))
    assert not rig.hardened.confirmed_since(asked)
    rig.deliver("b", acknowledge(term, 0, sequence=rig.hardened.append_sequence, success=False))
    assert rig.hardened.confirmed_since(asked)


def test_leadership_is_told_when_it_changes(rig: HardenedRig) -> None:
    elect(rig)
    pass_time(rig.time, rig, 5.0)
    assert rig.leadership == [True, False]
    assert rig.hardened.leader is None


def test_a_member_without_a_disk_does_not_stand_for_election(rig: HardenedRig) -> None:
    rig.hardened.may_lead = False
    pass_time(rig.time, rig, 10.0)
    assert [message for _, message in rig.out if message["type"] == "request_vote"] == []


def test_a_candidate_whose_disk_takes_nothing_does_not_stay_the_leader(rig: HardenedRig) -> None:
    rig.raft._SyncObj__raftElectionDeadline = 0.0
    rig.tick()
    rig.deliver("c", {"type": "response_vote", "trial": True, "term": 1, "granted": True, "voter_term": 0})
    rig.tick()
    rig.hardened.may_lead = False
    rig.deliver("c", {"type": "response_vote", "term": 1, "granted": True, "voter_term": 1})
    rig.tick()
    # It would commit nothing, and its heartbeats would keep the others from an election.
    assert not rig.hardened.leads
    assert rig.leadership == [True, False]


# --- the disk


def test_an_append_is_acknowledged_when_the_disk_has_it(slow_rig: HardenedRig) -> None:
    slow_rig.deliver("b", append(1, (1, 0), entries(2, 5), commit=1, sequence=8))
    assert slow_rig.replies("b", "next_node_idx") == []
    slow_rig.sync()
    assert slow_rig.replies("b", "next_node_idx") == [acknowledge(1, 6, sequence=8)]


def test_a_heartbeat_is_answered_while_the_disk_is_slow(slow_rig: HardenedRig) -> None:
    slow_rig.deliver("b", append(1, (1, 0), entries(2, 5), commit=1, sequence=8))
    slow_rig.deliver("b", append(1, (5, 1), [], commit=1, sequence=9))
    assert slow_rig.replies("b", "next_node_idx") == [acknowledge(1, 0, sequence=9, success=False)]


def test_news_of_what_is_committed_is_not_answered(rig: HardenedRig) -> None:
    rig.deliver("b", append(1, (1, 0), entries(2, 5), commit=1, sequence=8))
    rig.out.clear()
    rig.deliver("b", append(1, (5, 1), [], commit=5, sequence=0))
    assert rig.hardened.commit_index == 5
    assert rig.out == []


def test_a_commit_is_news_and_confirms_nothing(rig: HardenedRig) -> None:
    term = elect(rig)
    rig.tick()
    sent = rig.hardened.append_sequence
    rig.out.clear()
    rig.deliver("b", acknowledge(term, 3, sequence=sent))
    rig.tick()
    # They wait a moment for entries that they can go with, unless somebody waits for them.
    assert rig.replies("b", "append_entries") == []
    assert rig.reminded == 1
    rig.hardened.news_awaited = True
    rig.tick()
    news = rig.replies("b", "append_entries")
    assert [(one["sequence"], one["commit_index"], one["entries"]) for one in news] == [(0, 2, [])]
    assert rig.hardened.append_sequence == sent


def test_news_of_a_commit_go_with_the_next_entries(rig: HardenedRig) -> None:
    term = elect(rig)
    rig.tick()
    rig.deliver("b", acknowledge(term, 3, sequence=rig.hardened.append_sequence))
    rig.out.clear()
    rig.groups = [b"\x00one"]
    rig.tick()
    [message] = rig.replies("b", "append_entries")
    assert (message["commit_index"], len(message["entries"])) == (2, 1)
    assert rig.reminded == 0


def test_a_commit_is_told_when_all_that_can_be_reached_have_been_sent_it(rig: HardenedRig) -> None:
    term = elect(rig)
    rig.tick()
    rig.deliver("b", acknowledge(term, 3, sequence=rig.hardened.append_sequence))
    rig.tick()
    assert (rig.hardened.commit_index, rig.hardened.commit_told) == (2, 1)
    rig.hardened.news_awaited = True
    rig.tick()
    assert rig.hardened.commit_told == 2


def test_an_acknowledgement_that_a_later_term_overtook_is_not_sent(slow_rig: HardenedRig) -> None:
    slow_rig.deliver("b", append(1, (1, 0), entries(2, 5), commit=1))
    slow_rig.deliver("c", append(2, (1, 0), [(2, 2)], commit=1))
    slow_rig.sync()
    assert slow_rig.replies("b", "next_node_idx") == []
    assert [reply["next_node_idx"] for reply in slow_rig.replies("c", "next_node_idx")] == [3]


def test_a_leader_counts_itself_when_its_disk_has_the_entry(slow_rig: HardenedRig) -> None:
    term = elect(slow_rig)
    slow_rig.deliver("b", acknowledge(term, 3))
    slow_rig.tick()
    assert slow_rig.hardened.commit_index == 1
    slow_rig.sync()
    slow_rig.tick()
    assert slow_rig.hardened.commit_index == 2


def test_a_single_member_waits_for_its_disk_too(time: Time, tmp_path: Path) -> None:
    rig = HardenedRig(time, tmp_path, disk=False, peers=())
    rig.groups = [b"\x00one"]
    rig.tick()
    rig.tick()
    assert rig.raft._isLeader()
    assert (rig.hardened.commit_index, rig.applied) == (1, [])
    rig.sync()
    rig.tick()
    assert rig.applied == [(2, NO_OP), (3, b"\x00one")]
    rig.journal.close()


def test_nothing_is_promised_when_term_and_vote_cannot_be_saved(rig: HardenedRig) -> None:
    rig.vote_error = OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space"):
        rig.deliver("c", {"type": "request_vote", "term": 6, "last_log_index": 9, "last_log_term": 5})
    assert rig.out == []
    assert rig.hardened.term == 0


def test_nothing_is_asked_of_a_disk_that_hangs(rig: HardenedRig) -> None:
    rig.hardened.may_vote = False
    trial = {"type": "request_vote", "trial": True, "term": 6, "last_log_index": 9, "last_log_term": 5}
    rig.deliver("c", trial)
    assert [m["granted"] for m in rig.replies("c", "response_vote")] == [False]
    rig.out.clear()
    for message in (
        {"type": "request_vote", "term": 6, "last_log_index": 9, "last_log_term": 5},
        append(6, (1, 0), [(2, 6)], commit=1),
    ):
        with pytest.raises(OSError, match="does not answer"):
            rig.deliver("c", message)
    assert (rig.out, rig.votes, rig.hardened.term) == ([], [Vote()], 0)
    rig.hardened.may_vote = True
    rig.deliver("c", append(6, (1, 0), [(2, 6)], commit=1))
    assert rig.hardened.term == 6


def test_a_leader_whose_disk_takes_nothing_asks_another_to_take_over(slow_rig: HardenedRig) -> None:
    term = elect(slow_rig)
    slow_rig.deliver("b", acknowledge(term, 3))
    slow_rig.out.clear()
    assert slow_rig.hardened.step_aside()
    assert slow_rig.leadership == [True, False]
    # b has what this member's own disk has not yet; c has not.
    assert slow_rig.out == [("b", {"type": "timeout_now", "term": term})]


def test_a_leader_does_not_step_aside_for_those_that_lack_something(slow_rig: HardenedRig) -> None:
    elect(slow_rig)
    slow_rig.out.clear()
    assert not slow_rig.hardened.step_aside()
    assert slow_rig.leadership == [True]
    assert slow_rig.out == []


# --- sending and applying


def test_an_entry_of_any_size_goes_whole(either: Rig) -> None:
    term = elect(either)
    either.out.clear()
    entry = b"\x00" * (2 << 20)
    if isinstance(either, HardenedRig):
        either.groups.append(entry)
    else:
        either.raft._applyCommand(entry, None)
    either.tick()
    either.raft._SyncObj__sendAppendEntries()
    sent = [message for peer, message in either.out if peer == "b" and message.get("entries")]
    whole = [payload for message in sent for payload, _, _ in message["entries"] if payload == entry]
    assert bool(whole) is not faulty(either)
    assert all(message["term"] == term for message in sent)


def test_a_turn_sends_no_more_than_the_loop_has_time_for(rig: HardenedRig, monkeypatch: pytest.MonkeyPatch) -> None:
    kicks: list[int] = []
    monkeypatch.setattr(rig, "kick", lambda: kicks.append(1))
    elect(rig)
    rig.out.clear()
    rig.groups += [b"\0" + bytes(1_500_000) for _ in range(3)]
    # So that there is room for all three: the no-op and what comes with it are acknowledged.
    rig.deliver("c", acknowledge(rig.hardened.term, rig.journal.last_index + 1))
    for expected in (2, 1, 0):
        kicks.clear()
        rig.out.clear()
        rig.tick()
        sent = [len(message["entries"]) for message in rig.replies("b", "append_entries")]
        assert sum(sent) == expected
        assert bool(kicks) or expected < 2


def test_a_follower_that_takes_nothing_is_not_sent_past(rig: HardenedRig) -> None:
    elect(rig)
    node = rig.hardened._nodes["b"]
    before = rig.raft._SyncObj__raftNextIndex[node]
    rig.takes = False
    rig.groups = [b"\x00one", b"\x00two"]
    rig.tick()
    assert rig.raft._SyncObj__raftNextIndex[node] == before
    rig.takes = True
    rig.tick()
    sent = [index for message in rig.replies("b", "append_entries") for _, index, _ in message["entries"]]
    assert sent == [2, 3, 4]


def test_an_apply_that_raises_does_not_apply_again(rig: HardenedRig, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def broken(index: int, _term: int, _entry: bytes) -> int:
        seen.append(index)
        if index == 3:
            raise RuntimeError("a callback that raises")
        return 1

    monkeypatch.setattr(rig, "apply", broken)
    rig.deliver("b", append(1, (1, 0), entries(2, 5), commit=5))
    with pytest.raises(RuntimeError):
        rig.tick()
    rig.tick()
    assert seen == [2, 3, 4, 5]


def test_a_new_leader_commits_earlier_terms_with_its_own(rig: HardenedRig) -> None:
    rig.deliver("b", append(1, (1, 0), entries(2, 200), commit=1))
    rig.time.now += 5
    term = elect(rig)
    rig.deliver("b", acknowledge(term, 201, sequence=rig.hardened.append_sequence))
    rig.tick()
    # Entries of an earlier term are not committed by counting (Raft, 5.4.2).
    assert rig.hardened.commit_index == 1
    rig.deliver("b", acknowledge(term, 202, sequence=rig.hardened.append_sequence))
    rig.tick()
    assert rig.hardened.commit_index == 201


def test_uncommitted_groups_are_bounded(rig: HardenedRig) -> None:
    elect(rig)
    rig.groups = [b"\x00%d" % number for number in range(20)]
    rig.tick()
    assert rig.journal.last_index - rig.hardened.commit_index == 4


def test_term_and_vote_survive(time: Time, tmp_path: Path) -> None:
    first = HardenedRig(time, tmp_path)
    first.deliver("c", {"type": "request_vote", "term": 6, "last_log_index": 9, "last_log_term": 5})
    first.deliver("b", append(6, (1, 0), [(2, 6)], commit=2))
    first.journal.close()
    second = HardenedRig(time, tmp_path, vote=first.votes[-1])
    assert second.log() == [(1, 0), (2, 6)]
    assert second.hardened.term == 6
    second.deliver("b", {"type": "request_vote", "term": 6, "last_log_index": 9, "last_log_term": 6})
    assert second.replies("b", "response_vote") == []
    second.journal.close()


def test_transfer_makes_the_follower_stand_at_once(rig: HardenedRig) -> None:
    rig.deliver("b", append(1, (1, 0), entries(2, 3), commit=3))
    rig.deliver("b", {"type": "timeout_now", "term": 1})
    rig.tick()
    requests = rig.replies("b", "request_vote")
    assert [(request["term"], request["trial"], request["transfer"]) for request in requests] == [(2, False, True)]
