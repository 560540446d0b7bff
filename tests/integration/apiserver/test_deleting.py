"""Deletions: grace, finalizers, propagation, preconditions, collections, eviction."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from kybern.api import resources
from kybern.api.errors import StatusError
from kybern.client.store import prefix_end
from master.apiserver.interface import DeleteOptions, ListOptions, Target, WriteOptions
from tests.integration.apiserver.api import Api, config_map, deployment, pod


async def _bound(api: Api, name: str, **spec: Any) -> dict[str, Any]:
    await api.create(resources.PODS, pod(name, **spec))
    return await api.post(resources.PODS, name, "binding", {"target": {"name": "n1"}})


async def test_the_answer_is_the_object_with_the_revision_of_its_deletion(api: Api) -> None:
    created = await api.create(resources.CONFIG_MAPS, config_map("one"))
    deleted, gone = await api.delete(resources.CONFIG_MAPS, "one")
    assert gone
    assert int(deleted["metadata"]["resourceVersion"]) == await api.server.storage.revision()
    assert deleted["metadata"]["uid"] == created["metadata"]["uid"]
    with pytest.raises(StatusError, match="not found"):
        await api.delete(resources.CONFIG_MAPS, "one")


async def test_a_pod_that_runs_is_given_time(api: Api) -> None:
    await _bound(api, "one")
    ending, gone = await api.delete(resources.PODS, "one")
    assert not gone
    metadata = ending["metadata"]
    assert metadata["deletionGracePeriodSeconds"] == 30
    ends = datetime.fromisoformat(metadata["deletionTimestamp"])
    assert 20 < (ends - api.server.clock.now()).total_seconds() <= 30
    again, _ = await api.delete(resources.PODS, "one")
    assert again == ending
    longer, _ = await api.delete(resources.PODS, "one", grace_seconds=60)
    assert longer == ending
    shorter, gone = await api.delete(resources.PODS, "one", grace_seconds=5)
    assert not gone
    assert shorter["metadata"]["deletionGracePeriodSeconds"] == 5
    assert (ends - datetime.fromisoformat(shorter["metadata"]["deletionTimestamp"])).total_seconds() == 25
    _, gone = await api.delete(resources.PODS, "one", grace_seconds=0)
    assert gone


async def test_a_pods_own_grace_counts(api: Api) -> None:
    await _bound(api, "one", terminationGracePeriodSeconds=7)
    ending, _ = await api.delete(resources.PODS, "one")
    assert ending["metadata"]["deletionGracePeriodSeconds"] == 7
    await _bound(api, "two", terminationGracePeriodSeconds=0)
    assert (await api.delete(resources.PODS, "two"))[1]


async def test_a_pod_that_runs_nowhere_goes_at_once(api: Api) -> None:
    await api.create(resources.PODS, pod("one"))
    assert (await api.delete(resources.PODS, "one"))[1]
    await _bound(api, "two")
    await api.patch(resources.PODS, "two", {"status": {"phase": "Succeeded"}}, sub="status")
    assert (await api.delete(resources.PODS, "two"))[1]


async def test_finalizers_keep_an_object_until_the_last_is_gone(api: Api) -> None:
    document = config_map("one")
    document["metadata"]["finalizers"] = ["example.com/a", "example.com/b"]
    await api.create(resources.CONFIG_MAPS, document)
    ending, gone = await api.delete(resources.CONFIG_MAPS, "one")
    assert not gone
    assert "deletionTimestamp" in ending["metadata"]
    await api.patch(resources.CONFIG_MAPS, "one", {"metadata": {"finalizers": ["example.com/b"]}})
    with pytest.raises(StatusError, match="no new finalizers can be added"):
        await api.patch(resources.CONFIG_MAPS, "one", {"metadata": {"finalizers": ["example.com/b", "example.com/c"]}})
    last = await api.patch(resources.CONFIG_MAPS, "one", {"metadata": {"finalizers": None}})
    assert int(last["metadata"]["resourceVersion"]) == await api.server.storage.revision()
    assert await api.names(resources.CONFIG_MAPS) == []


async def test_a_pod_with_finalizers_waits_for_both(api: Api) -> None:
    await _bound(api, "one")
    await api.patch(resources.PODS, "one", {"metadata": {"finalizers": ["example.com/a"]}})
    await api.delete(resources.PODS, "one")
    ended, gone = await api.delete(resources.PODS, "one", grace_seconds=0)
    assert not gone
    assert ended["metadata"]["deletionGracePeriodSeconds"] == 0
    await api.patch(resources.PODS, "one", {"metadata": {"finalizers": []}})
    assert await api.names(resources.PODS) == []


@pytest.mark.parametrize(
    ("propagation", "finalizers"), [("Foreground", ["foregroundDeletion"]), ("Orphan", ["orphan"]), ("Background", [])]
)
async def test_propagation_becomes_a_finalizer(api: Api, propagation: str, finalizers: list[str]) -> None:
    await api.create(resources.DEPLOYMENTS, deployment("web"))
    ending, gone = await api.delete(resources.DEPLOYMENTS, "web", propagation=propagation)
    assert ending["metadata"].get("finalizers", []) == finalizers
    assert gone == (not finalizers)
    if not gone:
        assert ending["metadata"]["generation"] == 2


async def test_preconditions_must_hold(api: Api) -> None:
    created = await api.create(resources.CONFIG_MAPS, config_map("one"))
    with pytest.raises(StatusError, match="UID in precondition: other") as caught:
        await api.delete(resources.CONFIG_MAPS, "one", uid="other")
    assert caught.value.code == 409
    with pytest.raises(StatusError, match="ResourceVersion in precondition: 1,"):
        await api.delete(resources.CONFIG_MAPS, "one", resource_version="1")
    version = created["metadata"]["resourceVersion"]
    assert (await api.delete(resources.CONFIG_MAPS, "one", resource_version=version))[1]


async def test_a_dry_run_deletes_nothing(api: Api) -> None:
    await api.create(resources.CONFIG_MAPS, config_map("one"))
    _, gone = await api.delete(resources.CONFIG_MAPS, "one", write=WriteOptions(dry_run=True))
    assert gone
    assert await api.names(resources.CONFIG_MAPS) == ["one"]


async def test_namespaces_of_the_system_stay(api: Api) -> None:
    with pytest.raises(StatusError, match="this namespace may not be deleted") as caught:
        await api.delete(resources.NAMESPACES, "default")
    assert caught.value.code == 403


async def test_a_collection_is_deleted_by_selector(api: Api) -> None:
    for number in range(40):
        document = config_map(f"c{number}")
        document["metadata"]["labels"] = {"odd": str(number % 2)}
        await api.create(resources.CONFIG_MAPS, document)
    deleted = await api.handlers.delete_collection(
        api.user, Target(resources.CONFIG_MAPS, "default"), ListOptions(labels="odd=1"), DeleteOptions()
    )
    assert len(deleted) == 20
    assert len(await api.names(resources.CONFIG_MAPS)) == 20


async def test_an_eviction_is_a_deletion(api: Api) -> None:
    await _bound(api, "one")
    eviction = {
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "one", "namespace": "default"},
        "deleteOptions": {"gracePeriodSeconds": 3},
    }  # fmt: skip
    answer = await api.post(resources.PODS, "one", "eviction", eviction)
    assert answer["status"] == "Success"
    assert (await api.get(resources.PODS, "one"))["metadata"]["deletionGracePeriodSeconds"] == 3


async def test_events_go_by_themselves(api: Api) -> None:
    event = {
        "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Because", "message": "so", "type": "Normal",
    }  # fmt: skip
    await api.create(resources.EVENTS, event)
    prefix = b"/registry/events/"
    stored = (await api.server.storage.range(prefix, prefix_end(prefix))).items[0]
    assert stored.lease
    # An update must not make it live for ever.
    await api.patch(resources.EVENTS, "e", {"count": 2})
    assert (await api.server.storage.range(prefix, prefix_end(prefix))).items[0].lease
    await api.server.storage.store.lease_revoke(stored.lease)
    assert await api.names(resources.EVENTS) == []
    # The lease of this slot of time is gone, and another one is taken.
    await api.create(resources.EVENTS, event)
    assert await api.names(resources.EVENTS) == ["e"]
