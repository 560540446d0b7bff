"""Protobuf bodies: what google.protobuf writes by the same field numbers is read back."""

from __future__ import annotations

import base64
import re
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory
from hypothesis import given
from hypothesis import strategies as st

from kybern.api import protobuf, resources, schema
from kybern.api.errors import StatusError
from tests.property.api import strategies

_TYPES = {
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
    "int32": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
}
_MAP = re.compile(r"map<string,(.+)>")


def flat(name: str) -> str:
    return name.replace(".", "_")


def add_field(target: Any, name: str, field: protobuf.Field) -> None:
    made = target.field.add(name=f"f{field.number}", number=field.number)
    kind = field.type
    mapped = _MAP.fullmatch(kind)
    made.label = made.LABEL_REPEATED if mapped or kind.startswith("repeated ") else made.LABEL_OPTIONAL
    kind = kind.removeprefix("repeated ")
    if mapped:
        entry = target.nested_type.add(name=f"F{field.number}Entry")
        entry.options.map_entry = True
        add_field(entry, "key", protobuf.Field(1, "string"))
        add_field(entry, "value", protobuf.Field(2, mapped.group(1)))
        entry.field[0].name, entry.field[1].name = "key", "value"
        made.type, made.type_name = made.TYPE_MESSAGE, f".t.{target.name}.{entry.name}"
    elif kind in _TYPES:
        made.type = _TYPES[kind]
    else:
        made.type, made.type_name = made.TYPE_MESSAGE, f".t.{flat(kind)}"


@cache
def classes() -> dict[str, type[message.Message]]:
    """A message class of google.protobuf for every message of the table."""
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto2")
    for name in protobuf.messages():
        target = file.message_type.add(name=flat(name))
        for field_name, field in protobuf.fields_of(name).items():
            add_field(target, field_name, field)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"t.{flat(name)}"))
        for name in protobuf.messages()
    }


# --- documents and their messages, side by side

_LISTS = ("Verbs", "ExtraValue", "AttestationValue")
_EMBEDDED = ("runtime.RawExtension", "apis.meta.v1.FieldsV1")


@st.composite
def values(draw: st.DrawFn, kind: str, depth: int) -> tuple[Any, Any]:
    """A JSON value, and what it is in a message."""
    match kind:
        case "string":
            text = draw(st.text(min_size=1, max_size=5))
            return text, text
        case "bytes":
            data = draw(st.binary(min_size=1, max_size=5))
            return base64.b64encode(data).decode(), data
        case "int32" | "int64":
            bits = int(kind[3:]) - 1
            number = draw(st.integers(-(2**bits), 2**bits - 1))
            return number, number
        case "bool":
            flag = draw(st.booleans())
            return flag, flag
        case "api.resource.Quantity" | "api.resource.QuantityValue":
            text = draw(strategies.QUANTITIES)
            return text, filled(kind, {"string": text})
        case "util.intstr.IntOrString":
            number, text = draw(st.integers(-5, 2**31 - 1)), draw(st.text(max_size=3))
            if draw(st.booleans()):
                return number, filled(kind, {"type": 0, "intVal": number})
            return text, filled(kind, {"type": 1, "strVal": text})
        case "apis.meta.v1.Time":
            seconds = draw(st.integers(1, 4102444800))
            return protobuf._time(filled(kind, {"seconds": seconds}).SerializeToString(), 0), filled(
                kind, {"seconds": seconds, "nanos": 0}
            )
        case "apis.meta.v1.MicroTime":
            made = filled(kind, {"seconds": draw(st.integers(1, 4102444800)), "nanos": 5000})
            return protobuf._micro_time(made.SerializeToString(), 0), made
    if kind in _EMBEDDED:
        return {"a": 1}, filled(kind, {"raw" if kind.startswith("runtime") else "Raw": b'{"a":1}'})
    if kind.rpartition(".")[2] in _LISTS:
        listed = draw(st.lists(st.text(max_size=2), min_size=1, max_size=2))
        return listed, filled(kind, {"items": listed})
    return draw(messages(kind, depth))


def filled(kind: str, given_fields: dict[str, Any]) -> Any:
    made = classes()[kind]()
    fields = protobuf.fields_of(kind)
    for name, value in given_fields.items():
        put(made, fields[name], value)
    return made


def put(target: Any, field: protobuf.Field, value: Any) -> None:
    attribute = f"f{field.number}"
    if field.type.startswith("repeated "):
        getattr(target, attribute).extend(value)
    elif isinstance(value, message.Message):
        getattr(target, attribute).CopyFrom(value)
    else:
        setattr(target, attribute, value)


@st.composite
def messages(draw: st.DrawFn, kind: str, depth: int) -> tuple[dict[str, Any], Any]:
    """A document, and its message."""
    document: dict[str, Any] = {}
    made = classes()[kind]()
    fields = protobuf.fields_of(kind)
    for name in draw(st.lists(st.sampled_from(sorted(fields)), unique=True, max_size=4)) if fields else []:
        field = fields[name]
        scalar = field.type.removeprefix("repeated ") in _TYPES
        if depth <= 0 and not scalar:
            continue
        draw_field(draw, document, made, name, field, depth)
    for name, field in fields.items():
        if field.mark == "always":
            document.setdefault(name, False if field.type == "bool" else 0)
    return document, made


def draw_field(
    draw: st.DrawFn, document: dict[str, Any], made: Any, name: str, field: protobuf.Field, depth: int
) -> None:
    mapped = _MAP.fullmatch(field.type)
    if mapped:
        keys = draw(st.lists(st.text(max_size=3), unique=True, min_size=1, max_size=2))
        document[name] = {}
        for key in keys:
            document[name][key], value = draw(values(mapped.group(1), depth - 1))
            target = getattr(made, f"f{field.number}")
            if isinstance(value, message.Message):
                target[key].CopyFrom(value)
            else:
                target[key] = value
    elif field.type.startswith("repeated "):
        drawn = draw(st.lists(values(field.type.removeprefix("repeated "), depth - 1), min_size=1, max_size=2))
        document[name] = [json_value for json_value, _ in drawn]
        getattr(made, f"f{field.number}").extend([value for _, value in drawn])
    else:
        json_value, value = draw(values(field.type, depth - 1))
        put(made, field, value)
        if field.mark == "inline":
            document.update(json_value)
        elif json_value or json_value == "0" or field.mark in ("optional", "always"):
            document[name] = json_value


def enveloped(api_version: str, kind: str, raw: bytes) -> bytes:
    type_meta = filled("runtime.TypeMeta", {"apiVersion": api_version, "kind": kind})
    return b"k8s\0" + bytes(filled("runtime.Unknown", {"typeMeta": type_meta, "raw": raw}).SerializeToString())


KINDS = [
    ("v1", "Pod"), ("v1", "Service"), ("v1", "Secret"), ("v1", "Node"), ("v1", "Event"), ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"), ("batch/v1", "CronJob"), ("discovery.k8s.io/v1", "EndpointSlice"),
    ("coordination.k8s.io/v1", "Lease"), ("v1", "DeleteOptions"), ("networking.k8s.io/v1", "Ingress"),
    ("rbac.authorization.k8s.io/v1", "Role"), ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("authorization.k8s.io/v1", "SubjectAccessReview"), ("resource.k8s.io/v1", "ResourceClaim"),
    ("apiextensions.k8s.io/v1", "DeleteOptions"),
]  # fmt: skip


@given(st.data())
@strategies.examples(300)
def test_what_google_protobuf_writes_is_read(data: st.DataObject) -> None:
    api_version, kind = data.draw(st.sampled_from(KINDS))
    name = protobuf.message_name(api_version, kind)
    assert name is not None
    document, made = data.draw(messages(name, 4))
    wanted = {"apiVersion": api_version, "kind": kind, **document}
    assert protobuf.decode_protobuf(enveloped(api_version, kind, made.SerializeToString())) == wanted


@given(st.data())
@strategies.examples(300)
def test_damaged_bodies_are_refused_or_read_but_never_crash(data: st.DataObject) -> None:
    _, made = data.draw(messages("core.v1.Pod", 4))
    body = bytearray(enveloped("v1", "Pod", made.SerializeToString()))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(4, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(4, len(body)))
    try:
        protobuf.decode_protobuf(bytes(body[:cut]))
    except StatusError as error:
        assert error.code == 400


def test_the_table_names_known_types_and_each_number_once() -> None:
    known = set(protobuf.messages())
    for name in known:
        fields = protobuf.fields_of(name)
        numbers = [f.number for f in fields.values()]
        assert len(set(numbers)) == len(numbers), name
        for field in fields.values():
            mapped = _MAP.fullmatch(field.type)
            kind = mapped.group(1) if mapped else field.type.removeprefix("repeated ")
            assert kind in _TYPES or kind in known, (name, field)
            assert field.mark in ("", "inline", "optional", "always"), (name, field)


def test_the_table_agrees_with_the_schemas() -> None:
    """The JSON names of the table are the names in the definitions, kind by kind."""
    for resource in resources.BUILT_IN:
        root = protobuf.message_name(resource.api_version, resource.kind)
        assert root is not None, resource
        compare(root, schema.load(resource), set())


def compare(name: str, node: schema.Schema, seen: set[str]) -> None:
    if name in seen or not node.properties:
        return
    seen.add(name)
    for field_name, field in protobuf.fields_of(name).items():
        kind = field.type.removeprefix("repeated ")
        if field.mark == "inline":
            compare(kind, node, seen)
            continue
        child = node.properties.get(field_name)
        assert child is not None, (name, field_name)
        if field.type.startswith("repeated "):
            assert child.type is schema.SchemaType.ARRAY, (name, field_name)
            child = child.items
        elif kind.startswith("map<"):
            assert child.is_map, (name, field_name)
            continue
        assert child is not None
        match kind:
            case "int32" | "int64":
                assert child.type is schema.SchemaType.INTEGER, (name, field_name)
            case "bool":
                assert child.type is schema.SchemaType.BOOLEAN, (name, field_name)
            case _ if kind not in _TYPES:
                compare(kind, child, seen)
