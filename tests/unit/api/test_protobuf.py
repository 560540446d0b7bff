"""Protobuf bodies: recordings of kubectl 1.37, and forms of values."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from kybern.api import protobuf
from kybern.api.errors import StatusError
from kybern.api.protobuf import decode_protobuf, fields_of, message_name, messages
from kybern.api.pruning import conform
from kybern.api.schema import load_kind

# The command (after `kubectl`), and the body that it sent.
RECORDED = json.loads(Path(__file__).with_name("kubectl_bodies.json").read_text())


def recorded(command: str) -> dict[str, Any]:
    return decode_protobuf(base64.b64decode(next(r["body"] for r in RECORDED if r["command"] == command)))


@pytest.mark.parametrize("entry", RECORDED, ids=lambda e: e["command"].replace(" ", "-"))
def test_what_kubectl_sends_is_in_order(entry: dict[str, str]) -> None:
    document = decode_protobuf(base64.b64decode(entry["body"]))
    group, _, version = document["apiVersion"].rpartition("/")
    found = conform(load_kind(group, version, document["kind"]), document)
    assert (found.unknown, found.causes) == ([], [])


def test_a_deployment_whose_zero_replicas_are_meant() -> None:
    assert recorded("create deployment --replicas=0 --port") == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [
                        {
                            "name": "nginx",
                            "image": "nginx:1.25",
                            "command": ["sleep", "1"],
                            "ports": [{"containerPort": 80}],
                        }
                    ]
                },
            },
        },
    }


def test_secrets_hold_base64() -> None:
    assert recorded("create secret generic")["data"] == {"a": "Yg==", "c": ""}


def test_ports_are_numbers_or_names() -> None:
    assert recorded("create service clusterip")["spec"]["ports"] == [
        {"name": "80-8080", "protocol": "TCP", "port": 80, "targetPort": 8080}
    ]
    assert recorded("create service nodeport")["spec"]["ports"][0]["targetPort"] == "http"


def test_inlined_structs_quantities_and_embedded_lists() -> None:
    rules = recorded("create ingress")["spec"]["rules"]
    assert rules[0]["http"]["paths"][0]["backend"] == {"service": {"name": "svc", "port": {"number": 80}}}
    assert recorded("create quota")["spec"]["hard"] == {"cpu": "500m", "pods": "3"}
    assert recorded("create poddisruptionbudget")["spec"]["minAvailable"] == 1


def test_bodies_of_subresources() -> None:
    assert recorded("create token") == {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 600},
    }


# --- built by hand: tag, length, bytes


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    result = b""
    value &= 2**64 - 1
    while value > 0x7F:
        result += bytes([value & 0x7F | 0x80])
        value >>= 7
    return result + bytes([value])


def body(api_version: str, kind: str, raw: bytes, extra: bytes = b"") -> bytes:
    type_meta = field(1, api_version.encode()) + field(2, kind.encode())
    return b"k8s\0" + field(1, type_meta) + field(2, raw) + extra


def test_times() -> None:
    metadata = field(1, b"x") + field(8, field(1, 1795168800)) + field(9, b"")
    document = decode_protobuf(body("v1", "Pod", field(1, metadata)))
    # An empty time is no time.
    assert document["metadata"] == {"name": "x", "creationTimestamp": "2026-11-20T10:00:00Z"}
    spec = field(1, b"me") + field(4, field(1, 1795168800) + field(2, 123456789))
    lease = decode_protobuf(body("coordination.k8s.io/v1", "Lease", field(2, spec)))
    assert lease["spec"] == {"holderIdentity": "me", "renewTime": "2026-11-20T10:00:00.123456Z"}


def test_negative_numbers_and_packed_lists() -> None:
    security = field(1, b"") + field(2, -1) + field(4, varint(5) + varint(6)) + field(4, 7)
    document = decode_protobuf(body("v1", "Pod", field(2, field(14, security))))
    assert document["spec"]["securityContext"] == {
        "seLinuxOptions": {},
        "runAsUser": -1,
        "supplementalGroups": [5, 6, 7],
    }


def test_options_of_a_delete_under_any_group() -> None:
    raw = field(1, 0) + field(4, b"Foreground") + field(5, b"All")
    for version in ("v1", "apps/v1", "meta.k8s.io/v1"):
        assert decode_protobuf(body(version, "DeleteOptions", raw)) == {
            "apiVersion": version,
            "kind": "DeleteOptions",
            "gracePeriodSeconds": 0,
            "propagationPolicy": "Foreground",
            "dryRun": ["All"],
        }


def test_zero_values() -> None:
    port = field(1, b"") + field(2, 0) + field(3, 0) + field(4, b"TCP")
    container = field(1, b"c") + field(16, 0) + field(6, port) + field(8, b"")
    document = decode_protobuf(body("v1", "Pod", field(2, field(2, container) + field(11, 0) + field(4, 0))))
    assert document["spec"] == {
        "containers": [{"name": "c", "ports": [{"containerPort": 0, "protocol": "TCP"}]}],
        "terminationGracePeriodSeconds": 0,
    }


def test_volumes_and_probes_are_inlined() -> None:
    volume = field(1, b"v") + field(2, field(2, b""))
    probe = field(1, field(2, field(2, field(1, 1) + field(3, b"http")))) + field(4, 5)
    spec = field(1, volume) + field(2, field(1, b"c") + field(10, probe))
    document = decode_protobuf(body("v1", "Pod", field(2, spec)))
    assert document["spec"]["volumes"] == [{"name": "v", "emptyDir": {}}]
    assert document["spec"]["containers"][0]["livenessProbe"] == {"httpGet": {"port": "http"}, "periodSeconds": 5}


def test_embedded_objects() -> None:
    inner = body("v1", "ConfigMap", field(1, field(1, b"x")))
    for raw, wanted in (
        (b'{"a":1}', {"a": 1}),
        (inner, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}),
    ):
        document = decode_protobuf(body("apps/v1", "ControllerRevision", field(2, field(1, raw)) + field(3, 2)))
        assert (document["data"], document["revision"]) == (wanted, 2)


def test_an_envelope_with_json() -> None:
    raw = body("v1", "Pod", b'{"metadata":{"name":"x"}}', field(4, b"application/json"))
    assert decode_protobuf(raw) == {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}


def test_unknown_fields_are_skipped() -> None:
    raw = (
        field(1, field(1, b"x")) + field(99, b"new") + field(98, 7) + b"\xc1\x06" + b"12345678" + b"\xc5\x06" + b"1234"
    )
    assert decode_protobuf(body("v1", "Namespace", raw))["metadata"] == {"name": "x"}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "does not begin with the bytes 'k8s"),
        (b'{"kind":"Pod"}', "does not begin with the bytes 'k8s"),
        (b"k8s\0\x12\xff", "a number is cut off"),
        (b"k8s\0\x12\x05ab", "a field is cut off"),
        (b"k8s\0\x0b", "wire type 3 is not used"),
        (b"k8s\0" + b"\xff" * 11, "a number is cut off or too long"),
        (b"k8s\0\x15ab", "a field is cut off"),
        (b"k8s\0\x10\x01", "kind '' in '' is not known"),
        (body("v1", "Pod", field(1, 5)), "field 'metadata' is of a wrong type"),
        (body("v1", "Pod", field(1, field(1, b"\xff"))), "a text is not UTF-8"),
        (body("v1", "Nothing", b""), "kind 'Nothing' in 'v1' is not known"),
        (body("v1", "Pod", b"", field(3, b"gzip")), "content encoding 'gzip' is not supported"),
        (body("v1", "Pod", b"[", field(4, b"application/json")), "embedded JSON"),
        (body("v1", "Pod", b"[]", field(4, b"application/json")), "embedded JSON must be an object"),
        (body("v1", "Pod", field(1, field(8, field(1, 2**62)))), "a time is out of range"),
        (
            body("v1", "Pod", field(2, field(32, field(1, b"cpu") + field(2, field(1, b"much"))))),
            "'much': quantities must",
        ),
    ],
)
def test_bad_bodies(raw: bytes, message: str) -> None:
    with pytest.raises(StatusError, match="not valid Kubernetes Protobuf") as caught:
        decode_protobuf(raw)
    assert caught.value.code == 400
    assert message in caught.value.message


def test_nesting_is_bounded() -> None:
    raw = b'{"a":1}'
    for _ in range(100):
        raw = body("apps/v1", "ControllerRevision", field(2, field(1, raw)))
    with pytest.raises(StatusError, match="nested too deep"):
        decode_protobuf(raw)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"), (1, "1ns"), (1500, "1.5µs"), (300 * 10**6, "300ms"), (10**9, "1s"), (1500 * 10**6, "1.5s"),
        (90 * 10**9, "1m30s"), (3600 * 10**9, "1h0m0s"), (-5 * 10**9, "-5s"), (3661 * 10**9 + 10**6, "1h1m1.001s"),
    ],
)  # fmt: skip
def test_durations_are_written_as_go_does(nanoseconds: int, text: str) -> None:
    assert protobuf._duration(field(1, nanoseconds), 0) == text


def test_names_of_messages() -> None:
    assert message_name("v1", "Pod") == "core.v1.Pod"
    assert message_name("rbac.authorization.k8s.io/v1", "Role") == "rbac.v1.Role"
    assert message_name("flowcontrol.apiserver.k8s.io/v1", "FlowSchema") == "flowcontrol.v1.FlowSchema"
    assert message_name("example.com/v1", "Foo") is None


def test_the_table_has_every_message_of_the_served_versions() -> None:
    assert len(messages()) > 650
    assert fields_of("core.v1.Secret")["data"].type == "map<string,bytes>"
    assert fields_of("core.v1.Volume")["volumeSource"].mark == "inline"
