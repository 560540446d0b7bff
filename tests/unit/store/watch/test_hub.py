"""Watchers: what each is handed, and what happens to those that do not keep up."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from kybern.pb.etcd import watch_pb2
from store.mvcc.dump import dump, load
from store.watch import hub as hub_module
from store.watch.events import Cutter, EventEncoder, Part
from store.watch.hub import Watcher, WatchHub
from tests.unit.store.driver import Driver, delete, put, txn


class Watched(Driver):
    """A machine with a hub; counts who was woken."""

    def __init__(self) -> None:
        super().__init__()
        self.hub = WatchHub(self.machine.keys)
        self.machine.on_caught_up(self.hub.caught_up)
        self.woken: list[int] = []

    def watch(self, start: bytes, end: bytes = b"", since: int = 0, **options: Any) -> Watcher:
        number = len(self.hub)
        watcher = Watcher(number, start, end, lambda w: self.woken.append(w.id), since, **options)
        self.hub.add(watcher)
        return watcher

    def taken(self, watcher: Watcher) -> list[tuple[int, bytes]]:
        """All that a watcher can have now: revision and key of every change."""
        changes = []
        while True:
            taken = self.hub.take(watcher)
            assert not taken.compacted
            changes += [(record.mod, record.key) for record, _ in taken.pairs]
            if watcher.idle and not taken.pairs:
                return changes


@pytest.fixture
def store() -> Watched:
    return Watched()


def test_each_watcher_gets_its_keys_in_order(store: Watched) -> None:
    one, some, rest = store.watch(b"b"), store.watch(b"a", b"c"), store.watch(b"b", b"\0")
    store.do(txn(put(b"c"), put(b"a"), put(b"b")))
    store.do(delete(b"b"))
    store.machine.caught_up()
    assert store.taken(one) == [(2, b"b"), (3, b"b")]
    assert store.taken(some) == [(2, b"a"), (2, b"b"), (3, b"b")]
    assert store.taken(rest) == [(2, b"c"), (2, b"b"), (3, b"b")]


def test_only_those_concerned_are_woken(store: Watched) -> None:
    store.watch(b"a")
    store.watch(b"x", b"z")
    store.do(put(b"a"))
    store.machine.caught_up()
    assert store.woken == [0]


def test_filters_and_what_was_before(store: Watched) -> None:
    no_put, no_delete = store.watch(b"a", no_put=True), store.watch(b"a", b"b", no_delete=True)
    store.do(put(b"a", b"1"))
    store.do(put(b"a", b"2"))
    store.do(delete(b"a"))
    store.do(put(b"a", b"3"))
    store.machine.caught_up()
    ((gone, before),) = store.hub.take(no_put).pairs
    assert (gone.deleted, before.value if before else None) == (True, b"2")
    pairs = store.hub.take(no_delete).pairs
    assert [(r.value, p.value if p else None) for r, p in pairs] == [(b"1", None), (b"2", b"1"), (b"3", None)]


def test_the_past_is_read_from_history_in_portions(store: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "CHUNK", 3)
    for n in range(10):
        store.do(txn(put(b"a%d" % n), put(b"other%d" % n)))
    store.machine.caught_up()
    watcher = store.watch(b"a", b"b", since=5)
    first = store.hub.take(watcher)
    # A revision is never cut in two, and what was looked through counts as seen.
    assert [(r.mod, r.key) for r, _ in first.pairs] == [(5, b"a3"), (6, b"a4")]
    assert first.revision == 6
    store.do(put(b"a-new"))
    store.machine.caught_up()
    assert store.taken(watcher) == [(n, b"a%d" % (n - 2)) for n in range(7, 12)] + [(12, b"a-new")]


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 100])
def test_the_past_of_one_key_is_read_from_its_own_history(
    store: Watched, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(hub_module, "CHUNK", chunk)
    for request in (
        put(b"a", b"1"),
        put(b"b"),
        put(b"a", b"2"),
        delete(b"a"),
        put(b"b"),
        put(b"a", b"3"),
        delete(b"a"),
    ):
        store.do(request)
    store.machine.caught_up()
    watchers = [store.watch(b"a", since=since) for since in range(2, 10)]
    # Not handed out yet: it comes with the next changes.
    store.do(put(b"a"))
    everything = [(2, b"a"), (4, b"a"), (5, b"a"), (7, b"a"), (8, b"a"), (9, b"a")]
    taken = [store.taken(watcher) for watcher in watchers]
    store.machine.caught_up()
    taken = [before + store.taken(watcher) for before, watcher in zip(taken, watchers, strict=True)]
    assert taken == [[change for change in everything if change[0] >= since] for since in range(2, 10)]


def test_a_watch_of_the_future_begins_there(store: Watched) -> None:
    watcher = store.watch(b"a", since=4)
    for _ in range(4):
        store.do(put(b"a"))
        store.machine.caught_up()
    assert store.taken(watcher) == [(4, b"a"), (5, b"a")]


def test_a_watch_from_below_all_revisions_is_told_of_all_or_that_not_all_are_kept(store: Watched) -> None:
    for _ in range(2):
        store.do(put(b"a"))
    store.machine.caught_up()
    assert store.taken(store.watch(b"a", since=-3)) == [(2, b"a"), (3, b"a")]
    store.compact(2)
    assert store.hub.take(store.watch(b"a", since=-3)).compacted == 2
    assert store.taken(store.watch(b"a", since=0)) == []


def test_one_that_does_not_take_reads_the_history_later(store: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "MAX_PENDING", 5)
    watcher = store.watch(b"a", b"b")
    for n in range(20):
        store.do(put(b"a%02d" % n))
        store.machine.caught_up()
        assert len(watcher.pending) <= 5
    assert store.taken(watcher) == [(n + 2, b"a%02d" % n) for n in range(20)]


def test_one_that_falls_behind_a_compaction_is_told(store: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "MAX_PENDING", 2)
    watcher = store.watch(b"a", b"b")
    for _ in range(9):
        store.do(put(b"a"))
        store.machine.caught_up()
    store.compact(8)
    assert store.hub.take(watcher).compacted == 8


def test_a_compaction_takes_nothing_from_one_that_keeps_up(store: Watched) -> None:
    watcher = store.watch(b"a", b"b")
    store.do(put(b"a", b"1"))
    store.do(put(b"a", b"2"))
    store.compact(3)
    store.machine.caught_up()
    pairs = store.hub.take(watcher).pairs
    assert [(r.mod, p.value if p else None) for r, p in pairs] == [(2, None), (3, b"1")]


def test_a_watch_from_the_compacted_revision_on_still_works(store: Watched) -> None:
    for _ in range(4):
        store.do(put(b"a"))
    store.compact(4)
    assert store.taken(store.watch(b"a", since=4)) == [(4, b"a"), (5, b"a")]
    assert store.hub.take(store.watch(b"a", since=3)).compacted == 4


def test_after_a_snapshot_watchers_go_on_without_a_gap_or_are_told(store: Watched) -> None:
    ahead = Driver()
    for step in (store, ahead):
        for n in range(5):
            step.do(put(b"a%d" % n))
    store.machine.on_loaded(store.hub.reloaded)
    store.machine.caught_up()
    behind, level, future = store.watch(b"a", b"b", 3), store.watch(b"a", b"b"), store.watch(b"a", b"b", 9)
    waiting = store.watch(b"a", b"b")
    for step in (store, ahead):
        step.do(put(b"a5"))
    store.machine.caught_up()
    assert store.taken(level) == [(7, b"a5")]
    for n in range(6, 9):
        ahead.do(put(b"a%d" % n))
    ahead.compact(6)
    load(store.machine, dump(ahead.machine))
    assert store.hub.take(behind).compacted == 6
    assert store.taken(level) == [(8, b"a6"), (9, b"a7"), (10, b"a8")]
    assert store.taken(waiting) == [(7, b"a5"), (8, b"a6"), (9, b"a7"), (10, b"a8")]
    assert store.taken(future) == [(9, b"a7"), (10, b"a8")]
    store.do(put(b"a9"))
    store.machine.caught_up()
    assert store.taken(level) == store.taken(future) == [(11, b"a9")]


def test_one_that_has_ended_gets_nothing(store: Watched) -> None:
    watcher = store.watch(b"a")
    store.do(put(b"a"))
    store.machine.caught_up()
    store.hub.remove(watcher)
    store.do(put(b"a"))
    store.machine.caught_up()
    assert (watcher.pending, len(store.hub), store.woken) == ([], 0, [0])


def events_of(parts: list[Part]) -> list[list[int]]:
    return [[e.kv.mod_revision for e in watch_pb2.WatchResponse.FromString(part.events).events] for part in parts]


def cutter(*, fragment: bool) -> Cutter:
    return Cutter(EventEncoder(), with_previous=False, fragment=fragment, limit=300)


def test_responses_are_cut_between_revisions_or_into_fragments(store: Watched) -> None:
    watcher = store.watch(b"a", b"b")
    store.do(txn(*(put(b"a%d" % n, bytes(100)) for n in range(4))))
    store.do(txn(*(put(b"a%d" % n, bytes(100)) for n in range(4))))
    store.machine.caught_up()
    pairs = store.hub.take(watcher).pairs
    whole = cutter(fragment=False).add(pairs, whole=True)
    assert events_of(whole) == [[2, 2, 2, 2], [3, 3, 3, 3]]
    assert [(part.revision, part.fragment) for part in whole] == [(2, False), (3, False)]
    cut = cutter(fragment=True).add(pairs, whole=True)
    assert events_of(cut) == [[2, 2], [2, 2], [3, 3], [3, 3]]
    assert [part.fragment for part in cut] == [True, False, True, False]


@pytest.mark.parametrize("portion", [1, 3, 7])
@pytest.mark.parametrize("fragment", [False, True])
def test_what_comes_in_portions_is_cut_at_the_same_places(
    store: Watched, monkeypatch: pytest.MonkeyPatch, portion: int, fragment: bool
) -> None:
    for _ in range(3):
        store.do(txn(*(put(b"a%d" % n, bytes(100)) for n in range(5))))
    store.machine.caught_up()
    monkeypatch.setattr(hub_module, "CHUNK", portion)
    watcher, slowly = store.watch(b"a", b"b", since=2), cutter(fragment=fragment)
    parts: list[Part] = []
    while not watcher.idle:
        taken = store.hub.take(watcher)
        parts += slowly.add(taken.pairs, whole=taken.whole)
    events = events_of(parts)
    assert list(itertools.chain.from_iterable(events)) == [2] * 5 + [3] * 5 + [4] * 5
    # A part says so when its last revision goes on in the next.
    goes_on = [before[-1] == after[0] for before, after in itertools.pairwise(events)]
    assert [part.fragment for part in parts] == [*goes_on, False]
    assert any(goes_on) is fragment
    assert [part.revision for part in parts] == [part[-1] for part in events]


def test_a_revision_that_ends_with_changes_for_others_is_sent_all_the_same(
    store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "CHUNK", 1)
    store.do(txn(put(b"a", bytes(10)), put(b"b")))
    store.machine.caught_up()
    watcher, one = store.watch(b"a", b"b", since=2), cutter(fragment=False)
    first, second = store.hub.take(watcher), store.hub.take(watcher)
    assert (len(first.pairs), first.whole, first.revision) == (1, False, 2)
    assert (len(second.pairs), second.whole, second.revision) == (0, True, 2)
    assert one.add(first.pairs, whole=first.whole) == []
    assert events_of(one.add(second.pairs, whole=second.whole)) == [[2]]


def test_a_revision_larger_than_a_portion_is_taken_in_parts(store: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "CHUNK", 3)
    store.do(put(b"a0"))
    store.do(txn(*(put(b"a%d" % n) for n in range(8))))
    store.do(put(b"a0"))
    store.machine.caught_up()
    watcher = store.watch(b"a", b"b", since=2)
    taken = [store.hub.take(watcher) for _ in range(4)]
    assert [[record.mod for record, _ in part.pairs] for part in taken] == [[2, 3, 3], [3, 3, 3], [3, 3, 3], [4]]
    assert [part.whole for part in taken] == [False, False, True, True]
    assert watcher.idle


def test_very_many_changes_at_once_go_to_those_that_want_few_and_are_read_by_the_others(
    store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "MAX_PENDING", 5)
    store.do(txn(*(put(b"a%d" % n) for n in range(9)), put(b"b")))
    store.machine.caught_up()
    many, few, one, other = (store.watch(*w) for w in ((b"a", b"b"), (b"a7", b"c"), (b"a3",), (b"x", b"z")))
    later = store.watch(b"a", b"b", since=5)
    store.do(delete(b"a", b"c"))
    store.do(put(b"x"))
    store.machine.caught_up()
    assert [watcher.synced for watcher in (many, few, one, other, later)] == [False, True, True, True, True]
    assert store.taken(many) == [(3, b"a%d" % n) for n in range(9)]
    assert store.taken(few) == [(3, b"a7"), (3, b"a8"), (3, b"b")]
    assert store.taken(one) == [(3, b"a3")]
    assert store.taken(other) == [(4, b"x")]
    store.do(put(b"a1"))
    store.machine.caught_up()
    assert store.taken(later) == store.taken(many) == [(5, b"a1")]


def test_an_encoded_event_carries_what_was_asked_for(store: Watched) -> None:
    watcher = store.watch(b"a")
    store.do(put(b"a", b"1"))
    store.do(delete(b"a"))
    store.machine.caught_up()
    encoder = EventEncoder()
    pairs = store.hub.take(watcher).pairs
    for _ in range(2):
        with_previous = [encoder.encode(p, with_previous=True) for p in pairs]
        first, second = watch_pb2.WatchResponse.FromString(b"".join(with_previous)).events
        assert (first.type, first.kv.value, first.HasField("prev_kv")) == (0, b"1", False)
        assert (second.type, second.kv.value, second.prev_kv.value) == (1, b"", b"1")
        without = watch_pb2.WatchResponse.FromString(encoder.encode(pairs[1], with_previous=False)).events[0]
        assert not without.HasField("prev_kv")
