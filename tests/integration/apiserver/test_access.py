"""Who may do what: administrators, components, nodes, service accounts, nobody."""

from __future__ import annotations

from typing import Any

import pytest

from kybern.api import resources
from kybern.api.errors import StatusError
from kybern.api.resources import Resource
from master.apiserver.interface import ANONYMOUS, Target, User
from master.auth import users
from tests.integration.apiserver.api import Api, config_map, node, pod

N1 = User("system:node:n1", ("system:nodes", users.AUTHENTICATED))


async def forbidden(call: Any, text: str = "is forbidden") -> None:
    with pytest.raises(StatusError, match=text) as caught:
        await call
    assert caught.value.code == 403, caught.value


async def test_refusals_are_worded_as_in_kubernetes(api: Api) -> None:
    bob = api.as_user(User("bob", (users.AUTHENTICATED,)))
    with pytest.raises(StatusError) as caught:
        await bob.get(resources.DEPLOYMENTS, "web")
    assert caught.value.message == (
        'deployments.apps "web" is forbidden: User "bob" cannot get resource "deployments" in API group "apps" '
        'in the namespace "default"'
    )
    with pytest.raises(StatusError) as caught:
        await bob.list(resources.NODES)
    assert caught.value.message == (
        'nodes is forbidden: User "bob" cannot list resource "nodes" in API group "" at the cluster scope'
    )
    await forbidden(api.as_user(ANONYMOUS).list(resources.PODS), "system:anonymous")
    await forbidden(bob.get(resources.PODS, "p", sub="log"), 'resource "pods/log"')


async def test_masters_may_everything_and_the_scheduler_what_it_needs(api: Api) -> None:
    await api.as_user(User("m1", ("kybern:masters",))).create(resources.CONFIG_MAPS, config_map("one"))
    scheduler = api.as_user(users.SCHEDULER)
    await api.create(resources.PODS, pod("p"))
    await scheduler.list(resources.PODS, "")
    await scheduler.post(resources.PODS, "p", "binding", {"target": {"name": "n1"}})
    await forbidden(scheduler.list(resources.SECRETS))
    await forbidden(scheduler.create(resources.PODS, pod("q")))
    controllers = api.as_user(users.CONTROLLERS)
    await controllers.create(resources.PODS, pod("q"))
    await controllers.list(resources.SECRETS)


async def _pod_on(api: Api, name: str, where: str, **spec: Any) -> dict[str, Any]:
    await api.create(resources.PODS, pod(name, **spec))
    return await api.post(resources.PODS, name, "binding", {"target": {"name": where}})


async def test_a_node_writes_itself_alone(api: Api) -> None:
    await api.create(resources.NODES, node("n2"))
    n1 = api.as_user(N1)
    await n1.create(resources.NODES, node("n1"))
    await n1.patch(resources.NODES, "n1", {"status": {"conditions": []}}, sub="status")
    await n1.patch(resources.NODES, "n1", {"metadata": {"labels": {"a": "b"}}})
    await n1.list(resources.NODES)
    await forbidden(n1.create(resources.NODES, node("n3")))
    await forbidden(n1.patch(resources.NODES, "n2", {"status": {}}, sub="status"))
    await forbidden(n1.patch(resources.NODES, "n2", {"metadata": {"labels": {"a": "b"}}}))
    await forbidden(n1.delete(resources.NODES, "n1"))
    taint = {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}
    await forbidden(n1.patch(resources.NODES, "n1", taint), "taints")
    label = {"metadata": {"labels": {"node-restriction.kubernetes.io/x": "y"}}}
    await forbidden(n1.patch(resources.NODES, "n1", label), "labels")


async def test_a_node_has_its_own_lease(api: Api) -> None:
    await api.create(resources.NAMESPACES, {"metadata": {"name": "kube-node-lease"}}, "")
    n1 = api.as_user(N1)
    lease = {"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1"}}
    await n1.create(resources.LEASES, lease, "kube-node-lease")
    await n1.patch(resources.LEASES, "n1", {"spec": {"leaseDurationSeconds": 40}}, "kube-node-lease")
    await n1.get(resources.LEASES, "n1", "kube-node-lease")
    await forbidden(n1.create(resources.LEASES, {"metadata": {"name": "n2"}}, "kube-node-lease"))
    await forbidden(n1.get(resources.LEASES, "n2", "kube-node-lease"))
    await forbidden(n1.create(resources.LEASES, lease, "default"))
    await forbidden(n1.list(resources.LEASES, "kube-node-lease"))


async def test_a_node_sees_and_reports_its_own_pods(api: Api) -> None:
    await _pod_on(api, "mine", "n1")
    await _pod_on(api, "other", "n2")
    n1 = api.as_user(N1)
    assert await n1.names(resources.PODS, "", fields="spec.nodeName=n1") == ["mine"]
    await forbidden(n1.list(resources.PODS, ""))
    await forbidden(n1.list(resources.PODS, "", fields="spec.nodeName=n2"))
    await n1.patch(resources.PODS, "mine", {"status": {"phase": "Running"}}, sub="status")
    await forbidden(n1.patch(resources.PODS, "other", {"status": {"phase": "Failed"}}, sub="status"))
    await forbidden(n1.get(resources.PODS, "other"))
    await forbidden(n1.patch(resources.PODS, "mine", {"metadata": {"labels": {"a": "b"}}}))
    await forbidden(n1.create(resources.PODS, pod("new")))
    await forbidden(n1.delete(resources.PODS, "other", grace_seconds=0))
    assert (await n1.delete(resources.PODS, "mine", grace_seconds=0))[1]
    with pytest.raises(StatusError, match="not found"):
        await n1.get(resources.PODS, "mine")


async def test_a_node_reads_what_its_pods_refer_to(api: Api) -> None:
    for name in ("volume", "env", "pull", "secret-of-others"):
        await api.create(resources.SECRETS, {"metadata": {"name": name}})
    await api.create(resources.CONFIG_MAPS, config_map("settings"))
    await api.create(resources.CONFIG_MAPS, config_map("kube-root-ca.crt"))
    container = {
        "name": "c",
        "image": "busybox",
        "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "env", "key": "a"}}}],
        "envFrom": [{"configMapRef": {"name": "settings"}}],
    }
    volumes = [{"name": "v", "secret": {"secretName": "volume"}}]
    spec = {"containers": [container], "volumes": volumes, "imagePullSecrets": [{"name": "pull"}]}
    await _pod_on(api, "mine", "n1", **spec)
    n1 = api.as_user(N1)
    for name in ("volume", "env", "pull"):
        assert await n1.get(resources.SECRETS, name)
        assert await n1.names(resources.SECRETS, fields=f"metadata.name={name}") == [name]
    for name in ("settings", "kube-root-ca.crt"):
        assert await n1.get(resources.CONFIG_MAPS, name)
    assert await n1.get(resources.SERVICE_ACCOUNTS, "default")
    await forbidden(n1.get(resources.SECRETS, "secret-of-others"), "no relationship found")
    await forbidden(n1.list(resources.SECRETS), "can only read individual resources")
    await forbidden(n1.patch(resources.SECRETS, "volume", {"data": {}}))
    await api.delete(resources.PODS, "mine", grace_seconds=0)
    await api.list(resources.PODS)
    await forbidden(n1.get(resources.SECRETS, "volume"))


@pytest.mark.parametrize("resource", [resources.SERVICES, resources.ENDPOINT_SLICES])
async def test_a_node_reads_what_routing_needs(api: Api, resource: Resource) -> None:
    n1 = api.as_user(N1)
    await n1.list(resource, "")
    async with n1.watch(resource, ""):
        pass
    await forbidden(n1.delete(resource, "x"))


async def test_tokens_speak_for_their_account_as_long_as_their_pod_lives(api: Api) -> None:
    bound = await _pod_on(api, "mine", "n1")
    reference = {"kind": "Pod", "apiVersion": "v1", "name": "mine", "uid": bound["metadata"]["uid"]}
    request = {"spec": {"boundObjectRef": reference, "expirationSeconds": 3607, "audiences": []}}
    n1 = api.as_user(N1)
    answer = await n1.post(resources.SERVICE_ACCOUNTS, "default", "token", request)
    token = answer["status"]["token"]
    user = await api.server.authenticator.token(token)
    assert user.name == "system:serviceaccount:default:default"
    assert "system:serviceaccounts:default" in user.groups
    await forbidden(api.as_user(user).list(resources.PODS), "system:serviceaccount:default:default")
    await api.delete(resources.PODS, "mine", grace_seconds=0)
    await api.list(resources.PODS)
    with pytest.raises(StatusError, match="Unauthorized") as caught:
        await api.server.authenticator.token(token)
    assert caught.value.code == 401


async def test_tokens_that_are_refused(api: Api) -> None:
    await _pod_on(api, "other", "n2")
    n1 = api.as_user(N1)
    of_other = {"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "other"}}}
    await forbidden(n1.post(resources.SERVICE_ACCOUNTS, "default", "token", of_other))
    await _pod_on(api, "mine", "n1")
    await forbidden(n1.post(resources.SERVICE_ACCOUNTS, "default", "token", of_other), "different node")
    await forbidden(n1.post(resources.SERVICE_ACCOUNTS, "default", "token", {"spec": {}}), "not bound to a pod")
    with pytest.raises(StatusError, match="less than 10 minutes"):
        await api.post(resources.SERVICE_ACCOUNTS, "default", "token", {"spec": {"expirationSeconds": 60}})
    wrong = {"kind": "Pod", "apiVersion": "v1", "name": "mine", "uid": "another"}
    with pytest.raises(StatusError, match="does not match the UID in record"):
        await api.post(resources.SERVICE_ACCOUNTS, "default", "token", {"spec": {"boundObjectRef": wrong}})
    with pytest.raises(StatusError, match='serviceaccounts "none" not found'):
        await api.post(resources.SERVICE_ACCOUNTS, "none", "token", {"spec": {}})
    unbound = await api.post(resources.SERVICE_ACCOUNTS, "default", "token", {"spec": {"audiences": ["vault"]}})
    with pytest.raises(StatusError, match="Unauthorized"):
        await api.server.authenticator.token(unbound["status"]["token"])
    for nonsense in ("", "a.b.c", "x" * 5000):
        with pytest.raises(StatusError, match="Unauthorized"):
            await api.server.authenticator.token(nonsense)


async def test_pods_are_located_for_streams(api: Api) -> None:
    containers = [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]
    target = Target(resources.PODS, "default", "two", "log")
    await api.create(resources.PODS, pod("two", containers=containers))
    with pytest.raises(StatusError, match="does not have a host assigned") as caught:
        await api.handlers.locate(api.user, target, "a", verb="get")
    assert caught.value.code == 400
    document = node("n1") | {
        "status": {
            "addresses": [{"type": "InternalIP", "address": "192.0.2.7"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10999}},
        }
    }
    await api.create(resources.NODES, document)
    bound = await api.post(resources.PODS, "two", "binding", {"target": {"name": "n1"}})
    found = await api.handlers.locate(api.user, target, "b", verb="get")
    assert (found.node, found.agent_address, found.container) == ("n1", "192.0.2.7:10999", "b")
    assert found.pod_uid == bound["metadata"]["uid"]
    with pytest.raises(StatusError, match=r"choose one of: \[a b\]"):
        await api.handlers.locate(api.user, target, "", verb="get")
    with pytest.raises(StatusError, match="container c is not valid for pod two"):
        await api.handlers.locate(api.user, target, "c", verb="get")
    await forbidden(api.handlers.locate(N1, target, "a", verb="get"))
