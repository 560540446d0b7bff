"""Gets and lists: freshness, selectors, pages."""

from __future__ import annotations

import pytest

from kybern.api import resources
from kybern.api.errors import StatusError
from kybern.client.memory_store import MemoryStore
from tests.integration.apiserver.api import Api, config_map, namespace, pod, read


async def _seven(api: Api) -> None:
    await api.create(resources.NAMESPACES, namespace("other"), "")
    for number in range(6):
        document = config_map(f"c{number}")
        document["metadata"]["labels"] = {"half": "low" if number < 3 else "high"}
        await api.create(resources.CONFIG_MAPS, document)
    await api.create(resources.CONFIG_MAPS, config_map("c9"), "other")


async def test_lists_are_ordered_and_scoped(api: Api) -> None:
    await _seven(api)
    assert await api.names(resources.CONFIG_MAPS) == ["c0", "c1", "c2", "c3", "c4", "c5"]
    assert await api.names(resources.CONFIG_MAPS, "other") == ["c9"]
    assert len(await api.names(resources.CONFIG_MAPS, "")) == 7


async def test_selectors_choose(api: Api) -> None:
    await _seven(api)
    assert await api.names(resources.CONFIG_MAPS, labels="half=low") == ["c0", "c1", "c2"]
    assert await api.names(resources.CONFIG_MAPS, labels="half notin (low)") == ["c3", "c4", "c5"]
    assert await api.names(resources.CONFIG_MAPS, fields="metadata.name=c4") == ["c4"]
    assert await api.names(resources.CONFIG_MAPS, labels="half=low", fields="metadata.name!=c0") == ["c1", "c2"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"labels": "a in"}, "unable to parse requirement"),
        ({"fields": "spec.color=red"}, "field label not supported: spec.color"),
        ({"resource_version": "soon"}, "resourceVersion: Invalid value"),
        ({"resource_version_match": "Exact"}, "is forbidden"),
        ({"continue_token": "nonsense"}, "continue key is not valid"),
    ],
)
async def test_what_cannot_be_asked(api: Api, options: dict[str, str], text: str) -> None:
    with pytest.raises(StatusError, match=text) as caught:
        await api.list(resources.CONFIG_MAPS, **options)
    assert caught.value.code == 400


async def test_pages_show_one_moment(api: Api) -> None:
    await _seven(api)
    first = await api.list(resources.CONFIG_MAPS, limit=2)
    assert [read(i)["metadata"]["name"] for i in first.items] == ["c0", "c1"]
    assert first.remaining == 4
    await api.delete(resources.CONFIG_MAPS, "c3")
    await api.create(resources.CONFIG_MAPS, config_map("c1a"))
    second = await api.list(resources.CONFIG_MAPS, limit=3, continue_token=first.continue_token)
    assert [read(i)["metadata"]["name"] for i in second.items] == ["c2", "c3", "c4"]
    assert (second.revision, second.remaining) == (first.revision, 1)
    last = await api.list(resources.CONFIG_MAPS, limit=3, continue_token=second.continue_token)
    assert [read(i)["metadata"]["name"] for i in last.items] == ["c5"]
    assert last.continue_token == ""


async def test_pages_with_selectors_do_not_count_the_rest(api: Api) -> None:
    await _seven(api)
    first = await api.list(resources.CONFIG_MAPS, limit=1, labels="half=high")
    assert first.remaining is None
    rest = await api.list(resources.CONFIG_MAPS, limit=5, labels="half=high", continue_token=first.continue_token)
    assert [read(i)["metadata"]["name"] for i in rest.items] == ["c4", "c5"]


async def test_a_page_that_comes_too_late_can_go_on_inconsistently(api: Api, store: MemoryStore) -> None:
    await _seven(api)
    first = await api.list(resources.CONFIG_MAPS, limit=2)
    await api.create(resources.CONFIG_MAPS, config_map("c1a"))
    await api.delete(resources.CONFIG_MAPS, "c2")
    store.compact()
    with pytest.raises(StatusError, match="continue parameter is too old") as caught:
        await api.list(resources.CONFIG_MAPS, limit=2, continue_token=first.continue_token)
    assert caught.value.code == 410
    rest = await api.list(resources.CONFIG_MAPS, limit=9, continue_token=caught.value.continue_token)
    assert [read(i)["metadata"]["name"] for i in rest.items] == ["c1a", "c3", "c4", "c5"]


async def test_versions_say_how_fresh(api: Api) -> None:
    one = await api.create(resources.CONFIG_MAPS, config_map("one", a="1"))
    version = one["metadata"]["resourceVersion"]
    changed = await api.patch(resources.CONFIG_MAPS, "one", {"data": {"a": "2"}})
    not_older = await api.list(resources.CONFIG_MAPS, resource_version=changed["metadata"]["resourceVersion"])
    assert read(not_older.items[0])["data"] == {"a": "2"}
    exact = await api.list(resources.CONFIG_MAPS, resource_version=version, resource_version_match="Exact")
    assert read(exact.items[0]) == one
    assert exact.revision == int(version)
    newest = changed["metadata"]["resourceVersion"]
    assert await api.get(resources.CONFIG_MAPS, "one", version=newest) == changed


async def test_a_get_of_what_is_not_there(api: Api) -> None:
    with pytest.raises(StatusError, match='configmaps "none" not found') as caught:
        await api.get(resources.CONFIG_MAPS, "none")
    assert caught.value.code == 404
    with pytest.raises(StatusError, match="could not find the requested resource"):
        await api.get(resources.CONFIG_MAPS, "none", sub="status")


async def test_pods_are_found_by_their_node(api: Api) -> None:
    for name, where in (("a", "n1"), ("b", "n2"), ("c", "n1")):
        await api.create(resources.PODS, pod(name))
        await api.post(resources.PODS, name, "binding", {"target": {"name": where}})
    assert await api.names(resources.PODS, "", fields="spec.nodeName=n1") == ["a", "c"]
    assert await api.names(resources.PODS, "", fields="spec.nodeName=n1,metadata.name=c") == ["c"]
    await api.delete(resources.PODS, "a", grace_seconds=0)
    assert await api.names(resources.PODS, "", fields="spec.nodeName=n1") == ["c"]
    assert await api.names(resources.PODS, "", fields="spec.nodeName=n3") == []
