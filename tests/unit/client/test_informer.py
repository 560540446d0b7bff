"""Informers against the API in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kybern.api import resources
from kybern.api.errors import expired
from kybern.api.types import Pod
from kybern.client import kinds
from kybern.client.fake import FakeClient
from kybern.client.informer import Informer, Informers
from kybern.clock import run_virtual
from kybern.key import Key


def pod(name: str, node: str = "", **labels: str) -> dict[str, Any]:
    return {"metadata": {"namespace": "default", "name": name, "labels": labels}, "spec": {"nodeName": node}}


@contextmanager
def running(informer: Informer[Pod]) -> Iterator[None]:
    task = asyncio.create_task(informer.run())
    try:
        yield
    finally:
        task.cancel()


def test_it_holds_what_the_api_holds_and_keeps_indices() -> None:
    async def main() -> None:
        client = FakeClient()
        client.put(resources.PODS, pod("a", "n1"))
        informer = Informer(client, kinds.PODS)
        informer.index("node", lambda p: [p.spec.node_name])
        with running(informer):
            await informer.synced()
            client.put(resources.PODS, pod("b", "n2"))
            client.put(resources.PODS, pod("a", "n2"))
            await client.delete(resources.PODS, "b", "default", grace_seconds=0)
            await informer.reached(client.revision)
            assert {p.name for p in informer.all()} == {"a"}
            assert [p.name for p in informer.indexed("node", "n2")] == ["a"]
            assert not informer.indexed("node", "n1")

    run_virtual(main())


def test_an_expired_watch_is_answered_by_a_list_that_reports_the_differences() -> None:
    async def main() -> None:
        client = FakeClient()
        client.put(resources.PODS, pod("a"))
        client.put(resources.PODS, pod("b"))
        informer = Informer(client, kinds.PODS)
        seen: list[tuple[str, str]] = []
        informer.on_change(lambda old, new: seen.append((old.name if old else "", new.name if new else "")))
        with running(informer):
            await informer.synced()
            seen.clear()
            client.break_watches(expired("too old"))
            await client.delete(resources.PODS, "a", "default", grace_seconds=0)
            client.put(resources.PODS, pod("c"))
            client.compact()
            await informer.reached(client.revision)
            assert sorted(seen) == [("", "c"), ("a", "")]
            assert informer.get(Key("default", "b")) is not None

    run_virtual(main())


def test_a_lost_server_costs_nothing_but_time() -> None:
    async def main() -> None:
        client = FakeClient()
        informer = Informer(client, kinds.PODS)
        with running(informer):
            await informer.synced()
            for number in range(5):
                client.break_watches()
                client.put(resources.PODS, pod(f"p{number}"))
            await informer.reached(client.revision)
            assert len(informer) == 5

    run_virtual(main())


def test_shared_informers_start_late_too_and_handlers_can_end() -> None:
    async def main() -> None:
        client = FakeClient()
        informers = Informers(client)
        task = asyncio.create_task(informers.run())
        await asyncio.sleep(1)
        pods = informers.of(kinds.PODS)
        assert informers.of(kinds.PODS) is pods
        await pods.synced()
        seen: list[str] = []
        end = pods.on_change(lambda old, new: seen.append(new.name if new else ""))
        client.put(resources.PODS, pod("a"))
        await pods.reached(client.revision)
        end()
        client.put(resources.PODS, pod("b"))
        await pods.reached(client.revision)
        assert seen == ["a"]
        task.cancel()

    run_virtual(main())
