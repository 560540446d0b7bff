"""`kybern init`, `kybern certs` and `kybern join`: how hosts become parts of a cluster.

The first master makes the authorities and issues bundles: what another host shows to others, and what it must know. A
bundle is carried there by hand (scp); the host makes its configuration out of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import msgspec

from kybern import pki
from kybern.cli import files as on_disk
from kybern.cli.cluster import (
    ClusterFile,
    Layout,
    NodeOptions,
    check,
    check_host,
    check_name,
    master_config,
    node_config,
    store_config,
)
from kybern.cli.errors import CliError
from kybern.cli.files import CLUSTER, Manifest
from kybern.cli.issuing import Authorities, Files, admin_files, master_files, new_authorities, node_files
from kybern.config.loading import load
from kybern.config.models import MasterConfig, NodeConfig, StoreConfig
from kybern.daemon import StartupError

LIFETIME = timedelta(days=365)


def init(file: ClusterFile, name: str, layout: Layout, now: datetime, *, force: bool = False) -> None:
    """Begin a cluster: this host becomes its first master.

    Raises:
        CliError: when the cluster's settings are wrong or the folder has files already.
    """
    check(file)
    authorities = new_authorities(file.cluster.name, now)
    files = {
        **authorities.files(),
        **master_files(file, name, authorities, now, LIFETIME),
        **admin_files(file, authorities.api, now, LIFETIME),
        **_master_configuration(file, name, layout),
    }
    on_disk.write(layout.folder, files, force=force)


def master_bundle(
    folder: Path, name: str, now: datetime, *, authority: bool = False, address: str | None = None
) -> bytes:
    """A bundle for the further master `name`; with `authority`, it can issue bundles itself.

    With `address`, a master of that name is a part of the cluster from now on, or is there now: this host's
    `cluster.yaml` says so to those for whom bundles are issued afterwards, and its `store.yaml` to its own member.

    Raises:
        CliError: when this host cannot issue, the cluster has no such member, or the address cannot be one's.
    """
    file, authorities = on_disk.read_cluster(folder), load_authorities(folder)
    if address is not None and file.members.get(name) != address:
        check_host(file, "--address", address)
        file = ClusterFile(file.endpoint, {**file.members, check_name("NAME", name): address}, file.cluster, file.ports)
        check(file)
        on_disk.write(folder, {CLUSTER: on_disk.configuration(file)} | _acquainted(folder, file, name), force=True)
    if name not in file.members:
        raise CliError(
            f"the cluster has no master {name}; it has {', '.join(file.members)}",
            "--address makes it one; the store lets it in with `kybern store join` there",
        )
    content = master_files(file, name, authorities, now, LIFETIME)
    if authority:
        content |= authorities.files()
    manifest = Manifest("master", name, file.members[name], file)
    return on_disk.pack(manifest, content)


def _acquainted(folder: Path, file: ClusterFile, name: str) -> Files:
    """This host's `store.yaml` with another master in it, once its member has begun.

    A member goes by that only when it has nothing: were its disk lost, one whose file named itself alone would found
    another group without asking anybody.
    """
    store = configured(folder / "store.yaml", StoreConfig)
    if store is None or name == store.name or not (store.data_dir / "identity.json").exists():
        return {}
    address, ports = file.members[name], file.ports
    known = msgspec.structs.replace(  # type: ignore[type-var] # it is a struct
        store,
        members=store.members | {name: f"{address}:{ports.peers}"},
        clients=store.clients | {name: f"{address}:{ports.store}"},
    )
    return {"store.yaml": on_disk.configuration(known)}


def node_bundle(folder: Path, name: str, address: str, now: datetime) -> bytes:
    """A bundle for the node `name`.

    Raises:
        CliError: when this host cannot issue, or name or address break a rule.
    """
    file, authorities = on_disk.read_cluster(folder), load_authorities(folder)
    check_host(file, "--address", address)
    content = node_files(check_name("NAME", name), address, authorities.api, now, LIFETIME)
    return on_disk.pack(Manifest("node", name, address, file), content)


def join_master(bundle: Path, layout: Layout, *, force: bool = False) -> Manifest:
    """Make this host the master that the bundle was issued for.

    Raises:
        CliError: when it is not a master's bundle or the folder has files already.
    """
    manifest, files = _open(bundle, "master")
    files |= _master_configuration(manifest.cluster, manifest.name, layout)
    on_disk.write(layout.folder, files, force=force)
    return manifest


def join_node(bundle: Path, layout: Layout, options: NodeOptions, *, force: bool = False) -> Manifest:
    """Make this host the node that the bundle was issued for.

    A master may be a node too: what both have (the authority's certificate, the cluster) must be the same.

    Raises:
        CliError: when it is not a node's bundle, or the folder has other files already.
    """
    manifest, files = _open(bundle, "node")
    config = node_config(manifest.cluster, manifest.name, manifest.address, layout, options)
    files[CLUSTER] = on_disk.configuration(manifest.cluster)
    files["node.yaml"] = on_disk.configuration(config)
    same = [n for n in ("pki/ca.crt", CLUSTER) if _reads_as(layout.folder / n, files[n])]
    on_disk.write(layout.folder, {n: data for n, data in files.items() if n not in same}, force=force)
    return manifest


def renew(folder: Path, now: datetime) -> list[str]:
    """Issue this host's own certificates anew; which files were written. The running daemons take them up themselves.

    Raises:
        CliError: when this host cannot issue, or is no part of a cluster.
    """
    file, authorities = on_disk.read_cluster(folder), load_authorities(folder)
    files: Files = {}
    if (store := configured(folder / "store.yaml", StoreConfig)) is not None:
        files |= master_files(file, store.name, authorities, now, LIFETIME)
    if (node := configured(folder / "node.yaml", NodeConfig)) is not None:
        files |= node_files(node.name, node.address, authorities.api, now, LIFETIME)
    if (folder / "admin.kubeconfig").exists():
        files |= admin_files(file, authorities.api, now, LIFETIME)
    return _replace_certificates(folder, files)


def renew_from(folder: Path, bundle: Path) -> list[str]:
    """Take this host's certificates, and nothing else, from a bundle that was issued anew; which files were written.

    Raises:
        CliError: when the bundle is another host's or another cluster's.
    """
    manifest, files = on_disk.unpack(bundle)
    config = (
        configured(folder / "store.yaml", StoreConfig)
        if manifest.kind == "master"
        else configured(folder / "node.yaml", NodeConfig)
    )
    if config is None or config.name != manifest.name:
        is_one = f"the {manifest.kind} {config.name}" if config is not None else f"no {manifest.kind}"
        raise CliError(f"{bundle} was issued for the {manifest.kind} {manifest.name}; this host is {is_one}")
    return _replace_certificates(folder, files)


def load_authorities(folder: Path) -> Authorities:
    """The keys that certificates are issued with.

    Raises:
        CliError: when this host does not have them.
    """
    layout = Layout(folder, folder)
    if not layout.key("ca").exists():
        raise CliError(
            f"this host cannot issue certificates: {layout.key('ca')} is not here",
            "run this on the first master, or on one that joined with a bundle made with --authority",
        )
    try:
        return Authorities(
            pki.load_pair(layout.cert("ca"), layout.key("ca")),
            pki.load_pair(layout.cert("store-ca"), layout.key("store-ca")),
            layout.key("service-account").read_bytes(),
        )
    except OSError as error:
        raise CliError(f"cannot read {error.filename}: {error.strerror}") from error


def parse_pairs(option: str, pairs: Sequence[str]) -> dict[str, str]:
    """`key=value` texts as a mapping.

    Raises:
        CliError: when one is not of that form, or a key comes twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not (sign and key and value):
            raise CliError(f"{option} {pair}: must be of the form NAME=VALUE")
        if key in found:
            raise CliError(f"{option}: {key} is given twice")
        found[key] = value
    return found


def _open(bundle: Path, kind: str) -> tuple[Manifest, Files]:
    manifest, files = on_disk.unpack(bundle)
    if manifest.kind != kind:
        other = f"`kybern join {manifest.kind} --bundle {bundle}`"
        raise CliError(f"{bundle} is the bundle of a {manifest.kind}, not of a {kind}", f"you may mean {other}")
    return manifest, files


def _master_configuration(file: ClusterFile, name: str, layout: Layout) -> Files:
    configs: dict[str, object] = {
        CLUSTER: file,
        "store.yaml": store_config(file, name, layout),
        "master.yaml": master_config(file, name, layout),
    }
    return {path: on_disk.configuration(config) for path, config in configs.items()}


_Config = TypeVar("_Config", StoreConfig, MasterConfig, NodeConfig)


def configured(path: Path, kind: type[_Config]) -> _Config | None:
    """A daemon's configuration; None when this host does not run it.

    Raises:
        CliError: when it cannot be read or is not valid.
    """
    if not path.exists():
        return None
    try:
        return load(path, kind)
    except StartupError as error:
        raise CliError(str(error)) from error


def _replace_certificates(folder: Path, files: Files) -> list[str]:
    """Write what was issued; authorities and the key of tokens stay as they are, and must be the same."""
    for name in ("pki/ca.crt", "pki/store-ca.crt", "pki/service-account.key"):
        if name in files and not _reads_as(folder / name, files[name]):
            raise CliError(
                f"{folder / name} is not that of whoever issued these certificates; nothing was written",
                "a host that is to belong to another cluster joins it: `kybern join --force`",
            )
        files.pop(name, None)
    on_disk.write(folder, files, force=True)
    return sorted(files)


def _reads_as(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except OSError:
        return False
