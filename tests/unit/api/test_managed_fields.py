"""Who owns which fields, and server-side apply."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kybern.api import resources, schema
from kybern.api.defaults import apply_defaults
from kybern.api.errors import StatusError
from kybern.api.managed_fields import apply, track_update
from kybern.api.managed_fields.elements import shown
from kybern.api.metadata import copy_json, prepare_status_update
from tests.unit.api.objects import container, deployment, pod

Document = dict[str, Any]
NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
PODS = schema.load(resources.PODS)
DEPLOYMENTS = schema.load(resources.DEPLOYMENTS)
CONFIG_MAPS = schema.load(resources.CONFIG_MAPS)
SERVICES = schema.load(resources.SERVICES)


def track(kind: schema.Schema, old: Document | None, new: Document, manager: str = "a", **options: Any) -> Document:
    result: Document = copy_json(new)
    given = {"api_version": "v1", "subresource": "", "now": NOW, **options}
    track_update(kind, old, result, manager=manager, **given)
    return result


def put(kind: schema.Schema, live: Document | None, config: Document, manager: str = "a", **options: Any) -> Document:
    given = {"api_version": "v1", "subresource": "", "force": False, "now": NOW, **options}
    return apply(kind, live, config, manager=manager, **given)


def entries(document: Document) -> list[Document]:
    return list(document["metadata"].get("managedFields", []))


def fields(document: Document, manager: str = "a") -> Document:
    found = [e["fieldsV1"] for e in entries(document) if e["manager"] == manager]
    assert len(found) == 1
    result: Document = found[0]
    return result


# --- tracking


def test_a_new_deployment_is_recorded_as_kubernetes_does() -> None:
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [container(ports=[{"containerPort": 80}])]},
    }
    created = track(DEPLOYMENTS, None, deployment(template=template), "kubectl-create", api_version="apps/v1")
    (entry,) = entries(created)
    content = entry.pop("fieldsV1")
    assert entry == {
        "manager": "kubectl-create",
        "operation": "Update",
        "apiVersion": "apps/v1",
        "time": "2026-11-20T10:00:00Z",
        "fieldsType": "FieldsV1",
    }
    assert content == {
        "f:spec": {
            "f:progressDeadlineSeconds": {},
            "f:replicas": {},
            "f:revisionHistoryLimit": {},
            "f:selector": {},
            "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}}, "f:type": {}},
            "f:template": {
                "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {
                    "f:containers": {
                        'k:{"name":"web"}': {
                            ".": {},
                            "f:image": {},
                            "f:imagePullPolicy": {},
                            "f:name": {},
                            "f:ports": {
                                ".": {},
                                'k:{"containerPort":80,"protocol":"TCP"}': {
                                    ".": {},
                                    "f:containerPort": {},
                                    "f:protocol": {},
                                },
                            },
                            "f:resources": {},
                            "f:terminationMessagePath": {},
                            "f:terminationMessagePolicy": {},
                        }
                    },
                    "f:dnsPolicy": {},
                    "f:restartPolicy": {},
                    "f:schedulerName": {},
                    "f:securityContext": {},
                    "f:terminationGracePeriodSeconds": {},
                },
            },
        }
    }


def test_what_is_identity_or_the_servers_belongs_to_nobody() -> None:
    document = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "x",
            "namespace": "d",
            "uid": "u",
            "generation": 1,
            "creationTimestamp": "t",
            "labels": {"a": "b"},
        },
        "data": {"k": "v"},
    }
    assert fields(track(CONFIG_MAPS, None, document)) == {
        "f:data": {".": {}, "f:k": {}},
        "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
    }


def test_owners_of_an_object_are_items_that_belong_together() -> None:
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": "u-1"}
    document = pod()
    document["metadata"]["ownerReferences"] = [owner]
    owned = fields(track(PODS, None, document))["f:metadata"]["f:ownerReferences"]
    assert owned == {".": {}, 'k:{"uid":"u-1"}': {}}


def config(**data: str) -> Document:
    return {"metadata": {"name": "x"}, "data": data}


def test_a_change_takes_the_field_from_its_owner() -> None:
    created = track(CONFIG_MAPS, None, config(a="1", b="1"), "first")
    updated = track(CONFIG_MAPS, created, config(a="2", b="1", c="3"), "second", now=LATER)
    assert fields(updated, "first") == {"f:data": {".": {}, "f:b": {}}}
    assert fields(updated, "second") == {"f:data": {"f:a": {}, "f:c": {}}}
    times = {e["manager"]: e["time"] for e in entries(updated)}
    assert times == {"first": "2026-11-20T10:00:00Z", "second": "2026-11-20T11:00:00Z"}


def test_what_is_gone_belongs_to_nobody() -> None:
    created = track(CONFIG_MAPS, None, config(a="1", b="1"), "first")
    updated = track(CONFIG_MAPS, created, config(b="1"), "second")
    assert [e["manager"] for e in entries(updated)] == ["first"]
    assert fields(updated, "first") == {"f:data": {".": {}, "f:b": {}}}
    assert entries(track(CONFIG_MAPS, created, {"metadata": {"name": "x"}}, "second")) == []


def test_the_same_manager_adds_to_its_entry() -> None:
    created = track(CONFIG_MAPS, None, config(a="1"))
    updated = track(CONFIG_MAPS, created, config(a="2", b="3"))
    assert fields(updated) == {"f:data": {".": {}, "f:a": {}, "f:b": {}}}


def test_managers_are_told_apart_by_version_and_subresource() -> None:
    document = track(CONFIG_MAPS, None, config(a="1"), api_version="v1")
    document = track(CONFIG_MAPS, document, config(a="1", b="1"), api_version="v2")
    document = track(CONFIG_MAPS, document, config(a="1", b="1", c="1"), subresource="status")
    assert [(e["apiVersion"], e.get("subresource")) for e in entries(document)] == [
        ("v1", None),
        ("v1", "status"),
        ("v2", None),
    ]


def test_nothing_changed_nothing_recorded() -> None:
    created = track(PODS, None, pod())
    assert track(PODS, created, created, "other", now=LATER) == created
    assert track(PODS, created, pod(), "other", now=LATER) == created


def test_lists_by_key() -> None:
    before = track(PODS, None, pod(containers=[container(name="a"), container(name="b")]), "first")
    after = pod(containers=[container(name="b", image="new:1"), container(name="c")])
    updated = track(PODS, before, after, "second")
    mine = fields(updated, "second")["f:spec"]["f:containers"]
    assert mine['k:{"name":"b"}'] == {
        "f:image": {},
    }
    assert mine['k:{"name":"c"}']["f:image"] == {}
    theirs = fields(updated, "first")["f:spec"]["f:containers"]
    assert set(theirs) == {'k:{"name":"b"}'}
    assert "f:image" not in theirs['k:{"name":"b"}']


def test_moved_items_change_no_owner() -> None:
    before = track(PODS, None, pod(containers=[container(name="a"), container(name="b")]), "first")
    updated = track(PODS, before, pod(containers=[container(name="b"), container(name="a")]), "second")
    assert [e["manager"] for e in entries(updated)] == ["first"]


def test_sets_by_value() -> None:
    def finalized(*names: str) -> Document:
        return {"metadata": {"name": "x", "finalizers": list(names)}}

    created = track(CONFIG_MAPS, None, finalized("a", "b"), "first")
    updated = track(CONFIG_MAPS, created, finalized("b", "c"), "second")
    assert fields(updated, "first") == {"f:metadata": {"f:finalizers": {".": {}, 'v:"b"': {}}}}
    assert fields(updated, "second") == {"f:metadata": {"f:finalizers": {'v:"c"': {}}}}


def test_items_that_cannot_be_told_apart_are_one_field() -> None:
    before = pod(containers=[container(env=[{"name": "A", "value": "1"}])])
    after = pod(containers=[container(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}])])
    updated = track(PODS, track(PODS, None, before, "first"), after, "second")
    assert fields(updated, "second") == {"f:spec": {"f:containers": {'k:{"name":"web"}': {"f:env": {}}}}}


def test_a_status_belongs_to_who_writes_the_subresource() -> None:
    created = track(PODS, None, {**pod(), "status": {"phase": "Pending"}}, "creator")
    assert "f:status" not in fields(created, "creator")
    conditions = [{"type": "Ready", "status": "True"}]
    sent = {"status": {"phase": "Running", "conditions": conditions}}
    new = prepare_status_update(sent, created, resource=resources.PODS)
    updated = track(PODS, created, new, "node", subresource="status")
    assert fields(updated, "node") == {
        "f:status": {
            "f:conditions": {".": {}, 'k:{"type":"Ready"}': {".": {}, "f:status": {}, "f:type": {}}},
            "f:phase": {},
        }
    }
    assert entries(updated)[1]["subresource"] == "status"


def test_clients_may_set_entries_but_do_not_forget_them_by_accident() -> None:
    created = track(CONFIG_MAPS, None, config(a="1"))
    kept = entries(created)
    for sent in ([], None, "nonsense", [{"operation": "Destroy"}], [{"operation": "Update", "fieldsV1": {"x": {}}}]):
        new = config(a="1")
        new["metadata"]["managedFields"] = sent
        assert entries(track(CONFIG_MAPS, created, new)) == kept
    other = [{**kept[0], "manager": "other"}]
    new = config(a="1")
    new["metadata"]["managedFields"] = other
    assert entries(track(CONFIG_MAPS, created, new)) == other
    # Through a subresource they are as they were.
    assert entries(track(CONFIG_MAPS, created, new, subresource="status")) == kept
    new["metadata"]["managedFields"] = [{}]
    assert entries(track(CONFIG_MAPS, created, new)) == []


def test_the_oldest_updaters_are_taken_together() -> None:
    document: Document = {"metadata": {"name": "x"}, "data": {}}
    for number in range(14):
        new = copy_json(document)
        new["data"][f"k{number}"] = "x"
        document = track(CONFIG_MAPS, document, new, f"m{number}", now=NOW + timedelta(minutes=number))
    names = [e["manager"] for e in entries(document)]
    assert len(names) == 10
    assert names[0] == "ancient-changes"
    assert names[-1] == "m13"
    assert set(fields(document, "ancient-changes")["f:data"]) == {"f:k0", "f:k1", "f:k2", "f:k3", "f:k4"}


# --- apply


def wanted(**spec: Any) -> Document:
    given = {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, **spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": given,
    }


def with_containers(*listed: Document) -> Document:
    return {"template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": list(listed)}}}


def test_an_object_that_is_not_there_is_created() -> None:
    asked = wanted(**with_containers({"name": "web", "image": "a", "ports": [{"containerPort": 80}]}))
    result = put(DEPLOYMENTS, None, asked, api_version="apps/v1")
    (entry,) = entries(result)
    assert (entry["operation"], entry["apiVersion"], entry["manager"]) == ("Apply", "apps/v1", "a")
    port = 'k:{"containerPort":80,"protocol":"TCP"}'
    assert entry["fieldsV1"] == {
        "f:spec": {
            "f:replicas": {},
            "f:selector": {},
            "f:template": {
                "f:metadata": {"f:labels": {"f:app": {}}},
                "f:spec": {
                    "f:containers": {
                        'k:{"name":"web"}': {
                            ".": {},
                            "f:image": {},
                            "f:name": {},
                            "f:ports": {port: {".": {}, "f:containerPort": {}}},
                        }
                    }
                },
            },
        }
    }
    del result["metadata"]["managedFields"]
    assert result == asked


def test_what_others_set_stays() -> None:
    live = track(DEPLOYMENTS, None, deployment(replicas=2, paused=True), "user")
    result = put(DEPLOYMENTS, live, wanted(**with_containers({"name": "sidecar", "image": "b"})))
    assert result["spec"]["paused"] is True
    assert [c["name"] for c in result["spec"]["template"]["spec"]["containers"]] == ["web", "sidecar"]


def test_what_is_no_longer_applied_goes() -> None:
    first = wanted(
        paused=True, **with_containers({"name": "a", "image": "x:1"}, {"name": "b", "image": "x:1", "tty": True})
    )
    live = put(DEPLOYMENTS, None, first)
    # Defaults belong to nobody, and go with what they are in.
    apply_defaults(resources.DEPLOYMENTS, live)
    result = put(DEPLOYMENTS, live, wanted(**with_containers({"name": "b", "image": "x:1"})))
    assert "paused" not in result["spec"]
    (left,) = result["spec"]["template"]["spec"]["containers"]
    assert (left["name"], left["imagePullPolicy"]) == ("b", "IfNotPresent")
    assert "tty" not in left


def test_what_others_own_too_stays() -> None:
    live = put(DEPLOYMENTS, None, wanted(paused=True), "a")
    live = put(DEPLOYMENTS, live, wanted(paused=True), "b")
    assert [e["manager"] for e in entries(live)] == ["a", "b"]
    result = put(DEPLOYMENTS, live, wanted(), "a")
    assert result["spec"]["paused"] is True
    assert "f:paused" not in fields(result, "a")["f:spec"]
    result = put(DEPLOYMENTS, result, wanted(), "b")
    assert "paused" not in result["spec"]


def test_defaults_come_back_for_what_goes() -> None:
    live = put(DEPLOYMENTS, None, wanted(strategy={"type": "Recreate"}))
    result = put(DEPLOYMENTS, live, wanted())
    assert "strategy" not in result["spec"]
    apply_defaults(resources.DEPLOYMENTS, result)
    assert result["spec"]["strategy"]["type"] == "RollingUpdate"


def test_a_conflict() -> None:
    live = track(DEPLOYMENTS, None, deployment(replicas=5), "kubectl-client-side-apply", api_version="apps/v1")
    with pytest.raises(StatusError) as caught:
        put(DEPLOYMENTS, live, wanted())
    error = caught.value
    message = 'Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using apps/v1: .spec.replicas'
    assert (error.code, error.reason, error.message) == (409, "Conflict", message)
    assert error.document()["details"]["causes"] == [
        {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "kubectl-client-side-apply" using apps/v1',
            "field": ".spec.replicas",
        }
    ]


def test_several_conflicts() -> None:
    live = track(DEPLOYMENTS, None, deployment(replicas=5), "first", api_version="apps/v1")
    scaled = copy_json(live)
    scaled["spec"]["replicas"] = 6
    live = track(DEPLOYMENTS, live, scaled, "hpa", api_version="apps/v1", subresource="scale")
    live = put(DEPLOYMENTS, live, {**wanted(minReadySeconds=3, replicas=6)}, "applier")
    asked = wanted(replicas=7, minReadySeconds=4, **with_containers({"name": "web", "image": "other"}))
    with pytest.raises(StatusError) as caught:
        put(DEPLOYMENTS, live, asked)
    assert caught.value.message == (
        "Apply failed with 4 conflicts: "
        'conflicts with "applier":\n- .spec.minReadySeconds\n- .spec.replicas\n'
        'conflicts with "first" using apps/v1:\n- .spec.template.spec.containers[name="web"].image\n'
        'conflicts with "hpa" with subresource "scale" using apps/v1:\n- .spec.replicas'
    )


def test_force_takes_over() -> None:
    live = track(DEPLOYMENTS, None, deployment(replicas=5), "first")
    result = put(DEPLOYMENTS, live, wanted(), force=True)
    assert result["spec"]["replicas"] == 2
    assert "f:replicas" not in fields(result, "first")["f:spec"]
    assert "f:replicas" in fields(result)["f:spec"]


def test_agreeing_is_no_conflict() -> None:
    live = track(DEPLOYMENTS, None, deployment(replicas=2), "first")
    result = put(DEPLOYMENTS, live, wanted())
    assert "f:replicas" in fields(result, "first")["f:spec"]
    assert "f:replicas" in fields(result)["f:spec"]


def test_the_same_again_changes_nothing() -> None:
    live = put(DEPLOYMENTS, None, wanted(**with_containers({"name": "a", "image": "x:1"})))
    again = put(DEPLOYMENTS, live, wanted(**with_containers({"name": "a", "image": "x:1"})), now=LATER)
    assert again == live
    changed = put(DEPLOYMENTS, live, wanted(replicas=3), now=LATER)
    assert entries(changed)[0]["time"] == "2026-11-20T11:00:00Z"


def test_objects_without_records_were_somebodys() -> None:
    with pytest.raises(StatusError) as caught:
        put(DEPLOYMENTS, deployment(replicas=5), wanted(), api_version="apps/v1")
    assert 'conflict with "before-first-apply" using apps/v1: .spec.replicas' in caught.value.message
    result = put(DEPLOYMENTS, deployment(replicas=5), wanted(), force=True)
    assert [e["manager"] for e in entries(result)] == ["a", "before-first-apply"]


def test_appliers_are_the_same_whatever_version_they_use() -> None:
    live = put(DEPLOYMENTS, None, wanted(paused=True), api_version="apps/v1beta1")
    result = put(DEPLOYMENTS, live, wanted(), api_version="apps/v1")
    assert [e["apiVersion"] for e in entries(result)] == ["apps/v1"]
    assert "paused" not in result["spec"]


def test_an_applied_status_is_left_out_and_through_its_subresource_it_is_all() -> None:
    live = put(DEPLOYMENTS, None, {**wanted(), "status": {"replicas": 5}})
    assert "status" not in live
    result = put(DEPLOYMENTS, live, {"status": {"replicas": 5}}, "controller", subresource="status")
    assert result["status"] == {"replicas": 5}
    assert result["spec"] == live["spec"]
    assert fields(result, "controller") == {"f:status": {"f:replicas": {}}}


def test_the_order_of_applied_items() -> None:
    def service(*ports: int) -> Document:
        return {"metadata": {"name": "x"}, "spec": {"ports": [{"name": f"p{p}", "port": p} for p in ports]}}

    live = put(SERVICES, None, service(1, 2), "a")
    live = put(SERVICES, live, service(3), "b")
    result = put(SERVICES, live, service(4, 2, 1), "a")
    assert [p["port"] for p in result["spec"]["ports"]] == [4, 2, 1, 3]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"metadata": {"managedFields": [{"manager": "x"}]}}, "metadata.managedFields must be nil"),
        ({"spec": {"containers": [{"image": "x"}]}}, '.spec.containers: associative list with keys has an element that omits key field "name"'),
        ({"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}, '.spec.containers: duplicate entries for key [name="a"]'),
        ({"spec": {"containers": [{"name": "a", "ports": [{"protocol": "TCP"}]}]}}, '.spec.containers[name="a"].ports: associative list with keys has an element that omits key field "containerPort"'),
        ({"spec": {"containers": ["a"]}}, 'an item that is not an object has no key field "name"'),
        ({"metadata": {"finalizers": ["a", "a"]}}, '.metadata.finalizers: duplicate entries for key [="a"]'),
    ],
)  # fmt: skip
def test_configurations_that_cannot_be_merged(asked: Document, message: str) -> None:
    for live in (None, track(PODS, None, pod())):
        with pytest.raises(StatusError) as caught:
            put(PODS, live, asked)
        assert caught.value.code == 400
        assert message in caught.value.message


def test_paths_as_people_read_them() -> None:
    path = ("f:spec", 'k:{"containerPort":80,"protocol":"TCP"}', "f:x", 'v:"a"', "v:1", "i:3")
    assert shown(path) == '.spec[containerPort=80,protocol="TCP"].x[="a"][=1][3]'
