"""`kybern status`: every daemon of the cluster, as it answers from here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
from rich.console import Console

from kybern.cli import asking
from kybern.cli.asking import Health
from kybern.cli.cluster import ClusterFile, Layout
from kybern.cli.errors import CliError
from kybern.cli.files import read_cluster
from kybern.cli.tables import render
from kybern.config.models import Tls


class Row(msgspec.Struct, frozen=True):
    """One daemon. `kind` is store, master or node; `state` Serving, NotServing, NotReady or Down."""

    kind: str
    name: str
    address: str
    state: str
    leader: bool = False
    detail: str = ""


class Status(msgspec.Struct, frozen=True):
    """All of the cluster. `problems` is empty when all is well."""

    cluster: str
    daemons: list[Row]
    problems: list[str]


def credentials(folder: Path) -> tuple[Tls, Tls | None]:
    """What this host can show to masters and nodes, and (masters only) to the store.

    Raises:
        CliError: when there is no certificate here.
    """
    layout = Layout(folder, folder)
    for name in ("master-client", "admin", "node"):
        if layout.key(name).exists():
            store = layout.tls("store-client", "store-ca") if layout.key("store-client").exists() else None
            return layout.tls(name, "ca"), store
    raise CliError(f"{folder}/pki has no certificate to ask with", "run this on a master or a node")


async def gather(folder: Path) -> Status:
    """Ask every daemon that can be asked with what this host has."""
    file = read_cluster(folder)
    api, store = credentials(folder)
    (stores, alarms), masters, nodes = await asyncio.gather(
        _stores(file, store), _masters(file, api), _nodes(file, api)
    )
    daemons = [*stores, *masters, *(nodes or [])]
    problems = [f"{r.kind} {r.name}: {r.detail}" for r in daemons if r.state != "Serving"]
    problems += [f"store: the alarm {alarm} is on: `kybern store status` tells more" for alarm in sorted(alarms)]
    if stores and not any(r.leader for r in stores):
        problems.append("the store has no leader: nothing can be written")
    if nodes is None:
        problems.append("no master answers: the nodes are not known")
    return Status(file.cluster.name, daemons, problems)


def table(status: Status) -> str:
    """For people."""
    rows = [("KIND", "NAME", "ADDRESS", "STATE", "LEADER", "DETAIL")]
    rows += [(r.kind, r.name, r.address, r.state, "yes" if r.leader else "", r.detail) for r in status.daemons]
    return render(rows)


@contextlib.asynccontextmanager
async def shown(what: str, console: Console, after: float = 1.0) -> AsyncIterator[None]:
    """Say what is being waited for, once it takes longer than `after` seconds."""

    async def show() -> None:
        await asyncio.sleep(after)
        with console.status(what):
            await asyncio.Event().wait()

    task = asyncio.create_task(show())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _stores(file: ClusterFile, tls: Tls | None) -> tuple[list[Row], set[str]]:
    """The members, and the store's alarms that are on."""
    if tls is None:
        return [], set()  # a node holds nothing that opens the store
    addresses = {n: f"{a}:{file.ports.store}" for n, a in file.members.items()}
    answers = await asyncio.gather(*(asking.health(a, tls) for a in addresses.values()))
    found = await asyncio.gather(*(asking.store_status(a, tls) for a in addresses.values()))
    statuses = dict(zip(addresses, found, strict=True))
    leader = asking.store_leader(statuses)
    rows = []
    for (name, address), health in zip(addresses.items(), answers, strict=True):
        status = statuses[name]
        detail = f"revision {status.revision}, term {status.term}" if status is not None else ""
        rows.append(_row("store", name, address, health, leader=name == leader, detail=detail))
    return rows, {alarm for status in statuses.values() if status is not None for alarm in status.alarms}


async def _masters(file: ClusterFile, tls: Tls) -> list[Row]:
    addresses = {n: f"{a}:{file.ports.grpc}" for n, a in file.members.items()}
    answers = await asyncio.gather(*(asking.health(a, tls) for a in addresses.values()))
    serving = [a for a, h in zip(addresses.values(), answers, strict=True) if h.serves]
    leader = asking.holder_name(await asking.lease_holder(serving, tls), list(addresses))
    return [
        _row("master", name, address, health, leader=name == leader)
        for (name, address), health in zip(addresses.items(), answers, strict=True)
    ]


async def _nodes(file: ClusterFile, tls: Tls) -> list[Row] | None:
    known = await asking.nodes([f"{a}:{file.ports.grpc}" for a in file.members.values()], tls)
    if known is None:
        return None
    answers = await asyncio.gather(*(_node_health(n.address, tls) for n in known))
    rows = []
    for node, health in zip(known, answers, strict=True):
        row = _row("node", node.name, node.address, health)
        if health.serves and not node.ready:
            row = msgspec.structs.replace(row, state="NotReady", detail="it serves, but the API has it as not ready")
        rows.append(row)
    return rows


async def _node_health(address: str, tls: Tls) -> Health:
    return await asking.health(address, tls) if address else Health("Down", "it has told the API no address")


def _row(kind: str, name: str, address: str, health: Health, *, leader: bool = False, detail: str = "") -> Row:
    return Row(kind, name, address, health.state, leader, health.problem or detail)
