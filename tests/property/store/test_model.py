"""The key space against a model that keeps every state whole, and watchers against the list of all changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kybern.pb.v1.store_pipe_pb2 import StoreCommand
from store.mvcc import errors
from store.mvcc import keyspace as keyspace_module
from store.mvcc.dump import dump, load
from store.mvcc.errors import StoreError
from store.mvcc.machine import StoreMachine
from store.mvcc.records import Record
from store.raft.interface import Applied, UnknownCommand
from store.watch import hub as hub_module
from store.watch.hub import Watcher, WatchHub
from tests.unit.store.driver import Driver, Request, delete, put, read, txn

KEYS = [b"a", b"a/1", b"a/2", b"b", b"c"]
keys = st.sampled_from(KEYS)
ends = st.sampled_from([b"", b"\0", b"a0", b"b", b"b\0", b"zz"])


@dataclass
class Model:
    """All states by revision, and all changes."""

    states: list[dict[bytes, tuple[bytes, int, int, int]]] = field(default_factory=lambda: [{}, {}])
    changes: list[tuple[int, bytes, bytes | None]] = field(default_factory=list)
    compacted: int = 0

    def write(self, puts: list[tuple[bytes, bytes]], deletes: list[tuple[bytes, bytes]]) -> int:
        revision = len(self.states)
        state = dict(self.states[-1])
        wrote = False
        for start, end in deletes:
            for key in sorted(k for k in state if inside(k, start, end)):
                del state[key]
                self.changes.append((revision, key, None))
                wrote = True
        for key, value in puts:
            _, create, _, version = state.get(key, (b"", revision, 0, 0))
            state[key] = (value, create, revision, version + 1)
            self.changes.append((revision, key, value))
            wrote = True
        if wrote:
            self.states.append(state)
        return len(self.states) - 1


def inside(key: bytes, start: bytes, end: bytes) -> bool:
    if not end:
        return key == start
    return key >= start and (end == b"\0" or key < end)


values = st.binary(max_size=3)
puts = st.tuples(st.just("put"), keys, values)
deletes = st.tuples(st.just("delete"), keys, ends)
txns = st.tuples(st.just("txn"), st.lists(keys, max_size=3, unique=True), values)
compactions = st.tuples(st.just("compact"), st.integers(0, 40), st.just(b""))
reads = st.tuples(st.just("read"), keys, ends, st.integers(0, 40), st.integers(0, 3))
steps = st.lists(st.one_of(puts, puts, deletes, txns, compactions, reads), max_size=40)


def run(store: Driver, model: Model, step: tuple[object, ...]) -> None:
    """Do a step on both and compare what they answer."""
    match step:
        case ("put", bytes(key), bytes(value)):
            assert store.do(put(key, value)).revision == model.write([(key, value)], [])
        case ("delete", bytes(key), bytes(end)):
            assert store.do(delete(key, end)).revision == model.write([], [(key, end)])
        case ("txn", list(names), bytes(value)):
            requests: list[Request] = [put(name, value) for name in names]
            assert store.do(txn(*requests)).revision == model.write([(name, value) for name in names], [])
        case ("compact", int(revision), _):
            outcome = store.compact(revision)
            if revision > len(model.states) - 1:
                assert outcome is errors.FUTURE_REVISION
            elif revision <= model.compacted and (revision or model.compacted):
                assert outcome is errors.COMPACTED
            else:
                model.compacted = revision
        case ("read", bytes(key), bytes(end), int(revision), int(limit)):
            check_read(store, model, key, end, revision, limit)


def check_read(store: Driver, model: Model, key: bytes, end: bytes, revision: int, limit: int) -> None:
    outcome = store.do(read(key, end, revision=revision, limit=limit))
    if revision > len(model.states) - 1:
        assert outcome is errors.FUTURE_REVISION
        return
    if 0 < revision < model.compacted:
        assert outcome is errors.COMPACTED
        return
    state = model.states[revision or -1]
    found = [(k, *state[k]) for k in sorted(state) if inside(k, key, end)]
    got = [(r.key, r.value, r.create, r.mod, r.version) for r in outcome.records]
    assert got == (found[:limit] if limit else found)
    assert (outcome.count, outcome.more) == (len(found), bool(limit) and len(found) > limit)


@pytest.mark.parametrize("together", [1, 100], ids=["together", "each"])
@given(plan=steps)
@settings(max_examples=300, deadline=None)
def test_every_answer_is_the_models(plan: list[tuple[object, ...]], together: int) -> None:
    store, model = Driver(), Model()
    with patch.object(keyspace_module, "_TOGETHER", together):
        for step in plan:
            run(store, model, step)
    keyspace = store.machine.keys
    for revision in range(max(1, model.compacted), len(model.states)):
        check_read(store, model, b"\0", b"\0", revision, 0)
    kept = {id(r): r for head in keyspace._heads(None, None) for r in chain(head)}
    # A deletion that only the next change remembers was taken off already when it left the log.
    assert keyspace.bytes == sum(r.size for r in kept.values() if r.version or r.mod >= model.compacted)


def chain(head: Record) -> list[Record]:
    found = []
    record: Record | None = head
    while record is not None:
        found.append(record)
        record = record.previous
    return found


@given(steps)
@settings(max_examples=100, deadline=None)
def test_a_copy_answers_as_the_original(plan: list[tuple[object, ...]]) -> None:
    store, model = Driver(), Model()
    for step in plan:
        run(store, model, step)
    copy = Driver()
    load(copy.machine, dump(store.machine))
    for revision in range(max(1, model.compacted), len(model.states)):
        check_read(copy, model, b"\0", b"\0", revision, 0)
    assert copy.checksum == store.checksum
    assert copy.machine.keys.bytes == store.machine.keys.bytes


@given(steps, st.lists(st.tuples(keys, ends, st.integers(1, 20), st.integers(1, 5)), max_size=4), st.data())
@settings(max_examples=200, deadline=None)
def test_watchers_see_every_change_once_and_in_order(
    plan: list[tuple[object, ...]], watches: list[tuple[bytes, bytes, int, int]], data: st.DataObject
) -> None:
    store, model = Driver(), Model()
    hub = WatchHub(store.machine.keys)
    store.machine.on_caught_up(hub.caught_up)
    pace = data.draw(st.integers(1, 4))
    small = data.draw(st.integers(1, 6))
    original = hub_module.CHUNK, hub_module.MAX_PENDING
    hub_module.CHUNK, hub_module.MAX_PENDING = small, small
    try:
        readers = [Reader(hub, start, end, since, turn) for start, end, since, turn in watches]
        for n, step in enumerate(plan):
            run(store, model, step)
            if n % pace == 0:
                store.machine.caught_up()
            for reader in readers:
                reader.turn(n)
        store.machine.caught_up()
        for reader in readers:
            reader.finish()
            reader.check(model)
    finally:
        hub_module.CHUNK, hub_module.MAX_PENDING = original


class Reader:
    """Takes at its own pace, and now and then loses its connection and begins again where it was."""

    def __init__(self, hub: WatchHub, start: bytes, end: bytes, since: int, turn: int) -> None:
        self.hub, self.start, self.end, self.since, self.every = hub, start, end, since, turn
        self.seen: list[tuple[int, bytes, bytes | None]] = []
        self.position = since - 1
        self.compacted = 0
        self._connect()

    def _connect(self) -> None:
        # Of a revision in part is nothing kept: it comes again.
        self.part: list[tuple[int, bytes, bytes | None]] = []
        self.watcher = Watcher(0, self.start, self.end, lambda w: None, self.position + 1)
        self.hub.add(self.watcher)

    def turn(self, n: int) -> None:
        if n % self.every:
            return
        if n % (3 * self.every) == 0:
            self.hub.remove(self.watcher)
            self._connect()
        self._take()

    def _take(self) -> bool:
        if self.compacted:
            return False
        taken = self.hub.take(self.watcher)
        if taken.compacted:
            self.compacted = taken.compacted
            return False
        assert all(r.mod > self.position for r, _ in taken.pairs)
        assert taken.revision >= self.position or taken.revision < self.since
        self.part += [(r.mod, r.key, r.value if r.version else None) for r, _ in taken.pairs]
        if taken.whole:
            self.seen += self.part
            self.part = []
            self.position = max(self.position, taken.revision)
        else:
            # What came before the last revision is whole all the same.
            self.seen += [change for change in self.part if change[0] < taken.revision]
            self.part = [change for change in self.part if change[0] == taken.revision]
            self.position = max(self.position, taken.revision - 1)
        return bool(taken.pairs) or not self.watcher.idle

    def finish(self) -> None:
        while self._take():
            pass

    def check(self, model: Model) -> None:
        wanted = [c for c in model.changes if c[0] >= self.since and inside(c[1], self.start, self.end)]
        if self.compacted:
            assert self.position + 1 < self.compacted
            assert self.seen == [c for c in wanted if c[0] <= self.position]
        else:
            assert self.seen == wanted


@given(st.binary(max_size=60))
def test_no_bytes_make_it_raise_but_those_of_another_version(command: bytes) -> None:
    machine = StoreMachine()
    try:
        outcome = machine.apply(command, Applied(1, 1, 1))
    except UnknownCommand:
        message = StoreCommand.FromString(command)
        calls = [call.WhichOneof("call") for call in message.calls.calls]
        assert message.WhichOneof("command") is None or None in calls
        return
    assert outcome is not None
    if isinstance(outcome, StoreError):
        assert machine.keys.revision == 1
