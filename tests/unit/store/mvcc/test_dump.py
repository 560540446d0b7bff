"""The state as bytes and back."""

from __future__ import annotations

import gc

import msgspec
import pytest

from store.mvcc.dump import BadDump, dump, load
from store.mvcc.machine import StoreMachine
from store.mvcc.walks import StateReplaced
from store.raft.interface import Levels
from tests.unit.store.driver import Driver, delete, put, read, txn, version_is


def filled() -> Driver:
    store = Driver()
    store.grant(5)
    for n in range(1200):
        store.do(put(b"k%d" % (n % 700), b"v%d" % n, lease=5 if n % 10 == 0 else 0))
    store.do(delete(b"k1", b"k2"))
    store.compact(400)
    store.do(put(b"k1", b"again"))
    store.batch(9, {1: txn(put(b"a", b"1", prev_kv=True), read(b"k1"), delete(b"k3", prev_kv=True))})
    store.batch(9, {2: txn(put(b"a", lease=404))})
    return store


def test_a_copy_goes_on_as_the_original() -> None:
    store = filled()
    copy = Driver()
    copy.index = store.index
    # Cut at odd places: a file or a stream need not keep the frames together.
    data = b"".join(dump(store.machine))
    load(copy.machine, [data[at : at + 1000] for at in range(0, len(data), 1000)])
    for revision in (0, 400, 900, store.revision):
        assert copy.items(revision=revision) == store.items(revision=revision)
    for step in (store, copy):
        step.revoke(5)
        step.compact(1000)
    assert copy.revision == store.revision
    assert copy.checksum == store.checksum
    assert copy.machine.keys.bytes == store.machine.keys.bytes
    assert b"".join(dump(copy.machine)) == b"".join(dump(store.machine))
    again = {1: txn(put(b"a", b"1")), 2: txn(put(b"a", lease=404))}
    first, second = copy.batch(9, again).outcomes
    assert (first.succeeded, second.message) == (True, "etcdserver: requested lease not found")
    assert copy.revision == store.revision


def test_a_dump_is_of_the_moment_in_which_it_was_begun() -> None:
    store = filled()
    whole = b"".join(dump(store.machine))
    portions = dump(store.machine)
    taken = [next(portions), next(portions)]
    store.do(put(b"a0", b"new"))
    store.do(put(b"k5", b"new"))
    store.do(delete(b"\0", b"\0"))
    store.revoke(5)
    store.compact(store.revision)
    store.do(put(b"k6", b"again"))
    store.compact(store.revision)
    # How the records are divided into frames may differ; what is loaded from them does not.
    copy = StoreMachine()
    load(copy, [*taken, *portions])
    assert b"".join(dump(copy)) == whole


def test_compaction_goes_on_when_the_dump_has_ended() -> None:
    store, other = filled(), filled()
    portions = dump(store.machine)
    next(portions)
    unfinished = dump(store.machine)
    for step in (store, other):
        step.compact(900)
        step.do(put(b"k7", b"once more"))
        step.do(delete(b"k8"))
        step.compact(1203)
    # Nothing shows that the records are still there.
    assert len(store.machine.keys.log) > len(other.machine.keys.log)
    assert store.checksum == other.checksum
    assert store.items(revision=1203) == other.items(revision=1203)
    list(portions)
    unfinished.close()
    store.machine.caught_up()
    assert len(store.machine.keys.log) == len(other.machine.keys.log)
    assert store.machine.keys.bytes == other.machine.keys.bytes
    assert b"".join(dump(store.machine)) == b"".join(dump(other.machine))


def test_a_load_replaces_a_running_state_and_tells_who_follows_it() -> None:
    store = filled()
    other = Driver()
    other.grant(77)
    for n in range(30_000):
        other.do(put(b"x%d" % (n % 20_000), b"y", lease=77 if n % 2 else 0))
    heard: list[tuple[str, int]] = []

    class Observer:
        def lease_renewed(self, lease: int, ttl: int) -> None:
            heard.append(("renewed", lease))

        def lease_ended(self, lease: int) -> None:
            heard.append(("ended", lease))

    other.machine.lease_observer = Observer()
    other.machine.on_loaded(lambda: heard.append(("loaded", other.machine.keys.revision)))
    keys = other.machine.keys
    load(other.machine, dump(store.machine))
    assert other.machine.keys is keys
    assert heard == [("ended", 77), ("renewed", 5), ("loaded", store.revision)]
    assert b"".join(dump(other.machine)) == b"".join(dump(store.machine))
    assert other.machine.leases.leases[5].keys == store.machine.leases.leases[5].keys
    # What was there before is freed bit by bit.
    while keys._retired:
        other.machine.caught_up()


def test_a_long_history_of_one_key_is_let_go_without_recursion() -> None:
    store = Driver()
    for n in range(60_000):
        store.machine.keys.put(b"k", b"", 0, n + 2)
    del store
    gc.collect()


def test_what_is_not_a_dump_is_refused_and_changes_nothing() -> None:
    store = filled()
    data = b"".join(dump(store.machine))
    machine = StoreMachine()
    for bad in (b"", b"\x00\x00\x00\x05hello", data[:-30], data[:3000], data[:200] + b"\xc1" * 50 + data[250:]):
        with pytest.raises(BadDump):
            load(machine, [bad])
        assert machine.keys.revision == 1
        assert len(machine.keys.live) == 0


def test_a_frame_is_not_large_though_its_values_are() -> None:
    store = Driver()
    value = bytes(1 << 20)
    for n in range(6):
        store.do(put(b"k%d" % n, value))
    store.batch(1, {n: txn(when=(version_is(b"k0", 7),), otherwise=(read(b"k0"),)) for n in range(1, 7)})
    frames = list(dump(store.machine))
    assert max(map(len, frames)) < 2 * len(value)
    copy = Driver()
    load(copy.machine, frames)
    assert copy.checksum == store.checksum
    assert list(dump(copy.machine)) == frames
    assert len(copy.machine.sessions.sessions[1].outcomes) == 6


def test_dumps_of_the_format_before_are_read() -> None:
    store = filled()
    for client in (11, 12):
        store.batch(client, {n: txn(put(b"s%d" % n, b"")) for n in range(1, 4)}, answered_below=2)
    frames = list(dump(store.machine))
    items = [msgspec.msgpack.decode(frame[4:]) for frame in frames]
    items[0]["format"] = 2
    # All of a session's outcomes, and several sessions, stood in one frame.
    sessions = [row for kind, rows in items[1:] if kind == "sessions" for row in rows]
    assert [row[0] for row in sessions] == [9, 11, 12]
    items = [items[0], *(item for item in items[1:-1] if item[0] != "sessions"), ["sessions", sessions], items[-1]]
    encoded = [msgspec.msgpack.encode(item) for item in items]
    copy = StoreMachine()
    load(copy, [len(part).to_bytes(4, "big") + part for part in encoded])
    assert b"".join(dump(copy)) == b"".join(frames)


def test_a_dump_of_level_1_is_as_versions_read_it_that_know_of_no_levels() -> None:
    store = filled()
    data = b"".join(dump(store.machine))
    assert msgspec.msgpack.decode(data[4 : 4 + int.from_bytes(data[:4], "big")])["format"] == 3
    load(store.machine, [data])
    assert store.machine.level == 1


def test_a_dump_of_a_higher_level_is_read_by_who_can_apply_it_alone() -> None:
    machine = StoreMachine(Levels(1, 3))
    machine.rise(3)
    machine.rise(2)
    data = b"".join(dump(machine))
    # Versions that know of no levels refuse formats that they do not know.
    assert msgspec.msgpack.decode(data[4 : 4 + int.from_bytes(data[:4], "big")])["format"] == 4
    copy = StoreMachine(Levels(2, 4))
    load(copy, [data])
    assert copy.level == 3
    for levels in (Levels(1, 2), Levels(4, 5)):
        store = filled()
        store.machine.levels, before = levels, store.checksum
        with pytest.raises(BadDump, match=f"is of level 3 of the state machine.* applies {levels}"):
            load(store.machine, [data])
        assert (store.checksum, store.machine.level) == (before, 1)


def test_a_dump_ends_when_its_state_was_replaced() -> None:
    store = filled()
    portions = dump(store.machine)
    next(portions)
    load(store.machine, list(dump(filled().machine)))
    with pytest.raises(StateReplaced):
        list(portions)
    store.compact(store.revision)
    assert store.machine.keys.superfluous == 0, "nothing holds up compaction any more"
