"""Watches: order, resumption, selectors, bookmarks, slowness, gaps."""

from __future__ import annotations

import asyncio

import pytest

from kybern.api import resources
from kybern.api.errors import StatusError
from kybern.client.interface import EventType, revision_of
from kybern.client.memory_store import MemoryStore
from master.apiserver.cache import cacher, resource, watcher
from tests.integration.apiserver.api import Api, config_map, pod, read
from tests.integration.apiserver.conftest import api_server


async def test_changes_come_in_order_with_their_revisions(api: Api) -> None:
    async with api.watch(
        resources.CONFIG_MAPS, resource_version=str((await api.list(resources.PODS)).revision)
    ) as seen:
        created = await api.create(resources.CONFIG_MAPS, config_map("one"))
        changed = await api.patch(resources.CONFIG_MAPS, "one", {"data": {"a": "1"}})
        deleted, _ = await api.delete(resources.CONFIG_MAPS, "one")
        events = [await seen.event() for _ in range(3)]
    assert [e.type for e in events] == [EventType.ADDED, EventType.MODIFIED, EventType.DELETED]
    assert [read(e.object) for e in events] == [created, changed, deleted]
    assert [e.revision for e in events] == [revision_of(e.object) for e in events]


async def test_without_a_version_what_is_there_comes_first(api: Api) -> None:
    await api.create(resources.CONFIG_MAPS, config_map("one"))
    async with api.watch(resources.CONFIG_MAPS) as seen:
        assert await seen.next() == ("ADDED", "one")
        await api.create(resources.CONFIG_MAPS, config_map("two"))
        assert await seen.next() == ("ADDED", "two")


async def test_a_watch_goes_on_where_another_ended(api: Api) -> None:
    one = await api.create(resources.CONFIG_MAPS, config_map("one"))
    await api.create(resources.CONFIG_MAPS, config_map("two"))
    await api.delete(resources.CONFIG_MAPS, "one")
    async with api.watch(resources.CONFIG_MAPS, resource_version=one["metadata"]["resourceVersion"]) as seen:
        assert [await seen.next() for _ in range(2)] == [("ADDED", "two"), ("DELETED", "one")]


async def test_what_leaves_a_selector_is_deleted(api: Api) -> None:
    labelled = config_map("one")
    labelled["metadata"]["labels"] = {"app": "a"}
    async with api.watch(resources.CONFIG_MAPS, labels="app=a") as seen:
        created = await api.create(resources.CONFIG_MAPS, labelled)
        await api.create(resources.CONFIG_MAPS, config_map("unrelated"))
        left = await api.patch(resources.CONFIG_MAPS, "one", {"metadata": {"labels": {"app": "b"}}})
        await api.patch(resources.CONFIG_MAPS, "one", {"metadata": {"labels": {"app": "a"}}})
        first, second, third = [await seen.event() for _ in range(3)]
    assert [e.type for e in (first, second, third)] == [EventType.ADDED, EventType.DELETED, EventType.ADDED]
    # As it last was, with the revision of the change that took it away.
    expected = created | {"metadata": created["metadata"] | {"resourceVersion": left["metadata"]["resourceVersion"]}}
    assert read(second.object) == expected


async def test_a_node_hears_of_its_own_pods_alone(api: Api) -> None:
    async with api.watch(resources.PODS, "", fields="spec.nodeName=n1") as seen:
        for name, where in (("a", "n2"), ("b", "n1")):
            await api.create(resources.PODS, pod(name))
            await api.post(resources.PODS, name, "binding", {"target": {"name": where}})
        await api.delete(resources.PODS, "b")
        await api.delete(resources.PODS, "b", grace_seconds=0)
        assert [await seen.next() for _ in range(3)] == [("ADDED", "b"), ("MODIFIED", "b"), ("DELETED", "b")]


async def test_bookmarks_say_how_far_the_watch_is(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cacher, "BOOKMARK_INTERVAL", 0.01)
    async with api_server(api.server.storage.store) as quick:  # type: ignore[arg-type]
        async with quick.watch(resources.CONFIG_MAPS, bookmarks=True) as seen:
            other = await quick.create(resources.SERVICE_ACCOUNTS, {"metadata": {"name": "x"}})
            async with asyncio.timeout(30):
                while (bookmark := await seen.event()).revision < int(other["metadata"]["resourceVersion"]):
                    assert bookmark.type is EventType.BOOKMARK
        document = read(bookmark.object)
    assert (document["kind"], document["apiVersion"]) == ("ConfigMap", "v1")
    assert document["metadata"]["resourceVersion"] == str(bookmark.revision)


async def test_initial_events_end_with_a_bookmark(api: Api) -> None:
    await api.create(resources.CONFIG_MAPS, config_map("one"))
    async with api.watch(resources.CONFIG_MAPS, send_initial_events=True, bookmarks=True) as seen:
        assert (await seen.event()).type is EventType.ADDED
        end = read((await seen.event()).object)
        assert end["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    with pytest.raises(StatusError, match="requires setting allowWatchBookmarks"):
        async with api.watch(resources.CONFIG_MAPS, send_initial_events=True):
            pass


async def test_a_version_that_is_not_kept_is_expired(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "RING_EVENTS", 3)
    first = await api.create(resources.CONFIG_MAPS, config_map("one"))
    for number in range(5):
        await api.create(resources.CONFIG_MAPS, config_map(f"c{number}"))
    await api.list(resources.CONFIG_MAPS)
    with pytest.raises(StatusError, match="too old resource version") as caught:
        async with api.watch(resources.CONFIG_MAPS, resource_version=first["metadata"]["resourceVersion"]):
            pass
    assert (caught.value.code, caught.value.reason) == (410, "Expired")


async def test_a_watcher_that_is_too_slow_is_ended(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "MOST_WAITING", 4)
    async with api.watch(resources.CONFIG_MAPS) as seen:
        for number in range(6):
            await api.create(resources.CONFIG_MAPS, config_map(f"c{number}"))
        await api.list(resources.CONFIG_MAPS)
        with pytest.raises(StatusError, match="the watch is too slow"):
            await seen.event()


async def test_watches_outlive_an_outage_of_the_store(api: Api, store: MemoryStore) -> None:
    async with api.watch(resources.CONFIG_MAPS) as seen:
        store.set_down(True)
        with pytest.raises(StatusError, match="the store does not answer now") as caught:
            await api.create(resources.CONFIG_MAPS, config_map("lost"))
        assert caught.value.code == 503
        with pytest.raises(StatusError, match="the store does not answer now"):
            await api.list(resources.CONFIG_MAPS)
        # What the cache has can still be asked for.
        assert await api.names(resources.NAMESPACES, resource_version="0") == ["default"]
        store.set_down(False)
        await api.create(resources.CONFIG_MAPS, config_map("one"))
        assert await seen.next() == ("ADDED", "one")
        assert await api.names(resources.CONFIG_MAPS) == ["one"]


async def test_a_gap_in_the_stores_history_ends_watches_and_fills_the_cache_anew(api: Api, store: MemoryStore) -> None:
    async with api_server(store) as other:
        async with other.watch(resources.CONFIG_MAPS) as seen:
            # The server is cut off while the history that it would need is forgotten.
            follow = other.server.cacher
            before = follow.revision
            store.set_down(True)
            await asyncio.sleep(0)
            store.set_down(False)
            await api.create(resources.CONFIG_MAPS, config_map("one"))
            await api.create(resources.CONFIG_MAPS, config_map("two"))
            store.compact()
            with pytest.raises(StatusError, match="filled anew"):
                await seen.event()
        assert before < follow.revision
        assert await other.names(resources.CONFIG_MAPS) == ["one", "two"]


async def test_watches_end_when_the_server_stops(store: MemoryStore) -> None:
    async with api_server(store) as leaving, leaving.watch(resources.CONFIG_MAPS) as seen:
        await leaving.server.__aexit__(None, None, None)
        with pytest.raises(StatusError, match="shutting down") as caught:
            await seen.event()
    assert caught.value.transient
