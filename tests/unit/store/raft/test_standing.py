"""Where members stand, what of it one of them has forgotten, and how it votes then."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest

from kybern.daemon import StartupError
from store.raft import older
from store.raft.configuration import Configurations
from store.raft.datadir import DataDir, Identity, Owed, Vote
from store.raft.excluded import Excluded
from store.raft.standing import NOTHING, Standing, Standings, both, lacks, voted
from tests.unit.store.raft.nodes import unstarted_config
from tests.unit.store.raft.rig import HardenedRig, Time, acknowledge, append, elect, group, pass_time

_KNOWN = Standing(5, "b", 40, 3)


@pytest.mark.parametrize(
    "said",
    [
        _KNOWN,
        Standing(5, "b", 41, 3),
        # A leader of a later term cut off what was not committed: the end is earlier than it was, never than that.
        Standing(5, "b", 40, 4),
        Standing(6, "", 40, 3),
        Standing(6, "c", 90, 6),
    ],
)
def test_who_goes_on_from_where_it_stood_has_forgotten_nothing(said: Standing) -> None:
    assert lacks(said, _KNOWN) == ""


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (Standing(4, "b", 40, 3), "it was in term 5 and is in term 4"),
        (Standing(5, "", 40, 3), "it voted for b in term 5"),
        (Standing(5, "c", 40, 3), "it voted for b in term 5"),
        (Standing(6, "", 39, 3), "up to entry 40 of term 3 and has it up to 39"),
        # Entries that nobody else has, of an earlier term.
        (Standing(6, "", 99, 2), "up to entry 40 of term 3 and has it up to 99"),
        (Standing(6, "", 39, 4), "up to entry 40 of term 3 and has it up to 39"),
    ],
)
def test_who_stands_behind_is_told_what_it_has_forgotten(said: Standing, what: str) -> None:
    assert what in lacks(said, _KNOWN)


def test_of_two_that_know_something_of_a_member_both_count() -> None:
    one, other = Standing(5, "", 40, 3), Standing(4, "b", 50, 3)
    assert both(one, other) == both(other, one) == Standing(5, "", 50, 3)
    assert both(one, Standing(5, "c")) == Standing(5, "c", 40, 3)
    assert both(one, NOTHING) == one
    assert voted(_KNOWN) == Standing(5, "b")


def test_what_was_heard_of_a_directory_is_not_asked_of_another() -> None:
    standings = Standings()
    standings.heard("b", 7, Standing(2, "", 10, 2))
    standings.heard("b", 7, Standing(3, "", 9, 2))
    assert standings.of("b", 7) == Standing(3, "", 10, 2)
    assert standings.of("b", 8) == NOTHING
    standings.heard("b", 8, Standing(1))
    assert standings.of("b", 7) == NOTHING
    # Of a member that has not begun.
    assert standings.holds() == standings.vouches() == NOTHING


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HardenedRig:
    time = Time()
    monkeypatch.setattr("pysyncobj.syncobj.monotonicTime", time)
    return HardenedRig(time, tmp_path / "log", vote=Vote(3, "a"))


def _log(rig: HardenedRig, upto: int, commit: int) -> None:
    rig.deliver("b", append(3, (1, 0), [(index, 3) for index in range(2, upto + 1)], commit))
    rig.tick()


def test_a_leader_knows_what_of_the_committed_a_follower_has(rig: HardenedRig) -> None:
    term = elect(rig)
    standings = Standings()
    standings.join(rig.hardened)
    rig.hardened.heartbeat()
    standings.note("b", 7)
    assert standings.of("b", 7) == NOTHING
    end, sequence = rig.journal.last_index, rig.hardened.append_sequence
    rig.deliver("b", acknowledge(term, end + 1, sequence=sequence))
    rig.tick()
    standings.note("b", 7)
    assert standings.of("b", 7) == Standing(term, "", end, term)
    # What the other one has not acknowledged, it may lack.
    standings.note("c", 8)
    assert standings.of("c", 8) == NOTHING


def test_a_follower_knows_what_its_leader_has_committed(rig: HardenedRig) -> None:
    _log(rig, 9, 6)
    assert rig.hardened.acknowledged("b") == Standing(3, "", 6, 3)
    assert rig.hardened.acknowledged("c") == NOTHING
    assert rig.hardened.vouches() == Standing(3, "a", 6, 3)
    assert rig.hardened.holds() == Standing(3, "a", 9, 3)


def _asked(rig: HardenedRig, term: int, last: tuple[int, int], *, trial: bool) -> bool:
    """Whether it votes for a candidate whose log ends with (index, term)."""
    rig.out.clear()
    request = {
        "type": "request_vote",
        "trial": trial,
        "term": term,
        "last_log_index": last[0],
        "last_log_term": last[1],
        "transfer": False,
    }
    rig.deliver("c", request)
    return any(reply.get("granted", True) for reply in rig.replies("c", "response_vote"))


@pytest.mark.parametrize("trial", [True, False])
def test_it_votes_as_the_member_that_it_was(rig: HardenedRig, *, trial: bool) -> None:
    _log(rig, 5, 5)
    rig.time.now += 10
    rig.hardened.owed = Standing(3, "a", 8, 3)
    assert not _asked(rig, 4, (7, 3), trial=trial)
    assert rig.hardened.term == (3 if trial else 4)
    assert _asked(rig, 5, (8, 3), trial=trial)
    rig.hardened.owed = None
    rig.time.now += 10
    assert _asked(rig, 6, (7, 3), trial=trial)


def test_it_stands_for_election_when_it_has_again_what_it_had(rig: HardenedRig) -> None:
    _log(rig, 5, 5)
    rig.hardened.owed = Standing(3, "a", 8, 3)
    pass_time(rig.time, rig, 10.0)
    assert not any(message["type"] == "request_vote" for _, message in rig.out)
    assert rig.hardened.holds() == Standing(3, "a", 8, 3)
    # An entry of that index alone is not the one.
    assert not rig.hardened.has_again(Standing(3, "a", 5, 2), 5)
    rig.deliver("b", append(3, (5, 3), [(index, 3) for index in range(6, 9)], 8, sequence=2))
    pass_time(rig.time, rig, 10.0)
    assert any(message["type"] == "request_vote" for _, message in rig.out)


# --- what a member does that is told


def _directory(tmp_path: Path) -> DataDir:
    return DataDir.open(tmp_path / "data", Identity("kybern", "s1"))


def _raft(holds: Standing, *, led: bool = False, owed: Standing | None = None) -> Mock:
    configurations = Configurations(group("s1", "s2"))
    return Mock(holds=lambda: holds, has_led=led, owed=owed, configurations=configurations)


def test_it_begins_anew_with_what_it_owes(tmp_path: Path) -> None:
    config, directory = unstarted_config(), _directory(tmp_path)
    directory.save_vote(Vote(4, "s2"))
    error = older.told(config, _raft(Standing(4, "s2", 30, 3)), directory, "s2", _KNOWN)
    assert isinstance(error, StartupError)
    assert error.retry
    owed_to = Configurations(group("s1", "s2")).current.group
    assert older.load(directory, "s1", owed_to) == _KNOWN
    assert directory.load_vote() == Vote(5, "b")
    directory.close()


@pytest.mark.parametrize(("kept", "after"), [(Vote(4, "s2"), Vote(5, "s1")), (Vote(5, ""), Vote(5, "s1"))])
def test_it_votes_for_nobody_in_a_term_in_which_it_may_have_voted(tmp_path: Path, kept: Vote, after: Vote) -> None:
    directory = _directory(tmp_path)
    directory.save_vote(kept)
    directory.save_owed(Owed("first", Standing(5, "", 40, 3)))
    assert older.load(directory, "s1", "first") == Standing(5, "", 40, 3)
    assert directory.load_vote() == after
    directory.close()


def test_what_it_owes_to_two_that_know_differently_is_both(tmp_path: Path) -> None:
    directory = _directory(tmp_path)
    raft = _raft(Standing(5, "b", 40, 3), owed=Standing(5, "b", 40, 3))
    assert isinstance(older.told(unstarted_config(), raft, directory, "s3", Standing(4, "", 50, 3)), StartupError)
    owed = directory.load_owed()
    assert owed is not None
    assert owed.standing == Standing(5, "b", 50, 3)
    directory.close()


def test_a_word_that_was_overtaken_changes_nothing(tmp_path: Path) -> None:
    directory = _directory(tmp_path)
    assert older.told(unstarted_config(), _raft(Standing(5, "b", 44, 3)), directory, "s2", _KNOWN) is None
    assert directory.load_owed() is None
    directory.close()


def test_one_that_has_led_since_does_not_come_back_by_itself(tmp_path: Path) -> None:
    directory = _directory(tmp_path)
    error = older.told(unstarted_config(), _raft(Standing(5, "b", 39, 3), led=True), directory, "s2", _KNOWN)
    assert isinstance(error, Excluded)
    assert "kybern store join" in str(error)
    assert directory.load_owed() is None
    directory.close()


def test_what_it_owed_to_a_group_that_was_recovered_since_is_forgotten(tmp_path: Path) -> None:
    directory = _directory(tmp_path)
    directory.save_owed(Owed("first", _KNOWN))
    assert older.load(directory, "s1", "another") is None
    assert directory.load_owed() is None
    assert directory.load_vote() == Vote()
    directory.close()


def test_it_is_quit_when_the_disk_has_it_again(tmp_path: Path) -> None:
    directory = _directory(tmp_path)
    directory.save_owed(Owed("first", _KNOWN))
    raft = Mock(owed=_KNOWN, has_again=lambda _owed, end: end >= 40, journal=Mock(durable_index=39))
    older.look_after(raft, directory)
    assert raft.owed == _KNOWN
    raft.journal.durable_index = 40
    older.look_after(raft, directory)
    assert raft.owed is None
    assert directory.load_owed() is None
    directory.close()
