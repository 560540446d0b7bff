"""Every daemon tells a client that knows nothing of it what it serves; a Pod is readable that way."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from kybern.cli.cluster import Layout
from lab.state import ETCD
from tests.lab.cluster.clusters import Cluster, chosen_store

pytestmark = pytest.mark.lab


@contextlib.contextmanager
def channel(cluster: Cluster, address: str, cert: str, ca: str) -> Iterator[grpc.Channel]:
    """A channel with one of the first master's certificates."""
    etc = cluster.lab.etc("m1")
    tls = Layout(etc, etc).tls(cert, ca)
    credentials = grpc.ssl_channel_credentials(tls.ca.read_bytes(), tls.key.read_bytes(), tls.cert.read_bytes())
    with grpc.secure_channel(address, credentials) as opened:
        yield opened


DAEMONS = [
    ("m1", 6444, "admin", "ca", {"kybern.v1.Objects"}),
    ("n1", 10250, "master-client", "ca", {"kybern.v1.NodeAgent"}),
]
if chosen_store() != ETCD:  # it has no reflection
    STORE = {"etcdserverpb.KV", "etcdserverpb.Watch", "etcdserverpb.Lease"}
    DAEMONS.append(("m1", 2379, "store-client", "store-ca", STORE))


@pytest.mark.parametrize(("host", "port", "cert", "ca", "expected"), DAEMONS)
def test_daemons_list_their_services(
    cluster: Cluster, host: str, port: int, cert: str, ca: str, expected: set[str]
) -> None:
    with channel(cluster, f"{cluster.lab.subnet.host(host)}:{port}", cert, ca) as opened:
        found = set(ProtoReflectionDescriptorDatabase(opened).get_services())
    assert expected | {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} <= found


def test_a_pod_is_readable_with_nothing_but_reflection(hello: Cluster) -> None:
    name = hello.live("app=hello")[0]["metadata"]["name"]
    with channel(hello, f"{hello.lab.subnet.machine}:6444", "admin", "ca") as opened:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(opened))
        method = pool.FindServiceByName("kybern.v1.Objects").FindMethodByName("Get")
        request = GetMessageClass(method.input_type)()
        question = {"resource": {"version": "v1", "resource": "pods"}, "namespace": "default", "name": name}
        json_format.ParseDict(question, request, descriptor_pool=pool)
        call: Any = opened.unary_unary(
            "/kybern.v1.Objects/Get",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        answer = json_format.MessageToDict(call(request, timeout=10), descriptor_pool=pool)
    assert (answer["kind"], answer["metadata"]["name"]) == ("Pod", name)
    assert answer["metadata"]["labels"]["app"] == "hello"
    container = answer["fields"]["spec"]["containers"][0]
    assert container["image"] == "kybern/hello:1"
    # A Struct knows only doubles; those of integer fields are whole.
    assert container["ports"][0]["containerPort"] == 8080
    assert float(container["ports"][0]["containerPort"]).is_integer()
