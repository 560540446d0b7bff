"""One engine for all tests of the folder that do not break it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import uvloop

from kybern.config.models import DockerRuntime as DockerConfig
from node.runtime.docker import DockerRuntime
from tests.lab.engine import Engine, engine
from tests.lab.runtime.pods import Pods


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    # The daemons run on uvloop, whose Unix sockets differ from asyncio's in the corners.
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="package")
def docker() -> Iterator[Engine]:
    assert os.geteuid() == 0, "a Docker engine needs root"
    with engine() as made:
        made.load_busybox()
        yield made


@pytest.fixture
async def runtime(docker: Engine) -> AsyncIterator[DockerRuntime]:
    made = DockerRuntime(DockerConfig(endpoint=docker.endpoint))
    await made.prepare()
    yield made
    await made.close()


@pytest.fixture
async def pods(runtime: DockerRuntime) -> AsyncIterator[Pods]:
    made = Pods(runtime)
    yield made
    await made.close()
