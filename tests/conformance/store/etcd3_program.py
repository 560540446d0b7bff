"""What people do with the Python package etcd3. Run by an interpreter of its own: `etcd3_program.py CHECK CONNECTION`.

CONNECTION is JSON: host, port, ca_cert, cert_cert, cert_key. A check that fails ends with a traceback.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import time
from typing import Any

import etcd3  # type: ignore[import-not-found] # in an environment of its own
from etcd3 import exceptions

PREFIX = "etcd3/"


def keys(client: Any) -> None:
    assert client.get(PREFIX + "absent") == (None, None)
    client.put(PREFIX + "a", "1")
    client.put(PREFIX + "b", "2")
    response = client.put(PREFIX + "a", "3", prev_kv=True)
    assert response.prev_kv.value == b"1"
    value, meta = client.get(PREFIX + "a")
    assert (value, meta.key, meta.version) == (b"3", b"etcd3/a", 2)
    assert meta.mod_revision > meta.create_revision
    found = [(m.key, v) for v, m in client.get_prefix(PREFIX, sort_order="descend", sort_target="key")]
    assert found == [(b"etcd3/b", b"2"), (b"etcd3/a", b"3")]
    assert [v for v, _ in client.get_range(PREFIX + "a", PREFIX + "b")] == [b"3"]
    assert client.get(PREFIX + "a", serializable=True)[0] == b"3"
    assert client.replace(PREFIX + "a", "3", "4")
    assert not client.replace(PREFIX + "a", "3", "5")
    assert client.put_if_not_exists(PREFIX + "c", "1")
    assert not client.put_if_not_exists(PREFIX + "c", "2")
    assert client.delete(PREFIX + "a")
    assert not client.delete(PREFIX + "a")
    assert client.delete_prefix(PREFIX).deleted == 2
    assert list(client.get_prefix(PREFIX)) == []


def transactions(client: Any) -> None:
    of = client.transactions
    guard = [of.version(PREFIX + "t") == 0]
    writes = [of.put(PREFIX + "t", "1"), of.get(PREFIX + "t")]
    succeeded, responses = client.transaction(compare=guard, success=writes, failure=[of.get(PREFIX + "t")])
    assert succeeded
    assert responses[1][0][0] == b"1"
    succeeded, responses = client.transaction(compare=guard, success=writes, failure=[of.get(PREFIX + "t")])
    assert not succeeded
    assert responses[0][0][0] == b"1"
    holds = [of.value(PREFIX + "t") == "1", of.create(PREFIX + "t") > 0, of.mod(PREFIX + "t") < 1 << 40]
    assert client.transaction(compare=holds, success=[of.delete(PREFIX + "t")], failure=[])[0]
    assert client.get(PREFIX + "t")[0] is None


def watches(client: Any) -> None:
    first = client.put(PREFIX + "w/a", "1").header.revision
    client.put(PREFIX + "w/a", "2")
    events, cancel = client.watch_prefix(PREFIX + "w/", start_revision=first, prev_kv=True)
    client.delete(PREFIX + "w/a")
    client.put(PREFIX + "w/b", "3")
    found = [next(events) for _ in range(4)]
    cancel()
    assert [type(e).__name__ for e in found] == ["PutEvent", "PutEvent", "DeleteEvent", "PutEvent"]
    assert [e.value for e in found] == [b"1", b"2", b"", b"3"]
    assert [e.prev_value for e in found] == [b"", b"1", b"2", b""]
    assert [e.mod_revision for e in found] == sorted({e.mod_revision for e in found})
    once = client.put(PREFIX + "w/c", "1").header.revision
    event = client.watch_once(PREFIX + "w/c", timeout=20, start_revision=once)
    assert event.value == b"1"
    client.compact(once, physical=True)
    events, cancel = client.watch(PREFIX + "w/a", start_revision=first)
    try:
        next(events)
    except exceptions.RevisionCompactedError as error:
        assert error.compacted_revision == once
    else:
        raise AssertionError("a watch of what is compacted goes on")
    finally:
        cancel()


def leases(client: Any) -> None:
    lease = client.lease(3)
    assert (lease.granted_ttl, lease.remaining_ttl > 0) == (3, True)
    client.put(PREFIX + "l", "1", lease=lease)
    assert lease.keys == [b"etcd3/l"]
    for _ in range(5):
        assert lease.refresh()[0].TTL == 3
        time.sleep(1)
    assert client.get(PREFIX + "l")[0] == b"1"
    ends = time.monotonic() + 30
    while client.get(PREFIX + "l")[0] is not None:
        assert time.monotonic() < ends
        time.sleep(0.2)
    other = client.lease(600)
    client.put(PREFIX + "l", "2", lease=other)
    other.revoke()
    assert client.get(PREFIX + "l")[0] is None


def locks(client: Any) -> None:
    with client.lock(PREFIX + "lock", ttl=30) as mine:
        assert mine.is_acquired()
        assert not client.lock(PREFIX + "lock", ttl=30).acquire(timeout=1)
    assert not mine.is_acquired()
    again = client.lock(PREFIX + "lock", ttl=30)
    assert again.acquire(timeout=10)
    assert again.release()


def maintenance(client: Any) -> None:
    status = client.status()
    assert status.leader.name in {"s1", "s2", "s3"}
    assert status.db_size > 0
    assert {m.name for m in client.members} == {"s1", "s2", "s3"}
    assert client.hash() == client.hash()
    assert list(client.list_alarms()) == []
    client.defragment()
    saved = io.BytesIO()
    client.put(PREFIX + "s", "in the snapshot")
    client.snapshot(saved)
    data = saved.getvalue()
    assert hashlib.sha256(data[:-32]).digest() == data[-32:]
    assert b"in the snapshot" in data
    client.create_alarm()
    (alarm,) = client.list_alarms()
    assert alarm.member_id == 0
    client.disarm_alarm()
    assert list(client.list_alarms()) == []


CHECKS = {f.__name__: f for f in (keys, transactions, watches, leases, locks, maintenance)}

if __name__ == "__main__":
    connected = etcd3.client(timeout=30, **json.loads(sys.argv[2]))
    try:
        CHECKS[sys.argv[1]](connected)
    finally:
        connected.close()
