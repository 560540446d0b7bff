"""`kybern-store --config /etc/kybern/store.yaml`: one member of the store.

`kybern-store restore`, `recover` and `join` work on the data directory of a member that does not run; `kybern store`
runs them.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec

from kybern import daemon, pki
from kybern.clock import SystemClock
from kybern.config.addresses import split
from kybern.config.loading import load
from kybern.config.models import StoreConfig
from store.server.core import GROUP_STORE
from store.server.member import StoreMember

log = logging.getLogger(__name__)

NAME = "kybern-store"
OPERATIONS = ("restore", "recover", "join")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon, or what is asked for instead; the result is the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in OPERATIONS:
        # Only here: as with the consensus below.
        from store.ops import commands  # noqa: PLC0415

        return commands.main(NAME, words)
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="One member of Kybern's store: etcd v3 on a Raft group.",
        epilog=f"Instead of running the member: {NAME} restore, recover or join --help.",
    )
    parser.add_argument("--config", type=Path, default=Path("/etc/kybern/store.yaml"), help="default: %(default)s")
    options = parser.parse_args(words)
    try:
        config = load(options.config, StoreConfig)
        check(config)
    except daemon.StartupError as error:
        return daemon.fail(NAME, error)

    async def run(process: daemon.Daemon) -> None:
        await serve(config, process)

    return daemon.run(NAME, run, log_level=config.log.level, log_format=config.log.format)


def check(config: StoreConfig) -> None:
    """Check what can be checked before anything is opened.

    Raises:
        StartupError: when the certificate is not a member's, or the configuration contradicts itself.
    """
    identity = pki.check_files(config.tls.cert, config.tls.key, config.tls.ca, SystemClock().now())
    if GROUP_STORE not in identity.groups:
        raise daemon.StartupError(
            f"the certificate {config.tls.cert} is not a store member's: its organisation (O=) is not {GROUP_STORE}"
        )
    if identity.name != config.name:
        raise daemon.StartupError(
            f"the certificate {config.tls.cert} is that of {identity.name!r}, but this member's name is {config.name!r}"
        )
    _check_addresses(config)
    if config.members.get(config.name) != config.peer_address:
        raise daemon.StartupError(
            f"members must give this member ({config.name!r}) its peer_address, {config.peer_address}"
        )
    if config.backup_directory is not None and config.backup_directory.is_relative_to(config.data_dir):
        raise daemon.StartupError("backup_directory must be outside of data_dir: what takes one would take the other")
    if config.election_timeout_min >= config.election_timeout_max:
        raise daemon.StartupError("election_timeout_min must be less than election_timeout_max")


def _check_addresses(config: StoreConfig) -> None:
    named = {"client_address": config.client_address, "peer_address": config.peer_address}
    named |= {"metrics_address": config.metrics_address} if config.metrics_address else {}
    named |= {f"members: {name}": address for name, address in config.members.items()}
    named |= {f"clients: {name}": address for name, address in config.clients.items()}
    for field, address in named.items():
        try:
            split(address)
        except ValueError as error:
            raise daemon.StartupError(f"{field}: {error}") from error


async def serve(config: StoreConfig, process: daemon.Daemon) -> None:
    """Run a member until the process is asked to stop."""
    # Only here: the services are tested without the consensus below them.
    from store.raft.datadir import is_joining  # noqa: PLC0415
    from store.raft.node import RaftNode  # noqa: PLC0415

    if is_joining(config.data_dir):
        config = msgspec.structs.replace(config, initial_state="existing")  # type: ignore[type-var] # it is a struct
    raft = RaftNode(config)
    member = StoreMember.create(config, raft, SystemClock())
    # What holds the keys is there for good, and the collector takes too long to look at it: some 60 ms each time, with
    # 500,000 keys. A leader's snapshot brings new ones.
    member.core.machine.on_loaded(gc.freeze)
    await member.start()
    gc.freeze()
    # gRPC's calls leave rings of objects behind, some dozens each: by default the collector looks every few calls.
    gc.set_threshold(20_000, 50, 100)
    try:
        await _until_stopped(member, raft.failed(), process)
    finally:
        await member.stop()


async def _until_stopped(member: StoreMember, failed: Coroutine[Any, Any, None], process: daemon.Daemon) -> None:
    async def become_ready() -> None:
        await member.until_ready()
        status = member.core.raft.status()
        leader = status.leader.name if status.leader is not None else "unknown"
        process.ready(f"revision {member.core.machine.keys.revision}, term {status.term}, leader {leader}")

    stopping = asyncio.create_task(process.run_until_stopped())
    tasks = [asyncio.create_task(work) for work in (become_ready(), member.watch_tasks(), failed)]
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
