"""The door as HTTP clients see it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import ssl
from typing import Any

import aiohttp
import pytest

from kybern.api.errors import expired, unavailable
from kybern.api.resources import CONFIG_MAPS, DEPLOYMENTS, NAMESPACES, PODS
from kybern.daemon import StartupError
from master.apiserver.interface import WriteOptions
from master.rest.server import RestServer
from tests.integration.rest.double import DoubleAuthenticator, DoubleHandlers
from tests.integration.rest.serving import Served

TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
PARTIAL = {"Accept": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}
MAPS = "/api/v1/namespaces/default/configmaps"


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default", "labels": {"l": name}}, "data": data}


@pytest.mark.parametrize(
    ("method", "path", "headers", "code", "reason"),
    [
        ("GET", "/nowhere", {}, 404, "NotFound"),
        ("GET", "/api/v2", {}, 404, "NotFound"),
        ("GET", "/api/v1/things", {}, 404, "NotFound"),
        ("GET", "/apis/apps/v9/deployments", {}, 404, "NotFound"),
        ("GET", "/apis/nobody", {}, 404, "NotFound"),
        ("GET", "/openapi/v3/apis/nobody/v1", {}, 404, "NotFound"),
        ("GET", f"{MAPS}/none", {}, 404, "NotFound"),
        ("GET", f"{MAPS}/none/scale", {}, 404, "NotFound"),
        ("GET", "/api/v1/pods/p", {}, 404, "NotFound"),
        ("GET", "/api/v1/namespaces/default/nodes", {}, 404, "NotFound"),
        ("GET", "/api/v1/namespaces/d/pods/p/proxy/x", {}, 404, "NotFound"),
        ("PUT", MAPS, {}, 405, "MethodNotAllowed"),
        ("POST", f"{MAPS}/x", {}, 405, "MethodNotAllowed"),
        ("POST", "/api/v1/configmaps", {}, 405, "MethodNotAllowed"),
        ("DELETE", "/api/v1/configmaps", {}, 405, "MethodNotAllowed"),
        ("DELETE", "/api/v1/namespaces", {}, 405, "MethodNotAllowed"),
        ("OPTIONS", f"{MAPS}/x", {}, 405, "MethodNotAllowed"),
        ("POST", "/api", {}, 405, "MethodNotAllowed"),
        ("GET", MAPS, {"Accept": "text/html"}, 406, "NotAcceptable"),
        ("GET", "/api", {"Accept": "text/html"}, 406, "NotAcceptable"),
        ("POST", MAPS, {"Content-Type": "text/plain"}, 415, "UnsupportedMediaType"),
        ("PATCH", f"{MAPS}/x", {"Content-Type": "application/json"}, 415, "UnsupportedMediaType"),
        ("GET", f"{MAPS}?limit=x", {}, 400, "BadRequest"),
        ("GET", f"{MAPS}?watch=perhaps", {}, 400, "BadRequest"),
        ("GET", f"{MAPS}?includeObject=Some", TABLE, 400, "BadRequest"),
        ("GET", f"{MAPS}?sendInitialEvents=true", {}, 422, "Invalid"),
        ("GET", "/api/v1/namespaces/default/pods/p/exec?command=ls&stdout=1", {}, 400, "BadRequest"),
        ("GET", "/api/v1/namespaces/default/pods/p/log", {}, 404, "NotFound"),
    ],
)
async def test_every_refusal_is_a_status(
    served: Served, method: str, path: str, headers: dict[str, str], code: int, reason: str
) -> None:
    async with served.session() as session, session.request(method, path, headers=headers) as response:
        text = await response.text()
        assert response.status == code, text
        assert response.content_type == "application/json"
        status = json.loads(text)
        assert (status["kind"], status["code"], status["reason"]) == ("Status", code, reason)
        assert text.endswith("}\n")
        assert "\n" not in text[:-1]


async def test_who_may_see_what(served: Served) -> None:
    open_paths = ["/healthz", "/livez", "/readyz", "/version", "/version/"]
    closed_paths = ["/api", "/apis", "/openapi/v3", "/metrics", MAPS, "/nowhere", "/"]
    async with served.session(None) as session:
        for path in open_paths:
            async with session.get(path) as response:
                assert response.status == 200, path
        for path in closed_paths:
            async with session.get(path) as response:
                assert (response.status, (await response.json())["reason"]) == (401, "Unauthorized"), path
        for value, code in [("Bearer good", 200), ("Bearer bad", 401), ("Basic eDp5", 401), ("Bearer ", 401)]:
            async with session.get(MAPS, headers={"Authorization": value}) as response:
                assert response.status == code, value
        async with session.get("/metrics", headers={"Authorization": "Bearer good"}) as response:
            assert response.status == 403
    async with served.session() as session, session.get("/metrics") as response:
        assert 'apiserver_request_total{code="401"' in await response.text()


async def test_a_certificate_of_another_authority_is_refused_by_tls(served: Served) -> None:
    with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
        async with served.session("stranger") as session, session.get("/version") as response:
            await response.read()


async def test_readiness(handlers: DoubleHandlers, served: Served) -> None:
    config = served.config
    ready = False
    await served.server.stop()
    server = RestServer(handlers, DoubleAuthenticator(), config, lambda: ready)
    await server.start()
    async with served.session(None) as session:
        async with session.get("/readyz") as response:
            assert response.status == 500
        ready = True
        async with session.get("/readyz") as response:
            assert (response.status, await response.text()) == (200, "ok")
    await server.stop()


async def test_discovery_and_openapi(served: Served) -> None:
    aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    async with served.session() as session:
        for path, plain in [("/api", "APIVersions"), ("/apis", "APIGroupList")]:
            async with session.get(path, headers={"Accept": f"{aggregated},application/json"}) as response:
                assert (await response.json(content_type=None))["kind"] == "APIGroupDiscoveryList"
                assert response.headers["Content-Type"] == aggregated
                tag = response.headers["ETag"]
            async with session.get(path, headers={"Accept": aggregated, "If-None-Match": tag}) as response:
                assert response.status == 304
            async with session.get(path) as response:
                assert (await response.json())["kind"] == plain
        async with session.get("/apis/apps/v1") as response:
            assert (await response.json())["groupVersion"] == "apps/v1"
        async with session.get("/apis/apps") as response:
            assert (await response.json())["kind"] == "APIGroup"
        async with session.get("/openapi/v3") as response:
            url = (await response.json())["paths"]["apis/apps/v1"]["serverRelativeURL"]
        async with session.get(url) as response:
            assert "Deployment" in await response.text()
            assert "immutable" in response.headers["Cache-Control"]
        async with session.get("/openapi/v3/apis/apps/v1?hash=OLD", allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (301, url)


async def test_a_resource_that_comes_and_goes_is_discovered(handlers: DoubleHandlers, served: Served) -> None:
    async with served.session() as session:
        for count in (True, False, True):
            async with session.get("/apis/apps/v1") as response:
                plurals = [r["name"] for r in (await response.json())["resources"]]
                assert ("deployments" in plurals) is count
            (handlers.registry.remove if count else handlers.registry.add)(DEPLOYMENTS)


async def test_lists_in_pages_and_forms(handlers: DoubleHandlers, served: Served) -> None:
    for name in ("c", "a", "b"):
        handlers.client.put(CONFIG_MAPS, config_map(name, k="v"))
    async with served.session() as session:
        async with session.get(f"{MAPS}?limit=2") as response:
            page = await response.json()
        assert [i["metadata"]["name"] for i in page["items"]] == ["a", "b"]
        assert page["metadata"]["remainingItemCount"] == 1
        async with session.get(MAPS, params={"limit": "2", "continue": page["metadata"]["continue"]}) as response:
            assert [i["metadata"]["name"] for i in (await response.json())["items"]] == ["c"]
        async with session.get(f"{MAPS}?labelSelector=l%20in%20(a,b)&fieldSelector=metadata.name!=a") as response:
            assert [i["metadata"]["name"] for i in (await response.json())["items"]] == ["b"]
        async with session.get(MAPS, headers=TABLE) as response:
            table = await response.json()
            assert [row["cells"][:2] for row in table["rows"]] == [["a", 1], ["b", 1], ["c", 1]]
        async with session.get(f"{MAPS}/a", headers=PARTIAL) as response:
            assert set(await response.json()) == {"kind", "apiVersion", "metadata"}
        async with session.get(f"{MAPS}/a?pretty=true") as response:
            assert '\n  "kind"' in await response.text()
        async with session.head(f"{MAPS}/a") as response:
            assert response.status == 200


async def test_writes(handlers: DoubleHandlers, served: Served) -> None:
    async with served.session() as session:
        body = json.dumps(config_map("a", k="v"))
        # A missing content type is JSON; the user agent names the manager.
        headers = {"User-Agent": "tool/1.0"}
        async with session.post(
            MAPS, data=body.encode(), headers=headers, skip_auto_headers=["Content-Type"]
        ) as response:
            assert response.status == 201, await response.text()
            created = await response.json()
        assert handlers.calls[-1][2] == WriteOptions(field_manager="tool")
        async with session.post(MAPS, data=body, headers={"Content-Type": "application/json"}) as response:
            assert response.status == 409
        created["data"] = {"k": "w"}
        async with session.put(f"{MAPS}/a", json=created) as response:
            assert (response.status, (await response.json())["data"]) == (200, {"k": "w"})
        async with session.put(f"{MAPS}/a", json=created) as response:
            assert (response.status, (await response.json())["reason"]) == (409, "Conflict")
        patch = {"Content-Type": "application/merge-patch+json"}
        async with session.patch(f"{MAPS}/a?dryRun=All", data='{"data":{"k":null}}', headers=patch) as response:
            assert "data" not in await response.json() or not (await response.json())["data"]
        apply = {"Content-Type": "application/apply-patch+yaml"}
        async with session.patch(f"{MAPS}/n?fieldManager=m", data="metadata: {name: n}", headers=apply) as response:
            assert response.status == 201
        async with session.patch(f"{MAPS}/n", data="metadata: {name: n}", headers=apply) as response:
            assert response.status == 422
        secret = {"metadata": {"name": "s"}, "type": "Opaque"}
        async with session.post("/api/v1/namespaces/default/secrets", json=secret) as response:
            assert response.headers.getall("Warning") == ['299 - "say \\"hi\\" "']


async def test_what_deletions_answer_with(handlers: DoubleHandlers, served: Served) -> None:
    handlers.client.put(CONFIG_MAPS, config_map("a"))
    handlers.client.put(PODS, {"metadata": {"name": "p", "namespace": "default"}, "spec": {"nodeName": "n1"}})
    held = config_map("held")
    held["metadata"]["finalizers"] = ["ex.io/x"]
    handlers.client.put(CONFIG_MAPS, held)
    handlers.client.put(NAMESPACES, {"metadata": {"name": "ns"}})
    async with served.session() as session:
        async with session.delete(f"{MAPS}/a", json={"propagationPolicy": "Background"}) as response:
            status = await response.json()
            assert (response.status, status["status"]) == (200, "Success")
            assert status["details"] == {"name": "a", "kind": "configmaps", "uid": status["details"]["uid"]}
        # Not gone yet: the object itself, so that its state can be seen.
        async with session.delete(f"{MAPS}/held?propagationPolicy=Foreground") as response:
            assert (response.status, (await response.json())["kind"]) == (202, "ConfigMap")
        async with session.delete("/api/v1/namespaces/default/pods/p?gracePeriodSeconds=0") as response:
            assert (response.status, (await response.json())["kind"]) == (200, "Pod")
        async with session.delete(f"{MAPS}?labelSelector=l=held") as response:
            assert (await response.json())["status"] == "Success"
        wrong = {"preconditions": {"uid": "other"}}
        async with session.delete("/api/v1/namespaces/ns", json=wrong) as response:
            assert response.status == 409


async def test_bodies_have_a_bound(served: Served) -> None:
    async with served.session() as session:
        big = b'{"data":{"k":"' + b"x" * (3 * 1024 * 1024) + b'"}}'
        async with session.post(MAPS, data=io.BytesIO(big), headers={"Content-Type": "application/json"}) as response:
            assert (response.status, (await response.json())["reason"]) == (413, "RequestEntityTooLarge")


async def test_a_fault_of_the_server_is_a_status_and_a_line_in_the_log(
    handlers: DoubleHandlers, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    handlers.client.fail_next("get", ZeroDivisionError("secret detail"))
    handlers.client.fail_next("list", unavailable("no leader", 3))
    async with served.session() as session:
        async with session.get(f"{MAPS}/a") as response:
            text = await response.text()
            assert (response.status, json.loads(text)["reason"]) == (500, "InternalError")
            assert "secret detail" not in text
        async with session.get(MAPS) as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "3")
    assert "ZeroDivisionError" in caplog.text


async def read_event(response: aiohttp.ClientResponse) -> dict[str, Any]:
    async with asyncio.timeout(10):
        event: dict[str, Any] = json.loads(await response.content.readline())
        return event


async def test_a_watch_sees_changes_in_order(handlers: DoubleHandlers, served: Served) -> None:
    handlers.client.put(CONFIG_MAPS, config_map("a"))
    async with served.session() as session, session.get(f"{MAPS}?watch=1&allowWatchBookmarks=true") as response:
        assert (await read_event(response))["type"] == "ADDED"
        handlers.client.put(CONFIG_MAPS, config_map("a", k="v"))
        await handlers.client.delete(CONFIG_MAPS, "a", "default")
        modified, deleted = await read_event(response), await read_event(response)
        assert (modified["type"], modified["object"]["data"]) == ("MODIFIED", {"k": "v"})
        assert deleted["type"] == "DELETED"
        handlers.client.break_watches(expired("too old resource version"))
        error = await read_event(response)
        assert (error["type"], error["object"]["code"], error["object"]["reason"]) == ("ERROR", 410, "Expired")
        assert await response.content.read() == b""


async def test_a_watch_of_tables_has_its_columns_once(handlers: DoubleHandlers, served: Served) -> None:
    handlers.client.put(CONFIG_MAPS, config_map("a"))
    async with served.session() as session, session.get(f"{MAPS}?watch=1", headers=TABLE) as response:
        first = await read_event(response)
        handlers.client.put(CONFIG_MAPS, config_map("b", k="v"))
        second = await read_event(response)
    assert [e["object"]["kind"] for e in (first, second)] == ["Table", "Table"]
    assert [len(e["object"]["columnDefinitions"]) for e in (first, second)] == [3, 0]
    assert second["object"]["rows"][0]["cells"][:2] == ["b", 1]
    assert second["object"]["metadata"]["resourceVersion"] == "3"


async def test_a_watch_list_ends_its_beginning_with_a_bookmark(handlers: DoubleHandlers, served: Served) -> None:
    handlers.client.put(CONFIG_MAPS, config_map("a"))
    query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    async with served.session() as session, session.get(f"{MAPS}?{query}") as response:
        assert (await read_event(response))["type"] == "ADDED"
        bookmark = await read_event(response)
    assert bookmark["type"] == "BOOKMARK"
    assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_a_watch_that_is_refused_has_a_status_of_its_own(handlers: DoubleHandlers, served: Served) -> None:
    handlers.client.compact()
    handlers.client.put(CONFIG_MAPS, config_map("a"))
    handlers.client.compact()
    async with served.session() as session, session.get(f"{MAPS}?watch=1&resourceVersion=1") as response:
        assert (response.status, (await response.json())["reason"]) == (410, "Expired")


async def test_a_watch_ends_cleanly_when_its_time_is_up(served: Served) -> None:
    async with served.session() as session:
        async with session.get(f"{MAPS}?watch=1&resourceVersion=1&timeoutSeconds=1") as response:
            assert (response.status, await response.read()) == (200, b"")
        # The connection is good for more.
        async with session.get(MAPS) as response:
            assert response.status == 200


async def test_a_client_that_leaves_ends_its_watch(handlers: DoubleHandlers, served: Served) -> None:
    async with served.session() as session:
        response = await session.get(f"{MAPS}?watch=1&resourceVersion=1")
        assert len(handlers.client._watchers) == 1
        response.close()
        async with asyncio.timeout(10):
            while handlers.client._watchers:  # noqa: ASYNC110 - the fake has no event for it
                await asyncio.sleep(0.01)


async def test_stopping_ends_watches(handlers: DoubleHandlers, served: Served) -> None:
    async with served.session() as session, session.get(f"{MAPS}?watch=1&resourceVersion=1") as response:
        stopping = asyncio.create_task(served.server.stop())
        async with asyncio.timeout(10):
            assert await response.read() == b""
            await stopping
    assert not handlers.client._watchers


async def test_bytes_that_are_not_http_harm_nothing(served: Served) -> None:
    host, _, port = served.config.rest_address.rpartition(":")
    junk = [b"\0" * 1000, os.urandom(2000), b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\xff\xff" + os.urandom(300)]
    for data in junk:
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(data)
        await writer.drain()
        writer.close()
    answers = []
    for data in [*junk, b"POST /api/v1/namespaces/d/pods HTTP/1.1\r\nContent-Length: x\r\n\r\n"]:
        reader, writer = await asyncio.open_connection(host, int(port), ssl=served.context())
        writer.write(data)
        async with asyncio.timeout(10):
            answers.append(await reader.read())
        writer.close()
    assert b'"kind":"Status"' in answers[-1]
    assert not any(b"<html" in answer for answer in answers)
    async with served.session() as session, session.get(MAPS) as response:
        assert response.status == 200


async def test_a_taken_port_is_said_in_one_line(handlers: DoubleHandlers, served: Served) -> None:
    second = RestServer(handlers, DoubleAuthenticator(), served.config)
    with pytest.raises(StartupError, match="the port is taken"):
        await second.start()


@pytest.mark.parametrize(("name", "text"), [("server.crt", "certificate"), ("ca.crt", "ca.crt"), ("server.key", "key")])
async def test_bad_files_are_said_in_one_line(handlers: DoubleHandlers, served: Served, name: str, text: str) -> None:
    await served.server.stop()
    (served.folder / name).write_text("nonsense", encoding="utf-8")
    with pytest.raises(StartupError, match=text):
        await RestServer(handlers, DoubleAuthenticator(), served.config).start()
    (served.folder / name).unlink()
    with pytest.raises(StartupError, match=f"cannot read .*{name}"):
        await RestServer(handlers, DoubleAuthenticator(), served.config).start()
