"""Creates, updates and patches through the handlers."""

from __future__ import annotations

import asyncio

import pytest

from kybern.api import resources
from kybern.api.errors import StatusError
from kybern.client.interface import PatchType
from tests.integration.apiserver.api import Api, config_map, deployment, namespace, pod


async def test_a_created_object_is_complete_and_read_back(api: Api) -> None:
    created = await api.create(resources.CONFIG_MAPS, config_map("one", key="value"), field_manager="tester")
    metadata = created["metadata"]
    assert metadata["namespace"] == "default"
    assert metadata["uid"]
    assert int(metadata["resourceVersion"]) > 1
    assert metadata["managedFields"][0]["manager"] == "tester"
    assert await api.get(resources.CONFIG_MAPS, "one") == created


async def test_an_object_of_that_name_is_there_already(api: Api) -> None:
    await api.create(resources.CONFIG_MAPS, config_map("one"))
    with pytest.raises(StatusError) as caught:
        await api.create(resources.CONFIG_MAPS, config_map("one"))
    assert caught.value.code == 409
    assert caught.value.message == 'configmaps "one" already exists'


async def test_generated_names_are_tried_again(api: Api) -> None:
    document = {"metadata": {"generateName": "some-"}}
    names = {(await api.create(resources.CONFIG_MAPS, document))["metadata"]["name"] for _ in range(20)}
    assert len(names) == 20
    assert all(n.startswith("some-") and len(n) == 10 for n in names)


async def test_strict_validation_names_the_field_and_stores_nothing(api: Api) -> None:
    document = deployment("web") | {"spec": deployment("web")["spec"] | {"replcas": 3}}
    with pytest.raises(StatusError, match=r'unknown field "spec\.replcas"') as caught:
        await api.create(resources.DEPLOYMENTS, document, field_validation="Strict")
    assert caught.value.code == 400
    assert await api.names(resources.DEPLOYMENTS) == []


async def test_what_breaks_rules_is_refused_with_its_field(api: Api) -> None:
    with pytest.raises(StatusError, match=r"metadata\.name") as caught:
        await api.create(resources.CONFIG_MAPS, config_map("Not_A_Name"))
    assert caught.value.code == 422


async def test_dry_run_answers_and_stores_nothing(api: Api) -> None:
    await api.create(resources.CONFIG_MAPS, config_map("dry"), dry_run=True)
    assert await api.names(resources.CONFIG_MAPS) == []
    one = await api.create(resources.CONFIG_MAPS, config_map("one", a="1"))
    changed = await api.patch(resources.CONFIG_MAPS, "one", {"data": {"a": "2"}}, dry_run=True)
    assert changed["data"] == {"a": "2"}
    assert (await api.get(resources.CONFIG_MAPS, "one")) == one


async def test_an_update_from_a_stale_version_is_a_conflict(api: Api) -> None:
    first = await api.create(resources.CONFIG_MAPS, config_map("one", a="1"))
    await api.patch(resources.CONFIG_MAPS, "one", {"data": {"a": "2"}})
    with pytest.raises(StatusError, match="the object has been modified") as caught:
        await api.update(resources.CONFIG_MAPS, first | {"data": {"a": "3"}})
    assert caught.value.code == 409
    assert (await api.get(resources.CONFIG_MAPS, "one"))["data"] == {"a": "2"}


async def test_an_update_that_changes_nothing_writes_nothing(api: Api) -> None:
    first = await api.create(resources.DEPLOYMENTS, deployment("web"))
    again = await api.update(resources.DEPLOYMENTS, first)
    assert again == first
    patched = await api.patch(resources.DEPLOYMENTS, "web", {"spec": {"replicas": 1}})
    assert patched == first


async def test_generation_counts_changes_of_what_is_wanted(api: Api) -> None:
    await api.create(resources.DEPLOYMENTS, deployment("web"))
    labelled = await api.patch(resources.DEPLOYMENTS, "web", {"metadata": {"labels": {"a": "b"}}})
    assert labelled["metadata"]["generation"] == 1
    # Without its defaults it still means the same.
    replaced = await api.update(resources.DEPLOYMENTS, deployment("web"))
    assert replaced["metadata"]["generation"] == 1
    scaled = await api.patch(resources.DEPLOYMENTS, "web", {"spec": {"replicas": 5}})
    assert scaled["metadata"]["generation"] == 2


async def test_patches_of_many_at_once_all_arrive(api: Api) -> None:
    await api.create(resources.CONFIG_MAPS, config_map("one"))
    patches = (api.patch(resources.CONFIG_MAPS, "one", {"data": {f"k{i}": "v"}}) for i in range(12))
    await asyncio.gather(*patches)
    assert len((await api.get(resources.CONFIG_MAPS, "one"))["data"]) == 12


async def test_a_patch_with_a_version_is_not_tried_again(api: Api) -> None:
    first = await api.create(resources.CONFIG_MAPS, config_map("one"))
    version = first["metadata"]["resourceVersion"]
    patch = {"metadata": {"resourceVersion": version}, "data": {"a": "1"}}
    await api.patch(resources.CONFIG_MAPS, "one", patch)
    with pytest.raises(StatusError, match="modified"):
        await api.patch(resources.CONFIG_MAPS, "one", patch | {"data": {"a": "2"}})


async def test_a_uid_is_a_precondition(api: Api) -> None:
    await api.create(resources.CONFIG_MAPS, config_map("one"))
    with pytest.raises(StatusError, match="Precondition failed: UID in precondition: other") as caught:
        await api.patch(resources.CONFIG_MAPS, "one", {"metadata": {"uid": "other"}})
    assert caught.value.code == 409


async def test_status_is_written_through_its_subresource_alone(api: Api) -> None:
    await api.create(resources.DEPLOYMENTS, deployment("web") | {"status": {"replicas": 9}})
    assert (await api.get(resources.DEPLOYMENTS, "web"))["status"] == {}
    await api.patch(resources.DEPLOYMENTS, "web", {"status": {"replicas": 1}})
    assert (await api.get(resources.DEPLOYMENTS, "web"))["status"] == {}
    patch = {"status": {"replicas": 1}, "spec": {"replicas": 7}}
    written = await api.patch(resources.DEPLOYMENTS, "web", patch, sub="status")
    assert written["status"]["replicas"] == 1
    assert written["spec"]["replicas"] == 1
    assert written["metadata"]["generation"] == 1


async def test_scale_is_an_object_of_its_own(api: Api) -> None:
    await api.create(resources.DEPLOYMENTS, deployment("web"))
    scale = await api.get(resources.DEPLOYMENTS, "web", sub="scale")
    assert scale["kind"] == "Scale"
    assert scale["spec"] == {"replicas": 1}
    assert scale["status"] == {"replicas": 0, "selector": "app=web"}
    scale["spec"]["replicas"] = 4
    updated = await api.update(resources.DEPLOYMENTS, scale, sub="scale")
    assert updated["spec"]["replicas"] == 4
    await api.patch(resources.DEPLOYMENTS, "web", {"spec": {"replicas": 0}}, sub="scale")
    stored = await api.get(resources.DEPLOYMENTS, "web")
    assert stored["spec"]["replicas"] == 0
    assert stored["metadata"]["generation"] == 3
    with pytest.raises(StatusError, match="modified"):
        await api.update(resources.DEPLOYMENTS, scale, sub="scale")


async def test_apply_creates_changes_and_conflicts(api: Api) -> None:
    applied = config_map("one", a="1", b="1")
    created = await api.patch(resources.CONFIG_MAPS, "one", applied, kind=PatchType.APPLY, field_manager="first")
    assert created["data"] == {"a": "1", "b": "1"}
    del applied["data"]["b"]
    changed = await api.patch(resources.CONFIG_MAPS, "one", applied, kind=PatchType.APPLY, field_manager="first")
    assert changed["data"] == {"a": "1"}
    same = await api.patch(resources.CONFIG_MAPS, "one", applied, kind=PatchType.APPLY, field_manager="first")
    assert same == changed
    other = config_map("one", a="2")
    with pytest.raises(StatusError, match='conflict with "first"'):
        await api.patch(resources.CONFIG_MAPS, "one", other, kind=PatchType.APPLY, field_manager="second")
    taken = await api.patch(
        resources.CONFIG_MAPS, "one", other, kind=PatchType.APPLY, field_manager="second", force=True
    )
    assert taken["data"] == {"a": "2"}


async def test_pods_get_account_token_volume_and_tolerations(api: Api) -> None:
    created = await api.create(resources.PODS, pod("one"))
    spec = created["spec"]
    assert spec["serviceAccountName"] == "default"
    volume = spec["volumes"][-1]
    assert volume["name"].startswith("kube-api-access-")
    sources = volume["projected"]["sources"]
    assert sources[0]["serviceAccountToken"] == {"expirationSeconds": 3607, "path": "token"}
    mount = spec["containers"][0]["volumeMounts"][0]
    assert mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
    assert mount["name"] == volume["name"]
    assert {t["key"]: t["tolerationSeconds"] for t in spec["tolerations"]} == {
        "node.kubernetes.io/not-ready": 60,
        "node.kubernetes.io/unreachable": 60,
    }
    assert created["status"]["phase"] == "Pending"


async def test_a_pods_own_tolerations_and_opt_outs_win(api: Api) -> None:
    own = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}
    created = await api.create(resources.PODS, pod("one", tolerations=[own], automountServiceAccountToken=False))
    tolerations = created["spec"]["tolerations"]
    assert [t["key"] for t in tolerations] == ["node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"]
    assert "tolerationSeconds" not in tolerations[0]
    assert "volumes" not in created["spec"]


async def test_a_pod_without_its_account_is_refused(api: Api) -> None:
    with pytest.raises(StatusError, match='serviceaccount "ghost" not found') as caught:
        await api.create(resources.PODS, pod("one", serviceAccountName="ghost"))
    assert caught.value.code == 403


async def test_nothing_is_created_in_a_namespace_that_is_missing_or_ends(api: Api) -> None:
    with pytest.raises(StatusError) as caught:
        await api.create(resources.CONFIG_MAPS, config_map("one"), "nowhere")
    assert (caught.value.code, caught.value.message) == (404, 'namespaces "nowhere" not found')
    await api.create(resources.NAMESPACES, namespace("brief"))
    document, gone = await api.delete(resources.NAMESPACES, "brief")
    assert not gone
    assert document["status"]["phase"] == "Terminating"
    assert document["spec"]["finalizers"] == ["kubernetes"]
    with pytest.raises(StatusError, match="because it is being terminated") as caught:
        await api.create(resources.CONFIG_MAPS, config_map("one"), "brief")
    assert caught.value.code == 403
    ended = await api.update(resources.NAMESPACES, document | {"spec": {}}, sub="finalize")
    assert ended["metadata"]["name"] == "brief"
    assert "brief" not in await api.names(resources.NAMESPACES)


async def test_binding_puts_a_pod_onto_a_node_once(api: Api) -> None:
    await api.create(resources.PODS, pod("one"))
    binding = {"target": {"kind": "Node", "name": "n1"}}
    bound = await api.post(resources.PODS, "one", "binding", binding)
    assert bound["spec"]["nodeName"] == "n1"
    assert bound["status"]["conditions"][0]["type"] == "PodScheduled"
    with pytest.raises(StatusError, match='is already assigned to node "n1"') as caught:
        await api.post(resources.PODS, "one", "binding", {"target": {"kind": "Node", "name": "n2"}})
    assert caught.value.code == 409
