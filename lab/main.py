"""The `kybern-lab` command."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import msgspec
import typer

from kybern.cli.errors import invoke
from lab import demo, environment, faults, lifecycle, names, network, state, status
from lab.errors import LabError
from lab.leaders import LEADER, find_leader, leaders
from lab.progress import Progress, require_root
from lab.state import Lab

app = typer.Typer(
    help="A cluster of several hosts on this machine: the real daemons, on hosts out of network namespaces.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

NameOption = Annotated[str, typer.Option("--name", help="Which lab. Labs of different names do not touch each other.")]
HostArgument = Annotated[str, typer.Argument(help="m1, n1 and so on; see `kybern-lab status`.")]
DaemonArgument = Annotated[str, typer.Argument(help="store or master; node, docker or containerd.")]


@app.command()
def up(
    masters: Annotated[int, typer.Option(help="How many masters, each with a store member.")] = 3,
    nodes: Annotated[int, typer.Option(help="How many nodes, each with a Docker engine of its own.")] = 2,
    store: Annotated[
        str, typer.Option(help="What the masters run on: kybern, or etcd (Debian's). Default: kybern, or what is up.")
    ] = "",
    name: NameOption = names.DEFAULT,
) -> None:
    """Bring a lab up. When it is up already, start what is not running."""
    _root("bringing a lab up")
    progress = Progress()
    lab = lifecycle.up(names.check(name), masters, nodes, progress, store)
    typer.echo(f"The lab is up ({progress.seconds:.1f} s). kubectl: export KUBECONFIG={lab.kubeconfig}")


@app.command("demo")
def show_demo(
    masters: Annotated[int, typer.Option(help="How many masters.")] = 3,
    nodes: Annotated[int, typer.Option(help="How many nodes; at least one.", min=1)] = 2,
    name: NameOption = names.DEFAULT,
) -> None:
    """Bring a lab up, run examples/hello.yaml on it, and ask it. This is `make up`."""
    _root("bringing a lab up")
    typer.echo("\n" + demo.demo(names.check(name), masters, nodes, Progress()))


@app.command()
def down(name: NameOption = names.DEFAULT) -> None:
    """Take a lab down and remove all that it made; also after a crash."""
    _root("taking a lab down")
    removed = lifecycle.down(names.check(name), Progress())
    if removed.nothing:
        typer.echo(f"There was nothing of a lab {name}.")
        return
    counts = {"containers": removed.containers, "processes": removed.processes, "mounts": removed.mounts}
    counts |= {"cgroups": removed.cgroups, "namespaces and links": len(removed.network)}
    typer.echo("Removed: " + ", ".join(f"{n} {what}" for what, n in counts.items() if n) + ".")


@app.command("status")
def show_status(
    output: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table",
    name: NameOption = names.DEFAULT,
) -> None:
    """Show every daemon; exits with 1 when one does not serve or a host is cut off."""
    if output not in ("table", "json"):
        raise LabError(f"--output {output}: must be table or json")
    lab = _open(name)
    found = status.status(lab, leaders(lab))
    typer.echo(msgspec.json.encode(found).decode() if output == "json" else status.table(found))
    if not status.healthy(found):
        raise typer.Exit(1)


@app.command()
def env(name: NameOption = names.DEFAULT) -> None:
    """Print exports for kubectl, etcdctl, kybern and gRPC clients: eval "$(kybern-lab env)"."""
    typer.echo(environment.exports(_open(name)))


@app.command()
def cut(host: HostArgument, name: NameOption = names.DEFAULT) -> None:
    """Pull a host's cable."""
    faults.cut(_open(name, "cutting a host off"), host)
    typer.echo(f"{host} is cut off; `kybern-lab heal {host}` heals it")


@app.command()
def heal(host: HostArgument, name: NameOption = names.DEFAULT) -> None:
    """Plug a host's cable in again."""
    faults.heal(_open(name, "healing a host"), host)
    typer.echo(f"{host} is connected")


@app.command()
def kill(
    host: Annotated[str, typer.Argument(help="A host; or leader:store or leader:master for the present leader.")],
    daemon: Annotated[str, typer.Argument(help="store, master, node, docker, containerd; none with leader:...")] = "",
    signal: Annotated[str, typer.Option("--signal", "-s", help="Number or name: 9, TERM, STOP, CONT.")] = "KILL",
    name: NameOption = names.DEFAULT,
) -> None:
    """Send a signal to a daemon."""
    lab = _open(name, "killing a daemon")
    number = faults.parse_signal(signal)
    if host.startswith(LEADER):
        daemon = host.removeprefix(LEADER)
        host = find_leader(lab, daemon)
    elif not daemon:
        raise LabError("which daemon?", f"kybern-lab kill {host} DAEMON")
    pid = faults.kill(lab, host, daemon, number)
    typer.echo(f"sent signal {number} to {daemon} on {host} (process {pid})")


@app.command()
def start(host: HostArgument, daemon: DaemonArgument, name: NameOption = names.DEFAULT) -> None:
    """Start a daemon again."""
    faults.start(_open(name, "starting a daemon"), host, daemon)
    typer.echo(f"{daemon} on {host} serves")


@app.command()
def logs(
    host: HostArgument,
    daemon: DaemonArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it grows.")] = False,
    tail: Annotated[int, typer.Option(help="How many lines; -1 for all.")] = -1,
    name: NameOption = names.DEFAULT,
) -> None:
    """Print a daemon's log."""
    lab = _open(name)
    faults.check(lab, host, daemon)
    path = lab.log(host, daemon)
    if not path.exists():
        raise LabError(f"{daemon} on {host} has not been started yet")
    count = f"--lines={tail}" if tail >= 0 else "--lines=+1"
    os.execvp("tail", ["tail", count, *(["--follow=name", "--retry"] if follow else []), str(path)])  # noqa: S606


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def exec(  # noqa: A001 - the command's name
    host: HostArgument,
    command: Annotated[list[str], typer.Argument(help="The command; put -- before it.")],
    name: NameOption = names.DEFAULT,
) -> None:
    """Run a command on a host."""
    lab = _open(name, "entering a host")
    words = command[1:] if command[:1] == ["--"] else command
    if not words:
        raise LabError("which command?", f"kybern-lab exec {host} -- COMMAND")
    line = network.enter(lab.names, lab.check_host(host), *words)
    os.execvp(line[0], line)  # noqa: S606 - its exit code is ours


def _open(name: str, needs_root: str = "") -> Lab:
    if needs_root:
        _root(needs_root)
    return state.open_lab(names.check(name))


def _root(what: str) -> None:
    require_root(what, os.geteuid())


def main() -> int:
    """The command."""
    return invoke(app, "kybern-lab", sys.argv[1:])
