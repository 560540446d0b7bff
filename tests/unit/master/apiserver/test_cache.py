"""The cache of one resource: order, index, replay, watchers."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from kybern.api import resources
from kybern.api.errors import StatusError
from kybern.client.interface import EventType
from kybern.client.store import KeyValue
from master.apiserver import keys
from master.apiserver.cache import resource as caching
from master.apiserver.cache.resource import ResourceCache
from master.apiserver.cache.selection import Selection, select
from master.apiserver.entry import Entry, from_store

PODS = Selection(resources.PODS)


def entry(name: str, revision: int, *, namespace: str = "default", node: str = "", **labels: str) -> Entry:
    metadata: dict[str, Any] = {"name": name, "namespace": namespace, "labels": labels}
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"nodeName": node} if node else {}}
    key = keys.object_key(resources.PODS, namespace, name)
    return from_store(KeyValue(key, msgspec.json.encode(document), revision, revision, 1), namespace, name)


def put(cache: ResourceCache, found: Entry) -> None:
    cache.apply(found.key, found, found.revision)


def drop(cache: ResourceCache, name: str, revision: int, namespace: str = "default") -> None:
    cache.apply(keys.object_key(resources.PODS, namespace, name), None, revision)


def names(found: Any) -> list[str]:
    return [f"{e.namespace}/{e.name}" for e in found]


@pytest.fixture
def cache() -> ResourceCache:
    cache = ResourceCache(resources.PODS)
    cache.reset([entry("b", 2, node="n1"), entry("a", 3, app="x"), entry("z", 4, namespace="aaa")], 10)
    return cache


def test_objects_come_in_the_order_of_their_keys(cache: ResourceCache) -> None:
    assert names(cache.select(PODS)) == ["aaa/z", "default/a", "default/b"]
    default = Selection(resources.PODS, "default")
    assert names(cache.select(default)) == ["default/a", "default/b"]
    first = next(cache.select(default))
    assert names(cache.select(default, first.key)) == ["default/b"]
    assert cache.count(default, first.key) == 1


def test_a_namespace_is_not_a_prefix_of_another(cache: ResourceCache) -> None:
    put(cache, entry("q", 11, namespace="default-2"))
    assert names(cache.select(Selection(resources.PODS, "default"))) == ["default/a", "default/b"]


def test_the_index_follows_the_field(cache: ResourceCache) -> None:
    on_n1 = select(resources.PODS, "", "", "spec.nodeName=n1")
    assert names(cache.select(on_n1)) == ["default/b"]
    put(cache, entry("a", 11, node="n1"))
    put(cache, entry("b", 12, node="n2"))
    assert names(cache.select(on_n1)) == ["default/a"]
    assert names(cache.at_index("n2")) == ["default/b"]
    drop(cache, "a", 13)
    drop(cache, "b", 14)
    assert not list(cache.select(on_n1))
    assert not list(cache.at_index("n2"))


async def test_a_watcher_replays_what_it_has_missed(cache: ResourceCache) -> None:
    put(cache, entry("c", 11))
    put(cache, entry("d", 12))
    drop(cache, "c", 13)
    events = await cache.watch(PODS, 11, 13).next()
    assert [(e.type, e.revision) for e in events] == [(EventType.ADDED, 12), (EventType.DELETED, 13)]
    with pytest.raises(StatusError, match=r"too old resource version: 9 \(10\)"):
        cache.watch(PODS, 9, 13)


async def test_what_is_dropped_from_the_ring_cannot_be_replayed(
    cache: ResourceCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caching, "RING_BYTES", 1000)
    for revision in range(11, 31):
        put(cache, entry("c", revision, text="x" * 50))
    assert 20 < cache.floor < 30
    assert len(await cache.watch(PODS, cache.floor, 30).next()) == 30 - cache.floor


async def test_selectors_turn_changes_into_appearance_and_disappearance(cache: ResourceCache) -> None:
    watcher = cache.watch(select(resources.PODS, "default", "app=x", ""), 10, 10)
    put(cache, entry("a", 11, app="x", more="y"))
    put(cache, entry("a", 12, app="other"))
    put(cache, entry("a", 13, app="x"))
    put(cache, entry("unrelated", 14, app="other"))
    put(cache, entry("elsewhere", 15, namespace="aaa", app="x"))
    drop(cache, "a", 16)
    events = await watcher.next()
    assert [(e.type, e.revision) for e in events] == [
        (EventType.MODIFIED, 11),
        (EventType.DELETED, 12),
        (EventType.ADDED, 13),
        (EventType.DELETED, 16),
    ]
    left = msgspec.json.decode(events[1].object)["metadata"]
    assert left["labels"] == {"app": "x", "more": "y"}
    assert left["resourceVersion"] == "12"


async def test_watchers_of_a_node_are_asked_about_its_pods_alone(cache: ResourceCache) -> None:
    watcher = cache.watch(select(resources.PODS, "", "", "spec.nodeName=n1"), 10, 10)
    put(cache, entry("c", 11, node="n2"))
    put(cache, entry("c", 12, node="n1"))
    put(cache, entry("c", 13, node="n2"))
    events = await watcher.next()
    assert [(e.type, e.revision) for e in events] == [(EventType.ADDED, 12), (EventType.DELETED, 13)]
    cache.unwatch(watcher)
    assert not list(cache.watchers())


async def test_bookmarks_come_last_and_never_promise_too_much(cache: ResourceCache) -> None:
    # A client that has heard more from another API server than this one knows.
    watcher = cache.watch(PODS, 20, 10)
    watcher.bookmark(15)
    waiting = asyncio.ensure_future(watcher.next())
    await asyncio.sleep(0)
    put(cache, entry("old", 19))
    put(cache, entry("new", 21))
    watcher.bookmark(22)
    events = await waiting
    assert [(e.type, e.revision) for e in events] == [(EventType.ADDED, 21), (EventType.BOOKMARK, 22)]
