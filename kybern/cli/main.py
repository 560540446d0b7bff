"""The `kybern` command."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from kybern.cli import hosts
from kybern.cli.cluster import ClusterFile, Layout, NodeOptions, Ports, check_name, settings
from kybern.cli.errors import CliError, invoke
from kybern.cli.masters import master
from kybern.cli.options import DATA, ETC, DataOption, FolderOption, ForceOption, LookedAtOption
from kybern.cli.status import Status, gather, shown, table
from kybern.cli.store import store
from kybern.cli.tables import OutputOption
from kybern.pki import utc_now, write_private

app = typer.Typer(
    help="Make hosts part of a Kybern cluster, and see how the cluster is.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Only so are the lines of a docstring's second paragraph joined.
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
join = typer.Typer(help="Make this host part of a cluster, with a bundle of `kybern certs`.", no_args_is_help=True)
certs = typer.Typer(
    help="Issue bundles (certificates and settings) for further hosts, and renew certificates.", no_args_is_help=True
)
app.add_typer(join, name="join")
app.add_typer(certs, name="certs")
app.add_typer(master, name="master")
app.add_typer(store, name="store")

BundleOption = Annotated[Path, typer.Option("--bundle", help="File that `kybern certs` made for this host.")]
OutOption = Annotated[Path, typer.Option("--out", help="Where to write the bundle. It holds private keys.")]


@app.command()
def init(
    name: Annotated[str, typer.Option(help="Name of this master.")],
    address: Annotated[str, typer.Option(help="Address that other hosts reach this one by.")],
    member: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=ADDRESS", help="Every master, this one included. Default: this one alone."),
    ] = None,
    cluster_name: Annotated[str, typer.Option(help="Name of the cluster, for kubeconfigs and logs.")] = "kybern",
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="https://HOST:PORT", help="What kubeconfigs name. Default: this master's own address."),
    ] = None,
    pod_cidr: Annotated[str | None, typer.Option(help="Range of the pods' addresses.")] = None,
    service_cidr: Annotated[str | None, typer.Option(help="Range of the Services' addresses.")] = None,
    dns_address: Annotated[str | None, typer.Option(help="Service address of the cluster DNS.")] = None,
    domain: Annotated[str | None, typer.Option(help="What the Services' DNS names end in.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Another cluster setting, such as node_grace_period=20."),
    ] = None,
    rest_port: Annotated[int, typer.Option(help="Port of the Kubernetes REST API.", min=1, max=65535)] = 6443,
    grpc_port: Annotated[int, typer.Option(help="Port of the gRPC API.", min=1, max=65535)] = 6444,
    folder: FolderOption = ETC,
    data: DataOption = DATA,
    force: ForceOption = False,
) -> None:
    """Begin a cluster: authorities, certificates, configuration and an administrator's kubeconfig of a first master."""
    given_members = hosts.parse_pairs("--member", member or [])
    members = {check_name("--name", name): address, **given_members}
    if members[name] != address:
        raise CliError(f"--member says that {name} is at {members[name]}, --address says {address}")
    given = {"pod_cidr": pod_cidr, "service_cidr": service_cidr, "dns_address": dns_address, "domain": domain}
    cluster = settings(set_ or [], name=cluster_name, **given)
    ports = Ports(rest=rest_port, grpc=grpc_port)
    file = ClusterFile(endpoint or f"https://{address}:{rest_port}", members, cluster, ports)
    layout = Layout(folder.absolute(), data.absolute())
    hosts.init(file, name, layout, utc_now(), force=force)
    _say(f"{layout.folder}: the cluster {cluster_name} has begun, with {name} as its first master.")
    if len(members) % 2 == 0:
        _say(f"Note: {len(members)} members survive no more losses than {len(members) - 1} do; take an odd number.")
    _say("Next:")
    for other in (m for m in members if m != name):
        _say(f"  kybern certs master {other} --out {other}.tar")
        _say(f"  there: kybern join master --bundle {other}.tar")
    _say("  kybern certs node NAME --address ADDRESS --out NAME.tar")
    _say("  there: kybern join node --bundle NAME.tar")
    _say("  systemctl enable --now kybern-store kybern-master")
    _say(f"  export KUBECONFIG={layout.folder}/admin.kubeconfig; kubectl get nodes")


@certs.command("master")
def certs_master(
    name: Annotated[str, typer.Argument(help="Name of the master.")],
    out: OutOption,
    address: Annotated[
        str | None,
        typer.Option(help="Of one that `kybern init` was not told of, or that is at another address now."),
    ] = None,
    authority: Annotated[
        bool, typer.Option("--authority", help="Put the authorities' keys in, so that this master can issue too.")
    ] = False,
    folder: FolderOption = ETC,
    force: ForceOption = False,
) -> None:
    """Issue the bundle of a further master."""
    _check_out(out, force=force)
    bundle = hosts.master_bundle(folder.absolute(), name, utc_now(), authority=authority, address=address)
    _write_bundle(out, bundle)
    _say(f"{out}: bring it to {name} by a safe way, and there: kybern join master --bundle {out.name}")


@certs.command("node")
def certs_node(
    name: Annotated[str, typer.Argument(help="Name of the node; it must be the only one of that name.")],
    address: Annotated[str, typer.Option(help="Address that other hosts reach the node by.")],
    out: OutOption,
    folder: FolderOption = ETC,
    force: ForceOption = False,
) -> None:
    """Issue the bundle of a node."""
    _check_out(out, force=force)
    _write_bundle(out, hosts.node_bundle(folder.absolute(), name, address, utc_now()))
    _say(f"{out}: bring it to {name} by a safe way, and there: kybern join node --bundle {out.name}")


@certs.command("renew")
def certs_renew(
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", help="Bundle that was issued anew for this host, where this host cannot issue."),
    ] = None,
    folder: FolderOption = ETC,
) -> None:
    """Renew this host's certificates; daemons that run take them up by themselves.

    On a host that has the authorities' keys they are issued here. For any other, issue a bundle there again, as when it
    joined (kybern certs master, kybern certs node), bring it over, and here: kybern certs renew --bundle FILE.
    """
    folder = folder.absolute()
    written = hosts.renew(folder, utc_now()) if bundle is None else hosts.renew_from(folder, bundle)
    for name in written:
        _say(f"{folder / name}: renewed")
    if "admin.kubeconfig" in written:
        _say(f"Copies of {folder / 'admin.kubeconfig'} must be made again before the old certificate ends.")


@join.command("master")
def join_master(
    bundle: BundleOption, folder: FolderOption = ETC, data: DataOption = DATA, force: ForceOption = False
) -> None:
    """Make this host a further master, with a store member of its own."""
    layout = Layout(folder.absolute(), data.absolute())
    manifest = hosts.join_master(bundle, layout, force=force)
    _say(f"{layout.folder}: this host is the master {manifest.name} of {manifest.cluster.cluster.name}.")
    _say("Where the store runs already and this is a further master, or one whose disk was lost: kybern store join")
    _say("Next: systemctl enable --now kybern-store kybern-master")


@join.command("node")
def join_node(
    bundle: BundleOption,
    docker: Annotated[str, typer.Option(help="Where the Docker engine listens.")] = NodeOptions().docker,
    cgroup_parent: Annotated[str, typer.Option(help="Parent of the containers' cgroups.")] = "",
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Label of the Node.")] = None,
    reserve: Annotated[
        list[str] | None, typer.Option(metavar="cpu=QUANTITY", help="Resources kept for the host itself (cpu, memory).")
    ] = None,
    folder: FolderOption = ETC,
    data: DataOption = DATA,
    force: ForceOption = False,
) -> None:
    """Make this host a node, which runs pods."""
    layout = Layout(folder.absolute(), data.absolute())
    labels, reserved = hosts.parse_pairs("--label", label or []), hosts.parse_pairs("--reserve", reserve or [])
    options = NodeOptions(docker, cgroup_parent, labels, reserved)
    manifest = hosts.join_node(bundle, layout, options, force=force)
    _say(f"{layout.folder}: this host is the node {manifest.name} of {manifest.cluster.cluster.name}.")
    _say("Next: systemctl enable --now kybern-node")


@app.command()
def status(
    output: OutputOption = "table",
    folder: LookedAtOption = ETC,
) -> None:
    """Show stores, masters and nodes, and who leads; exits with 1 when one does not serve."""

    async def ask() -> Status:
        async with shown("asking every daemon", Console(stderr=True)):
            return await gather(folder.absolute())

    found = asyncio.run(ask())
    typer.echo(msgspec.json.encode(found).decode() if output == "json" else table(found))
    for problem in found.problems:
        typer.echo(f"kybern: {problem}", err=True)
    if found.problems:
        raise typer.Exit(1)


def _check_out(out: Path, *, force: bool) -> None:
    """Before anything is done."""
    if out.exists() and not force:
        raise CliError(f"{out} is there already", "choose another --out, or say --force to replace it")
    if not out.absolute().parent.is_dir():
        raise CliError(f"cannot write {out}: there is no folder {out.parent}")


def _write_bundle(out: Path, data: bytes) -> None:
    try:
        write_private(out, data)
    except OSError as error:
        raise CliError(f"cannot write {out}: {error.strerror}") from error


def _say(text: str) -> None:
    typer.echo(text)


def run(arguments: Sequence[str]) -> int:
    """Run a command line in this process; returns its exit code. The lab makes its hosts this way."""
    return invoke(app, "kybern", arguments)


def main() -> int:
    """The command."""
    return run(sys.argv[1:])
