"""`kybern-master --config /etc/kybern/master.yaml`: API server, scheduler and controllers of one master."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from kybern import daemon, pki
from kybern.client.etcd import EtcdClient
from kybern.client.grpc import GrpcClient
from kybern.client.interface import Client
from kybern.clock import SystemClock
from kybern.config.loading import load
from kybern.config.models import MasterConfig
from kybern.daemon import StartupError
from master.apiserver.bootstrap import Bootstrap
from master.apiserver.grpc_server import grpc_server
from master.apiserver.living import Registration
from master.apiserver.local_client import LocalClient
from master.apiserver.server import ApiServer
from master.auth import users
from master.auth.tokens import load_signing_key
from master.leading import CONTROLLERS, SCHEDULER, Leading
from master.members import follow_members
from master.rest.server import RestServer

log = logging.getLogger(__name__)

NAME = "kybern-master"
APISERVER = "apiserver"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon; the result is the exit code."""
    parser = argparse.ArgumentParser(prog=NAME, description="Kybern's API server, scheduler and controllers.")
    parser.add_argument("--config", type=Path, default=Path("/etc/kybern/master.yaml"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        config = load(options.config, MasterConfig)
        check(config)
    except StartupError as error:
        return daemon.fail(NAME, error)

    async def run(process: daemon.Daemon) -> None:
        await serve(config, process)

    return daemon.run(NAME, run, log_level=config.log.level, log_format=config.log.format)


def check(config: MasterConfig) -> None:
    """Check what can be checked before anything is opened.

    Raises:
        StartupError: naming the file or the setting that is wrong.
    """
    now = SystemClock().now()
    if APISERVER in config.components:
        for tls in (config.tls, config.store_tls, config.client_tls):
            pki.check_files(tls.cert, tls.key, tls.ca, now)
        if not config.store:
            raise StartupError("store must name at least one address of the store")
    else:
        pki.check_files(config.client_tls.cert, config.client_tls.key, config.client_tls.ca, now)
        if not config.api_servers:
            raise StartupError("api_servers must name an API server, since this process runs none")
    if not config.components:
        raise StartupError("components must name at least one of apiserver, scheduler, controllers")


async def serve(config: MasterConfig, process: daemon.Daemon) -> None:
    """Run the components until the process is asked to stop."""
    async with AsyncExitStack() as stack:
        if APISERVER in config.components:
            await _with_api_server(config, process, stack)
        else:
            client = GrpcClient(config.api_servers, config.client_tls)
            stack.push_async_callback(client.close)
            process.ready(f"{', '.join(config.components)} at {', '.join(config.api_servers)}")
            await _until_stopped(process, [_leading(config, client, client)])


async def _with_api_server(config: MasterConfig, process: daemon.Daemon, stack: AsyncExitStack) -> None:
    key = load_signing_key(config.service_account_key)
    store = EtcdClient(config.store, config.store_tls)
    stack.push_async_callback(store.close)
    server = ApiServer(store, cluster=config.cluster, signing_key=key)
    rpc = grpc_server(server.handlers, config.grpc_address, config.tls)
    rest = RestServer(server.handlers, server.authenticator, config, server.ready)
    await rpc.start()
    stack.push_async_callback(rpc.stop)
    await rest.start()
    stack.push_async_callback(rest.stop)

    async def announce() -> None:
        await server.synced()
        await rpc.serving(True)
        process.ready(f"REST on {config.rest_address}, gRPC on {config.grpc_address}")

    own = LocalClient(server.handlers, users.APISERVER)
    parts: list[Coroutine[Any, Any, None]] = [
        server.run(),
        announce(),
        Registration(store, config.name, config.rest_address).run(),
        follow_members(store),
        Bootstrap(own, store, config.cluster).run(),
    ]
    if SCHEDULER in config.components or CONTROLLERS in config.components:
        scheduler = LocalClient(server.handlers, users.SCHEDULER)
        controllers = LocalClient(server.handlers, users.CONTROLLERS)
        parts.append(_leading(config, scheduler, controllers))
    await _until_stopped(process, parts)


def _leading(config: MasterConfig, scheduler: Client, controllers: Client) -> Coroutine[Any, Any, None]:
    return Leading(
        config.components,
        config.name,
        scheduler=scheduler,
        controllers=controllers,
        cluster=config.cluster,
        clock=SystemClock(),
        ca_pem=config.client_tls.ca.read_bytes(),
    ).run()


async def _until_stopped(process: daemon.Daemon, parts: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run parts side by side; the failure of one ends the daemon."""
    stopping = asyncio.create_task(process.run_until_stopped(), name="until-stopped")
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        waiting: set[asyncio.Task[None]] = {stopping, *tasks}
        while not stopping.done():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        for task in (stopping, *tasks):
            task.cancel()
        await asyncio.gather(stopping, *tasks, return_exceptions=True)


if __name__ == "__main__":
    sys.exit(main())
