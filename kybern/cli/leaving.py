"""What a host's files say of a master that leaves, and what they say without it. Reads files; writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kybern.cli import files as on_disk
from kybern.cli.cluster import ClusterFile
from kybern.cli.errors import CliError
from kybern.cli.files import CLUSTER
from kybern.cli.hosts import configured
from kybern.cli.issuing import Files
from kybern.config.addresses import split
from kybern.config.models import MasterConfig, NodeConfig, StoreConfig


@dataclass(frozen=True, slots=True)
class Leaving:
    """A master that leaves, as one host knows it.

    `address` is empty when no file names it. `files` are those that change, with what they will say. `store` is this
    host's member of the store; None when it has none, and `others` are the masters that stay.
    """

    name: str
    address: str
    file: ClusterFile
    files: Files
    store: StoreConfig | None
    others: Sequence[str]


def leaving(folder: Path, name: str) -> Leaving:
    """What there is to do about a master in a host's files.

    Raises:
        CliError: when this host belongs to no cluster, is that master itself, or would know no master any more.
    """
    file = on_disk.read_cluster(folder)
    store = configured(folder / "store.yaml", StoreConfig)
    master = configured(folder / "master.yaml", MasterConfig)
    node = configured(folder / "node.yaml", NodeConfig)
    if name in {c.name for c in (store, master) if c is not None}:
        raise CliError(
            f"this host is the master {name}: it is removed on another one",
            "there: kybern master remove; afterwards, here: systemctl disable --now kybern-store kybern-master",
        )
    others = {n: a for n, a in file.members.items() if n != name}
    if not others:
        raise CliError(f"{name} is the only master of the cluster; nothing was changed")
    address = file.members.get(name) or (split(store.members[name])[0] if store and name in store.members else "")
    # One that stays may have the address by now.
    gone = address if address not in others.values() else ""
    files: Files = {}
    if store is not None and name in (store.members | store.clients):
        members, clients = _without(store.members, name), _without(store.clients, name)
        files["store.yaml"] = _changed(store, members=members, clients=clients)
    if master is not None and (kept := _elsewhere(master.store, gone)) != master.store:
        files["master.yaml"] = _changed(master, store=kept)
    if node is not None and (kept := _elsewhere(node.masters, gone)) != node.masters:
        if not kept:
            raise CliError(
                f"{folder / 'node.yaml'} names no other master than {name}; nothing was changed",
                "join it anew with a bundle of the first master: kybern join node --force --bundle FILE",
            )
        files["node.yaml"] = _changed(node, masters=kept)
    # The last: until it is written, the command can be given again and knows the address.
    if name in file.members:
        files[CLUSTER] = _changed(file, members=others)
    return Leaving(name, address, file, files, store, list(others))


def _without(named: dict[str, str], name: str) -> dict[str, str]:
    return {n: a for n, a in named.items() if n != name}


def _elsewhere(addresses: Sequence[str], host: str) -> list[str]:
    return [a for a in addresses if split(a)[0] != host]


def _changed(config: Any, **fields: object) -> bytes:
    replace: Callable[..., object] = msgspec.structs.replace
    return on_disk.configuration(replace(config, **fields))
