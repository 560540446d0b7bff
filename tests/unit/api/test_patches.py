"""Patches: reference cases, what kubectl and other clients sent, and bad ones."""

from __future__ import annotations

from typing import Any

import pytest

from kybern.api import resources, schema
from kybern.api.errors import StatusError
from kybern.api.metadata import copy_json
from kybern.api.patch import apply_patch
from kybern.client.interface import PatchType
from tests.unit.api.objects import container, deployment, pod

Document = dict[str, Any]
PODS = schema.load(resources.PODS)
DEPLOYMENTS = schema.load(resources.DEPLOYMENTS)
SERVICES = schema.load(resources.SERVICES)
CONFIG_MAPS = schema.load(resources.CONFIG_MAPS)


def strategic(document: Document, patch: Document, kind: schema.Schema = PODS) -> Document:
    before, sent = copy_json(document), copy_json(patch)
    result = apply_patch(kind, document, patch, PatchType.STRATEGIC)
    assert (document, patch) == (before, sent)
    return result


def spec(document: Document, patch: Document) -> Document:
    """The spec of a pod, patched."""
    result: Document = strategic({"spec": document}, {"spec": patch})["spec"]
    return result


# --- strategic: reference cases


def test_scalars_replace_and_null_deletes() -> None:
    assert spec({"nodeName": "a", "priority": 1}, {"nodeName": "b", "priority": None}) == {"nodeName": "b"}


def test_objects_merge() -> None:
    document = {"metadata": {"labels": {"a": "1", "b": "2"}}}
    patch = {"metadata": {"labels": {"a": None, "c": "3"}}}
    assert strategic(document, patch)["metadata"]["labels"] == {"b": "2", "c": "3"}


def test_lists_with_a_merge_key_merge() -> None:
    before = [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]
    patch = [{"name": "b", "image": "2", "stdin": None}, {"name": "c", "image": "3", "tty": None}]
    assert spec({"containers": before}, {"containers": patch})["containers"] == [
        {"name": "a", "image": "1"},
        {"name": "b", "image": "2"},
        {"name": "c", "image": "3"},
    ]


def test_other_lists_replace() -> None:
    before = {"tolerations": [{"key": "a"}], "containers": [{"name": "a", "command": ["x", "y"]}]}
    patch = {"tolerations": [{"key": "b"}], "containers": [{"name": "a", "command": ["z"]}]}
    assert spec(before, patch) == patch


def test_items_are_deleted() -> None:
    before = [{"name": "a"}, {"name": "b"}]
    assert spec({"containers": before}, {"containers": [{"name": "a", "$patch": "delete"}]})["containers"] == [
        {"name": "b"}
    ]


def test_a_list_is_replaced() -> None:
    before = [{"name": "a"}, {"name": "b"}]
    patch = [{"$patch": "replace"}, {"name": "c"}]
    assert spec({"containers": before}, {"containers": patch})["containers"] == [{"name": "c"}]
    patch = [{"$patch": "replace", "name": "d"}]
    assert spec({"containers": before}, {"containers": patch})["containers"] == [{"name": "d"}]


def test_an_object_is_replaced_or_emptied() -> None:
    before = {"nodeSelector": {"a": "1"}, "securityContext": {"runAsUser": 1, "fsGroup": 2}}
    patch = {"nodeSelector": {"$patch": "replace", "b": "2", "c": None}, "securityContext": {"$patch": "delete"}}
    assert spec(before, patch) == {"nodeSelector": {"b": "2"}, "securityContext": {}}


def test_retained_keys() -> None:
    before = [{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {}}]
    patch = [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]
    assert spec({"volumes": before}, {"volumes": patch})["volumes"] == [
        {"name": "v", "hostPath": {"path": "/"}},
        {"name": "w", "emptyDir": {}},
    ]
    document = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch_strategy = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert strategic(document, patch_strategy, DEPLOYMENTS) == {"spec": {"strategy": {"type": "Recreate"}}}


def test_lists_of_scalars() -> None:
    document = {"metadata": {"finalizers": ["a", "b"]}}
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c", "b", "c"]}}
    assert strategic(document, patch)["metadata"]["finalizers"] == ["b", "c"]
    patch = {"metadata": {"$setElementOrder/finalizers": ["c", "b", "a"], "finalizers": ["c"]}}
    assert strategic(document, patch)["metadata"]["finalizers"] == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("before", "patched", "order", "after"),
    [
        ("abc", "", "cba", "cba"),
        ("abc", "d", "dabc", "dabc"),
        ("abc", "d", "da", "dabc"),
        ("abc", "d", "ad", "adbc"),
        ("abxc", "", "cb", "axcb"),
        ("", "ab", "ba", "ba"),
        ("abc", "", "", "abc"),
    ],
)
def test_the_order_of_items(before: str, patched: str, order: str, after: str) -> None:
    document = {"containers": [{"name": n} for n in before]}
    patch: Document = {"$setElementOrder/containers": [{"name": n} for n in order]}
    if patched:
        patch["containers"] = [{"name": n} for n in patched]
    assert "".join(c["name"] for c in spec(document, patch)["containers"]) == after


def test_ports_are_told_apart_by_protocol_only_when_they_must() -> None:
    def ports(before: list[Document], patch: Document) -> list[Document]:
        document = {"containers": [{"name": "a", "ports": before}]}
        result = spec(document, {"containers": [{"name": "a", **patch}]})["containers"][0]["ports"]
        return list(result)

    tcp, udp = {"containerPort": 53, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}
    # One port of that number, before and after: its protocol changes.
    assert ports([tcp], {"ports": [udp]}) == [udp]
    assert ports([tcp], {"ports": [udp], "$setElementOrder/ports": [{"containerPort": 53}]}) == [udp]
    # Two after: one is new.
    order = {"$setElementOrder/ports": [{"containerPort": 53}, {"containerPort": 53}]}
    assert ports([tcp], {"ports": [udp], **order}) == [tcp, udp]
    assert ports([], {"ports": [tcp, udp]}) == [tcp, udp]
    # Two before: the protocol says which one; without it, TCP is meant.
    assert ports([tcp, udp], {"ports": [{**udp, "name": "dns"}]}) == [tcp, {**udp, "name": "dns"}]
    assert ports([udp, tcp], {"ports": [{"containerPort": 53, "name": "dns"}]}) == [udp, {**tcp, "name": "dns"}]
    assert ports([tcp, udp], {"ports": [{**udp, "$patch": "delete"}]}) == [tcp]
    assert ports([tcp, udp], {"ports": [{"containerPort": 53, "$patch": "delete"}]}) == []


def test_fields_that_the_schema_does_not_know_merge_plainly() -> None:
    document = {"spec": {"extra": {"list": [1], "map": {"a": 1}}}}
    patch = {"spec": {"extra": {"list": [2], "map": {"b": None, "c": 2}}}}
    assert strategic(document, patch)["spec"]["extra"] == {"list": [2], "map": {"a": 1, "c": 2}}


def test_conditions_merge_by_type() -> None:
    document = {"status": {"conditions": [{"type": "A", "status": "False"}, {"type": "B", "status": "True"}]}}
    patch = {"status": {"conditions": [{"type": "A", "status": "True"}]}}
    assert strategic(document, patch)["status"]["conditions"] == [
        {"type": "A", "status": "True"},
        {"type": "B", "status": "True"},
    ]


# --- what clients sent


def test_apply_of_a_changed_manifest() -> None:
    before = deployment(
        template={
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [container(env=[{"name": "A", "value": "1"}])]},
        }
    )
    patch = {
        "metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}},
        "spec": {
            "replicas": 1,
            "template": {
                "spec": {
                    "$setElementOrder/containers": [{"name": "web"}],
                    "containers": [{"$setElementOrder/env": [{"name": "A"}], "image": "busybox", "name": "web"}],
                }
            },
        },
    }
    result = strategic(before, patch, DEPLOYMENTS)
    wanted = copy_json(before)
    wanted["metadata"]["annotations"] = patch["metadata"]["annotations"]  # type: ignore[index]
    wanted["spec"]["template"]["spec"]["containers"][0]["image"] = "busybox"
    assert result == wanted


@pytest.mark.parametrize(
    ("patch", "path", "value"),
    [
        ({"spec": {"replicas": 3}}, "spec.replicas", 3),
        ({"spec": {"template": {"spec": {"$setElementOrder/containers": [{"name": "web"}], "containers": [{"image": "busybox:3", "name": "web"}]}}}}, "spec.template.spec.containers.0.image", "busybox:3"),
        ({"spec": {"template": {"spec": {"$setElementOrder/containers": [{"name": "web"}], "containers": [{"$setElementOrder/env": [{"name": "A"}, {"name": "Z"}], "env": [{"name": "Z", "value": "1"}], "name": "web"}]}}}}, "spec.template.spec.containers.0.env.1", {"name": "Z", "value": "1"}),
        ({"spec": {"template": {"spec": {"$setElementOrder/containers": [{"name": "web"}], "containers": [{"name": "web", "resources": {"limits": {"cpu": "1"}}}]}}}}, "spec.template.spec.containers.0.resources", {"limits": {"cpu": "1"}}),
        ({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "2026-11-20T10:06:51Z"}}}}}, "spec.template.metadata.annotations", {"kubectl.kubernetes.io/restartedAt": "2026-11-20T10:06:51Z"}),
        ({"spec": {"paused": True}}, "spec.paused", True),
    ],
    ids=["replicas", "set-image", "set-env", "set-resources", "restart", "pause"],
)  # fmt: skip
def test_patches_of_kubectl(patch: Document, path: str, value: Any) -> None:
    labels = {"metadata": {"labels": {"app": "web"}}}
    before = deployment(template={**labels, "spec": {"containers": [container(env=[{"name": "A", "value": "1"}])]}})
    result: Any = strategic(before, patch, DEPLOYMENTS)
    kept = result["spec"]["template"]["spec"]["containers"][0]
    assert (kept["name"], kept["env"][0]) == ("web", {"name": "A", "value": "1"})
    for step in path.split("."):
        result = result[int(step) if step.isdigit() else step]
    assert result == value


def test_resume_cordon_and_taint() -> None:
    paused = deployment(paused=True)
    assert "paused" not in strategic(paused, {"spec": {"paused": None}}, DEPLOYMENTS)["spec"]
    nodes = schema.load(resources.NODES)
    cordoned = strategic({"spec": {}}, {"spec": {"unschedulable": True}}, nodes)
    assert cordoned == {"spec": {"unschedulable": True}}
    assert strategic(cordoned, {"spec": {"unschedulable": None}}, nodes) == {"spec": {}}
    taint = {"effect": "NoSchedule", "key": "k", "value": "v"}
    assert strategic({"spec": {}}, {"spec": {"taints": [taint]}}, nodes) == {"spec": {"taints": [taint]}}


def test_debug_adds_ephemeral_containers() -> None:
    first = {"command": ["sleep", "1"], "image": "busybox", "name": "dbg", "resources": {}, "stdin": True}
    once = strategic(pod(), {"spec": {"ephemeralContainers": [first]}})
    second = {**first, "name": "dbg2"}
    order = [{"name": "dbg"}, {"name": "dbg2"}]
    twice = strategic(once, {"spec": {"$setElementOrder/ephemeralContainers": order, "ephemeralContainers": [second]}})
    assert twice["spec"]["ephemeralContainers"] == [first, second]


def test_undo_replaces_the_template() -> None:
    before = deployment()
    old_template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container(image="busybox:3")]}}
    patch = [
        {"op": "replace", "path": "/spec/template", "value": old_template},
        {"op": "add", "path": "/metadata/annotations", "value": {"deployment.kubernetes.io/revision": "1"}},
    ]
    result = apply_patch(DEPLOYMENTS, before, patch, PatchType.JSON)
    assert result["spec"] == {**before["spec"], "template": old_template}
    assert result["metadata"]["annotations"] == {"deployment.kubernetes.io/revision": "1"}


def test_patches_of_the_python_client() -> None:
    document = {"metadata": {"name": "pc"}, "data": {"a": "b"}}
    document = strategic(document, {"data": {"c": "d"}}, CONFIG_MAPS)
    document = apply_patch(CONFIG_MAPS, document, [{"op": "add", "path": "/data/e", "value": "f"}], PatchType.JSON)
    document = apply_patch(CONFIG_MAPS, document, {"data": {"c": None}}, PatchType.MERGE)
    assert document["data"] == {"a": "b", "e": "f"}


def test_labels_of_kubectl_are_merge_patches() -> None:
    result = apply_patch(PODS, pod(), {"metadata": {"labels": {"x": "y"}}}, PatchType.MERGE)
    assert result["metadata"]["labels"] == {"x": "y"}
    result = apply_patch(PODS, result, {"metadata": {"labels": {"x": None}}}, PatchType.MERGE)
    assert result["metadata"]["labels"] == {}


# --- JSON patches


@pytest.mark.parametrize(
    ("operation", "after"),
    [
        ({"op": "add", "path": "/list/1", "value": 9}, {"list": [1, 9, 2], "map": {"a": 1}}),
        ({"op": "add", "path": "/list/-", "value": 9}, {"list": [1, 2, 9], "map": {"a": 1}}),
        ({"op": "remove", "path": "/list/0"}, {"list": [2], "map": {"a": 1}}),
        ({"op": "replace", "path": "/map/a", "value": None}, {"list": [1, 2], "map": {"a": None}}),
        ({"op": "move", "from": "/map/a", "path": "/b"}, {"list": [1, 2], "map": {}, "b": 1}),
        ({"op": "copy", "from": "/map", "path": "/b"}, {"list": [1, 2], "map": {"a": 1}, "b": {"a": 1}}),
        ({"op": "test", "path": "/map/a", "value": 1}, {"list": [1, 2], "map": {"a": 1}}),
    ],
)
def test_operations(operation: Document, after: Document) -> None:
    document = {"list": [1, 2], "map": {"a": 1}}
    before = copy_json(document)
    assert apply_patch(PODS, document, [operation], PatchType.JSON) == after
    assert document == before


def test_the_result_shares_nothing_with_the_patch() -> None:
    value: Document = {"a": {}}
    patch = [{"op": "add", "path": "/x", "value": value}, {"op": "copy", "from": "/x", "path": "/y"}]
    result = apply_patch(PODS, {}, patch, PatchType.JSON)
    result["x"]["a"]["b"] = 1
    assert value == {"a": {}}
    assert result["y"] == {"a": {}}


# --- bad patches


@pytest.mark.parametrize(
    ("kind", "patch", "code", "message"),
    [
        (PatchType.MERGE, [], 400, "the patch must be a JSON object"),
        (PatchType.STRATEGIC, "x", 400, "the patch must be a JSON object"),
        (PatchType.JSON, {}, 400, "a JSON patch must be a list of operations"),
        (PatchType.JSON, [1], 400, "operation 0 of the JSON patch is not valid"),
        (PatchType.JSON, [{"op": "add"}], 400, "operation 0 of the JSON patch is not valid"),
        (PatchType.JSON, [{"op": "grow", "path": "/a"}], 400, "operation 0 of the JSON patch is not valid"),
        (PatchType.JSON, [{"op": "add", "path": "/a"}], 400, "operation 0 of the JSON patch is not valid"),
        (PatchType.JSON, [{"op": "add", "path": 1, "value": 1}], 400, "operation 0 of the JSON patch is not valid"),
        (PatchType.JSON, [{"op": "copy", "path": "/a"}], 400, "operation 0 of the JSON patch is not valid"),
        (PatchType.JSON, [{"op": "add", "path": "a", "value": 1}], 422, "operation 0 of the JSON patch: add a: no such place"),
        (PatchType.JSON, [{"op": "remove", "path": "/nothing"}], 422, "remove /nothing: no such place in the object"),
        (PatchType.JSON, [{"op": "replace", "path": "/nothing", "value": 1}], 422, "replace /nothing: no such place"),
        (PatchType.JSON, [{"op": "add", "path": "/a/b/c", "value": 1}], 422, "add /a/b/c: no such place in the object"),
        (PatchType.JSON, [{"op": "add", "path": "/spec/containers/9", "value": 1}], 422, "add /spec/containers/9: no such place"),
        (PatchType.JSON, [{"op": "copy", "from": "/x", "path": "/y"}], 422, "copy /x to /y: no such place in the object"),
        (PatchType.JSON, [{"op": "test", "path": "/spec/nodeName", "value": "x"}], 422, "testing path /spec/nodeName failed"),
        (PatchType.JSON, [{"op": "test", "path": "/spec/dnsPolicy", "value": "x"}], 422, "testing path /spec/dnsPolicy failed: it has another value"),
        (PatchType.JSON, [{"op": "replace", "path": "", "value": []}], 422, "the JSON patch leaves no object"),
        (PatchType.JSON, [{"op": "test", "path": "", "value": 1}] * 10_001, 413, "the allowed maximum operations in a JSON patch is 10000, got 10001"),
        (PatchType.STRATEGIC, {"spec": {"$patch": "improve"}}, 400, "unknown patch type 'improve'"),
        (PatchType.STRATEGIC, {"spec": {"containers": [{"name": "a", "$patch": "merge"}]}}, 400, "unknown patch type 'merge' in an item of a list"),
        (PatchType.STRATEGIC, {"spec": {"$setElementOrder/containers": {}}}, 400, "$setElementOrder/containers must be a list"),
        (PatchType.STRATEGIC, {"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}}, 400, "the item with name=b is not in $setElementOrder of its list"),
        (PatchType.STRATEGIC, {"spec": {"$retainKeys": "x"}}, 400, "$retainKeys must be a list of keys"),
        (PatchType.STRATEGIC, {"spec": {"$retainKeys": ["a"], "nodeName": "b"}}, 400, "$retainKeys does not name 'nodeName', which the patch sets"),
        (PatchType.STRATEGIC, {"spec": {"containers": [{"image": "x"}]}}, 422, "does not contain declared merge key: name"),
        (PatchType.STRATEGIC, {"spec": {"containers": ["x"]}}, 422, "does not contain declared merge key: name"),
        (PatchType.STRATEGIC, {"spec": {"containers": [{"$patch": "delete"}]}}, 422, "does not contain declared merge key: name"),
    ],
)  # fmt: skip
def test_bad_patches(kind: PatchType, patch: Any, code: int, message: str) -> None:
    with pytest.raises(StatusError) as caught:
        apply_patch(PODS, pod(), patch, kind)
    assert caught.value.code == code
    assert message in caught.value.message


def test_messages_do_not_show_the_document() -> None:
    secret = {"data": {"password": "c2VjcmV0"}}
    for operation in ({"op": "remove", "path": "/data/x"}, {"op": "test", "path": "/data/password", "value": "x"}):
        with pytest.raises(StatusError) as caught:
            apply_patch(schema.load(resources.SECRETS), secret, [operation], PatchType.JSON)
        assert "c2VjcmV0" not in caught.value.message


def test_a_patch_of_copies_does_not_explode() -> None:
    doubling = [{"op": "copy", "from": "", "path": f"/x{i}"} for i in range(40)]
    with pytest.raises(StatusError) as caught:
        apply_patch(CONFIG_MAPS, {"data": {"a": "x" * 100}}, doubling, PatchType.JSON)
    assert caught.value.code == 413


def test_apply_is_not_such_a_patch() -> None:
    with pytest.raises(ValueError, match="is not applied to a document"):
        apply_patch(PODS, {}, {}, PatchType.APPLY)


def test_patches_that_are_nested_too_deep() -> None:
    patch: Document = {}
    for _ in range(5000):
        patch = {"a": patch}
    for kind in (PatchType.MERGE, PatchType.STRATEGIC):
        with pytest.raises(StatusError, match="nested too deep") as caught:
            apply_patch(PODS, {}, patch, kind)
        assert caught.value.code == 400
