"""Configurations: what a change makes of one, which holds where in the log, and their bytes."""

from __future__ import annotations

import pytest

from store.raft.configuration import (
    MAX_LEARNERS,
    Add,
    Change,
    Configuration,
    Configurations,
    Promote,
    Publish,
    Remove,
    Update,
    added_id,
    changed,
    check_votes,
    decode,
    encode,
)
from store.raft.entries import InvalidEntry, clock_of, decode_group
from store.raft.interface import MembershipError, MembershipReason
from tests.unit.store.raft.rig import group

THREE = group("a", "b", "c")


def after(before: Configuration, *changes: Change) -> Configuration:
    for number, change in enumerate(changes):
        before, _ = changed(before, change, 100 + number)
    return before


def refusal(before: Configuration, change: Change) -> MembershipReason:
    with pytest.raises(MembershipError) as caught:
        changed(before, change, 100)
    return caught.value.reason


def test_a_new_member_is_a_learner_and_rises_when_it_was_to_vote() -> None:
    voting = after(THREE, Add("d", "d:1", "", learner=False))
    staying = after(THREE, Add("d", "d:1", "", learner=True))
    assert voting.voters == staying.voters == THREE.voters
    assert voting.learners == {"d"}
    assert (voting.rising, staying.rising) == ((100,), ())
    promoted = after(voting, Promote(100))
    assert promoted.voters == {"a", "b", "c", "d"}
    assert promoted.rising == ()


def test_a_member_without_a_name_gets_it_when_it_comes() -> None:
    nameless = after(THREE, Add("", "d:1", "", learner=False))
    assert nameless.voters == THREE.voters
    assert nameless.learners == set()
    assert refusal(nameless, Promote(100)) == MembershipReason.LEARNER_NOT_READY
    named = after(nameless, Publish(100, "d", "d:2"))
    assert named.learners == {"d"}
    member = named.named("d")
    assert member is not None
    assert (member.id, member.client_address) == (100, "d:2")
    assert refusal(nameless, Publish(100, "a", "")) == MembershipReason.ID_EXISTS


def test_who_is_removed_is_remembered() -> None:
    gone = after(THREE, Remove(2))
    assert gone.voters == {"a", "c"}
    assert gone.removed == (2,)
    assert refusal(gone, Remove(2)) == MembershipReason.NOT_FOUND
    back = after(gone, Add("b", "b", "", learner=True))
    assert back.named("b") is not None
    assert back.removed == (2,)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (Add("a", "new", "", learner=True), MembershipReason.ID_EXISTS),
        (Add("d", "a", "", learner=True), MembershipReason.ADDRESS_EXISTS),
        (Promote(1), MembershipReason.NOT_LEARNER),
        (Promote(9), MembershipReason.NOT_FOUND),
        (Remove(9), MembershipReason.NOT_FOUND),
        (Update(9, "new"), MembershipReason.NOT_FOUND),
        (Update(1, "b"), MembershipReason.ADDRESS_EXISTS),
        (Publish(9, "d", ""), MembershipReason.NOT_FOUND),
    ],
)
def test_what_cannot_be_is_refused(change: Change, reason: MembershipReason) -> None:
    assert refusal(THREE, change) == reason


def test_learners_are_few() -> None:
    full = after(THREE, *(Add("", f"new:{n}", "", learner=True) for n in range(MAX_LEARNERS)))
    assert refusal(full, Add("", "new", "", learner=False)) == MembershipReason.TOO_MANY_LEARNERS


def test_an_address_is_updated_to_itself_or_another() -> None:
    assert after(THREE, Update(1, "a")) == THREE
    member = after(THREE, Update(1, "x")).with_id(1)
    assert member is not None
    assert member.peer_address == "x"


@pytest.mark.parametrize(
    ("gone", "active", "reason"),
    [
        (2, {"a", "b", "c"}, None),
        (2, {"a", "c"}, None),
        (2, {"a", "b"}, MembershipReason.UNHEALTHY),
        (3, {"a"}, MembershipReason.UNHEALTHY),
    ],
)
def test_votes_are_taken_away_only_while_a_quorum_is_left(
    gone: int, active: set[str], reason: MembershipReason | None
) -> None:
    try:
        check_votes(THREE, after(THREE, Remove(gone)), active)
    except MembershipError as error:
        assert error.reason == reason
    else:
        assert reason is None


def test_the_last_vote_stays_and_learners_may_always_go() -> None:
    alone = group("a")
    with pytest.raises(MembershipError) as caught:
        check_votes(alone, after(alone, Remove(1)), {"a"})
    assert caught.value.reason == MembershipReason.NOT_ENOUGH_STARTED
    learning = group("a", "b", learners=("c",))
    check_votes(learning, after(learning, Remove(3)), {"a"})


def test_bytes_are_read_back_and_hold_no_commands() -> None:
    configuration = after(THREE, Add("", "d:1", "", learner=False), Remove(2))
    entry = encode(configuration)
    assert decode(entry) == configuration
    assert decode_group(entry) is None
    assert clock_of(entry) is None


@pytest.mark.parametrize("entry", [b"", b"\x01", b"\x04", b"\x04\x01", encode(THREE)[:-1], encode(THREE) + b"x"])
def test_other_bytes_are_no_configuration(entry: bytes) -> None:
    with pytest.raises(InvalidEntry):
        decode(entry)


def test_the_newest_entry_holds_and_falls_with_its_entry() -> None:
    two, four = group("a", "b"), group("a", "b", "c", "d")
    known = Configurations(THREE, entries={5: encode(four), 9: encode(two)})
    assert (known.current, known.index) == (two, 9)
    assert [known.as_of(index) for index in (0, 4, 5, 8, 9, 99)] == [THREE, THREE, four, four, two, two]
    assert not known.truncate_from(10)
    assert known.truncate_from(9)
    assert (known.current, known.index) == (four, 5)
    assert known.truncate_from(2)
    # What the file says is never cut off.
    assert (known.current, known.index) == (THREE, 0)


def test_what_a_snapshot_has_holds_where_it_ends() -> None:
    two, four = group("a", "b"), group("a", "b", "c", "d")
    known = Configurations(THREE, entries={5: encode(four), 9: encode(two)})
    known.trim(7)
    assert known.as_of(7) == four
    assert known.current == two
    known.trim(20)
    assert (known.as_of(20), known.index) == (two, 9)
    known.reset(30, four)
    assert (known.current, known.index) == (four, 30)


def test_ids_differ_between_members_and_times() -> None:
    assert (
        len({added_id("c", "a:1", 5), added_id("c", "a:1", 6), added_id("c", "a:2", 5), added_id("d", "a:1", 5)}) == 4
    )
