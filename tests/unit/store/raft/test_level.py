"""When a group rises to a level, and what members of other versions see of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from kybern.daemon import StartupError
from kybern.pki import Identity
from store.raft import entries, messages
from store.raft.admittance import Admittance
from store.raft.applying import Applying
from store.raft.configuration import Add, Configuration, Configurations, changed
from store.raft.entries import InvalidEntry, Run, encode_group, encode_level
from store.raft.interface import Applied, Levels, Loading, UnknownCommand, UnknownLevel
from store.raft.journal import Journal
from store.raft.level import Rising, attainable, check_log, not_applied
from store.raft.membership import Seen
from store.raft.messages import PROTOCOL, Hello, LevelTooLow
from store.raft.proposals import Proposals
from store.raft.snapshots import Header, SnapshotReader, SnapshotWriter
from store.raft.standing import Standing
from tests.unit.store.raft.nodes import unstarted_config
from tests.unit.store.raft.rig import group

THREE = group("a", "b", "c")


def seen(**levels: int) -> dict[str, Seen]:
    return {name: Seen(0, name, name, level=level) for name, level in levels.items()}


@pytest.mark.parametrize(
    ("configuration", "told", "level"),
    [
        (THREE, seen(a=2, b=2, c=2), 2),
        (THREE, seen(a=2, b=3, c=4), 2),
        (THREE, seen(a=2, b=2, c=1), 1),
        (THREE, seen(a=2, b=2), 0),
        (group("a", "b", learners=("c",)), seen(a=2, b=2, c=1), 1),
        (group("a", "b", learners=("c",)), seen(a=2, b=2), 0),
        (group("a"), seen(a=2, b=1), 2),
        # It was added by its address, and nobody has come from there.
        (changed(group("a"), Add("", "x", "", False), 9)[0], seen(a=2), 0),
        # Somebody of that name who is not the member.
        (THREE, seen(a=2, b=2) | {"c": Seen(77, "c", "c", level=2)}, 0),
        (THREE, seen(a=2, b=2) | {"c": Seen(3, "c", "c", level=2)}, 2),
        (Configuration(), seen(a=2), 0),
    ],
)
def test_the_highest_that_all_can_apply(configuration: Configuration, told: dict[str, Seen], level: int) -> None:
    assert attainable(configuration, told) == level


@dataclass
class Leader:
    configurations: Configurations = field(default_factory=lambda: Configurations(THREE, 2))
    term: int = 3
    may_change: bool = True
    appended: list[int] = field(default_factory=list)

    def rise(self, level: int) -> int:
        self.appended.append(level)
        return 10 + len(self.appended)


def test_a_leader_appends_a_rise_once_in_a_term() -> None:
    leader, rising, told = Leader(), Rising(), seen(a=3, b=2, c=2)
    for _ in range(3):
        rising.advance(leader, Levels(1, 3), 1, told)
    assert leader.appended == [2]
    # Another leader may have cut it off.
    leader.term = 5
    rising.advance(leader, Levels(1, 3), 1, told)
    assert leader.appended == [2, 2]
    rising.advance(leader, Levels(1, 3), 2, told)
    rising.advance(leader, Levels(1, 3), 2, seen(a=3, b=3, c=2))
    assert leader.appended == [2, 2]
    rising.advance(leader, Levels(1, 3), 2, seen(a=3, b=3, c=3))
    assert leader.appended == [2, 2, 3]


@pytest.mark.parametrize(
    "leader",
    [Leader(may_change=False), Leader(configurations=Configurations(THREE))],
    ids=["a follower, or one that does not know what is committed", "members that the log does not name yet"],
)
def test_nobody_else_appends_one(leader: Leader) -> None:
    Rising().advance(leader, Levels(1, 2), 1, seen(a=2, b=2, c=2))
    assert leader.appended == []


def test_levels_are_read_back_and_have_a_type_that_earlier_versions_refuse() -> None:
    assert entries.decode_level(encode_level(7)) == 7
    assert encode_level(7)[0] not in (entries.GROUP, entries.NO_OP, entries.CONFIGURATION)
    assert (entries.decode_group(encode_level(7)), entries.clock_of(encode_level(7))) == (None, None)
    for entry in (b"", b"\x05", encode_level(7) + b"\0", b"\x04" + encode_level(7)[1:]):
        with pytest.raises(InvalidEntry):
            entries.decode_level(entry)


# --- hello


def test_a_later_version_may_say_more() -> None:
    hello = Hello("test", "s1", PROTOCOL, 7, "h:1", "h:2", "first", 9, Standing(3, "s2", 40, 3), 2)
    said = msgspec.msgpack.decode(messages.encode(hello))
    assert messages.decode(msgspec.msgpack.encode([*said, "more", {"and": "more"}])) == hello


# --- whom a member lets in


def _admittance(level: int) -> Admittance:
    admittance = Admittance(unstarted_config())
    known = group("s1", "s2")
    assert admittance.configure((known, known), behind=False, level=level)
    return admittance


def _hello(name: str, level: int) -> Hello:
    return Hello(unstarted_config().cluster_name, name, PROTOCOL, 2, name, group="first", level=level)


@pytest.mark.parametrize("group_level", [1, 2, 3])
@pytest.mark.parametrize("told", [1, 2, 3])
def test_who_cannot_apply_the_groups_level_is_told_and_not_let_in(group_level: int, told: int) -> None:
    admittance, identity, hello = _admittance(group_level), Identity("s2", ("kybern:store",)), _hello("s2", told)
    refusal, parting = admittance.refusal(identity, hello, ""), admittance.parting(hello)
    if told >= group_level:
        assert (refusal, parting, admittance.last_word(identity, hello)) == (None, None, None)
    else:
        assert refusal == parting
        assert f"s2 can apply level {told} of the state machine at most, and the group is at level {group_level}" in (
            refusal or ""
        )
        assert admittance.last_word(identity, hello) == LevelTooLow(group_level)


def test_who_is_no_member_is_not_told_of_levels() -> None:
    admittance, identity, hello = _admittance(2), Identity("x", ("kybern:store",)), _hello("x", 1)
    assert "is not another member" in (admittance.refusal(identity, hello, "") or "")
    assert admittance.last_word(identity, hello) is None


# --- applying


class Machine:
    """Notes what it applies; `x` came with another version."""

    def __init__(self, levels: Levels) -> None:
        self.levels = levels
        self.level = 1
        self.commands: list[bytes] = []

    def apply(self, command: bytes, applied: Applied) -> object:
        if command == b"x":
            raise UnknownCommand("x")
        self.commands.append(command)
        return None

    def rise(self, level: int) -> None:
        self.level = max(self.level, level)

    def caught_up(self) -> None:
        """Nobody waits."""

    def dump(self) -> Iterator[bytes]:
        raise AssertionError("nothing is dumped here")

    def load(self) -> Loading:
        raise AssertionError("nothing is loaded here")


def _applying(levels: Levels) -> tuple[Applying, Machine]:
    machine = Machine(levels)
    return Applying(machine, Proposals(2, lambda taken: None)), machine


def _group(*commands: bytes) -> bytes:
    return encode_group(1000, [Run(1, 1, commands)])


def test_a_rise_is_applied_by_who_can() -> None:
    applying, machine = _applying(Levels(1, 2))
    applying.entry(1, _group(b"a"))
    applying.entry(1, encode_level(2))
    applying.entry(1, _group(b"b"))
    assert (machine.level, machine.commands, applying.level) == (2, [b"a", b"b"], 2)
    with pytest.raises(UnknownLevel) as caught:
        applying.entry(1, encode_level(3))
    assert (caught.value.level, machine.level) == (3, 2)


def test_commands_of_a_level_that_is_too_low_by_now_are_not_applied() -> None:
    applying, machine = _applying(Levels(2, 3))
    with pytest.raises(UnknownLevel) as caught:
        applying.entry(1, _group(b"a"))
    assert (caught.value.level, machine.commands) == (1, [])


def test_nothing_is_applied_after_a_command_of_another_version() -> None:
    applying, machine = _applying(Levels())
    with pytest.raises(UnknownCommand):
        applying.entry(1, _group(b"a", b"x", b"b"))
    assert machine.commands == [b"a"]


@pytest.mark.parametrize("error", [UnknownLevel(2), UnknownCommand("a command"), InvalidEntry("05")])
def test_who_meets_what_it_cannot_apply_says_what_to_do(error: InvalidEntry | UnknownLevel | UnknownCommand) -> None:
    said = not_applied(unstarted_config(), Levels(), 31, error)
    assert not said.retry
    for words in ("s1", "entry 31", "level 1", str(unstarted_config().data_dir), "Install the version that the other"):
        assert words in str(said)


def test_one_that_is_too_new_says_so() -> None:
    said = str(not_applied(unstarted_config(), Levels(2, 3), 31, UnknownLevel(1)))
    assert "is at level 1 of the state machine" in said
    assert "applies levels 2 to 3" in said
    assert "a version in between" in said


# --- on disk


def _journal(tmp_path: Path, *payloads: tuple[int, bytes]) -> Journal:
    journal = Journal(tmp_path / "log")
    (tmp_path / "log").mkdir(exist_ok=True)
    journal.open()
    for index, payload in payloads:
        if index <= journal.last_index:
            journal.truncate_from(index)
        journal.append(index, 1, payload)
        batch = journal.take()
        assert batch is not None
        journal.write(batch)
        journal.done(batch)
    journal.close()
    again = Journal(tmp_path / "log")
    again.open()
    again.close()
    return again


def test_a_member_that_starts_knows_of_rises_in_its_log(tmp_path: Path) -> None:
    journal = _journal(tmp_path, (2, _group(b"a")), (3, encode_level(2)), (4, encode_level(3)), (5, _group(b"b")))
    assert journal.rises == {3: encode_level(2), 4: encode_level(3)}
    check_log(unstarted_config(), Levels(1, 3), journal.rises)
    with pytest.raises(StartupError, match=r"log, from entry 4 on, is at level 3 .* applies levels 1 to 2"):
        check_log(unstarted_config(), Levels(1, 2), journal.rises)


def test_a_rise_that_was_cut_off_is_none(tmp_path: Path) -> None:
    journal = _journal(tmp_path, (2, encode_level(2)), (3, encode_level(3)), (3, _group(b"b")))
    assert journal.rises == {2: encode_level(2)}


@pytest.mark.parametrize("level", [1, 2])
def test_a_snapshot_names_its_level_unless_versions_without_levels_may_read_it(tmp_path: Path, level: int) -> None:
    header = Header("test", 20, 3, 17, 5000, THREE, level=level)
    writer = SnapshotWriter(tmp_path, header)
    found = writer.finish()
    reader = SnapshotReader(found.path)
    reader.close()
    assert reader.header == header
    # They refuse a header with a field that they do not know.
    assert (b"level" in found.path.read_bytes()) == (level > 1)
