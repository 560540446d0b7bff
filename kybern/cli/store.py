"""`kybern store`: look at the store and look after it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from kybern.cli import snapshots, store_calls
from kybern.cli.errors import CliError
from kybern.cli.store_calls import Access, MemberRow, StatusRow
from kybern.cli.tables import Output, OutputOption, render, size
from kybern.cli.talking import asked as _asked
from kybern.cli.talking import run as _run
from kybern.config.loading import load
from kybern.config.models import StoreConfig, Tls
from kybern.pb.etcd.maintenance_pb2 import AlarmRequest
from kybern.rpc.credentials import channel_credentials
from kybern.tls import client_context

store = typer.Typer(
    help="Look at the store and look after it. Connection options come before the command. A real etcd works as well.",
    no_args_is_help=True,
)
member = typer.Typer(help="List and change the members.", no_args_is_help=True)
snapshot = typer.Typer(help="Copies of the whole state.", no_args_is_help=True)
alarm = typer.Typer(help="What a person must see to. NOSPACE: writes are refused.", no_args_is_help=True)
store.add_typer(member, name="member")
store.add_typer(snapshot, name="snapshot")
store.add_typer(alarm, name="alarm")

MemberArgument = Annotated[str, typer.Argument(metavar="MEMBER", help="Name or number of a member.")]
BumpOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Leave out so many revisions and compact what is before, so that watchers begin anew; default 1000000000.",
    ),
]
FileArgument = Annotated[Path, typer.Argument(help="File of a snapshot.")]


@dataclass(frozen=True, slots=True)
class _Connection:
    """What was said before the command: a member's configuration, and how to reach the store, once that is needed."""

    config: Path
    access: Callable[[], Access]


@store.callback()
def connect(
    context: typer.Context,
    config: Annotated[
        Path,
        typer.Option(
            envvar="KYBERN_STORE_CONFIG",
            help="A member's configuration, for its members' addresses and its certificate.",
        ),
    ] = Path("/etc/kybern/store.yaml"),
    endpoints: Annotated[
        str, typer.Option(metavar="HOST:PORT,...", help="Members to ask, instead of the configuration's.")
    ] = "",
    cacert: Annotated[Path | None, typer.Option(help="Authority of the store's certificates.")] = None,
    cert: Annotated[Path | None, typer.Option(help="Certificate to show: a member's or a master's.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its key.")] = None,
) -> None:
    """Keep what the commands below need to connect with; nothing is read before one of them asks."""

    def access() -> Access:
        given = [part for part in (cacert, cert, key) if part is not None]
        if len(given) not in (0, 3):
            raise CliError("--cacert, --cert and --key go together")
        tls = Tls(cert=cert, key=key, ca=cacert) if cert and key and cacert else None
        given_addresses = [store_calls.address_of(e.strip(), "--endpoints") for e in endpoints.split(",") if e.strip()]
        addresses = given_addresses
        if not addresses or tls is None:
            known = load(config, StoreConfig)
            addresses = addresses or sorted(known.clients.values())
            tls = tls or known.tls
        # gRPC says of files that it cannot use no more than that there is no connection.
        channel_credentials(tls)
        client_context(tls)
        return Access(addresses, tls, partial=not given_addresses)

    context.obj = _Connection(config, access)


@store.command()
def status(context: typer.Context, output: OutputOption = "table") -> None:
    """Show every member; exits with 1 when one does not answer, there is no leader, or an alarm is on."""
    rows = _run("asking every member", store_calls.statuses(_access(context)))
    _print(rows, output, _status_table(rows))
    problems = [p for row in rows for p in row.problems]
    if not any(row.knows_leader for row in rows):
        problems.append("no member knows a leader: nothing can be written")
    for problem in dict.fromkeys(problems):
        typer.echo(f"kybern: {problem}", err=True)
    if problems:
        raise typer.Exit(1)


@member.command("list")
def member_list(context: typer.Context, output: OutputOption = "table") -> None:
    """List the members."""
    rows = _run("asking the store", store_calls.members(_access(context)))
    _print(rows, output, _member_table(rows))


@member.command("add")
def member_add(
    context: typer.Context,
    peer_address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Where the others reach the new member.")],
    learner: Annotated[bool, typer.Option("--learner", help="Without a vote, until it is promoted.")] = False,
) -> None:
    """Let another member join, which is started afterwards. `kybern store join` on its host does all that is needed."""
    added = _run("adding the member", store_calls.add_member(_access(context), peer_address, learner=learner))
    typer.echo(f"member {added.id} at {added.peer_address} is added{' as a learner' if added.learner else ''}")
    typer.echo("Next, there: start it with an empty data directory, and `initial_state: existing` in its store.yaml")


@member.command("remove")
def member_remove(context: typer.Context, name: MemberArgument) -> None:
    """Let a member leave for good."""
    typer.echo(f"{_with_member(context, name, store_calls.remove_member, 'removing the member')} is removed")


@member.command("promote")
def member_promote(context: typer.Context, name: MemberArgument) -> None:
    """Give a learner that has caught up a vote."""
    typer.echo(f"{_with_member(context, name, store_calls.promote_member, 'promoting the member')} votes")


@store.command("move-leader")
def move_leader(context: typer.Context, name: MemberArgument) -> None:
    """Hand leadership to a member."""
    typer.echo(f"{_with_member(context, name, store_calls.move_leader, 'handing leadership over')} leads")


@store.command()
def compact(
    context: typer.Context,
    revision: Annotated[int | None, typer.Argument(help="Default: the present revision.", min=1)] = None,
) -> None:
    """Forget history: what was superseded before a revision."""
    done = _run("compacting", store_calls.compact(_access(context), revision))
    typer.echo(f"history before revision {done} is forgotten")


@store.command()
def defrag(context: typer.Context) -> None:
    """Let every member give back unused space, one after the other (a real etcd stands still meanwhile)."""
    access = _access(context)
    failed = False
    for row in _run("asking every member", store_calls.statuses(access)):
        try:
            _run(f"defragmenting {row.address}", store_calls.defragment(access, row.address))
        except CliError as error:
            failed = True
            typer.echo(f"kybern: {error}", err=True)
        else:
            typer.echo(f"{row.address} is defragmented")
    if failed:
        raise typer.Exit(1)


@alarm.command("list")
def alarm_list(context: typer.Context, output: OutputOption = "table") -> None:
    """List the alarms that are on."""
    rows = _run("asking the store", store_calls.alarms(_access(context), AlarmRequest.GET))
    _print(rows, output, render([("MEMBER", "ALARM"), *((r.member, r.alarm) for r in rows)]))


@alarm.command("disarm")
def alarm_disarm(context: typer.Context) -> None:
    """Clear all alarms, once what they are about has been seen to."""
    rows = _run("asking the store", store_calls.alarms(_access(context), AlarmRequest.DEACTIVATE))
    typer.echo("\n".join(f"{r.alarm} of member {r.member} is cleared" for r in rows) or "no alarm was on")


@snapshot.command("save")
def snapshot_save(
    context: typer.Context,
    file: FileArgument,
    without_leader: Annotated[
        bool,
        typer.Option(
            "--without-leader", help="When no member knows a leader: what one of them has, which may not be the last."
        ),
    ] = False,
) -> None:
    """Save a copy of the whole state. It holds the cluster's secrets: keep it safe."""
    access = _access(context)
    with snapshots.writing(file) as write:
        address = _run("saving", store_calls.save_snapshot(access, write, leaderless=without_leader))
    typer.echo(f"{file}: {size(file.stat().st_size)} from {address}, its checksum is right")


@snapshot.command("verify")
def snapshot_verify(file: FileArgument) -> None:
    """Check that a file is whole and unchanged."""
    checksum = _run("checking the file", asyncio.to_thread(snapshots.verify, file))
    typer.echo(f"{file}: whole, SHA-256 {checksum}")


@snapshot.command("status")
def snapshot_status(file: FileArgument, output: OutputOption = "table") -> None:
    """Check a file and show what it holds."""
    info = _run("checking the file", asyncio.to_thread(snapshots.inspect, file))
    numbers = (str(info.revision), str(info.compacted), str(info.keys), str(info.level))
    rows = [
        ("REVISION", "COMPACTED", "KEYS", "LEVEL", "SIZE", "SHA-256"),
        (*numbers, size(info.size), info.sha256[:16]),
    ]
    _print(info, output, render(rows))


@snapshot.command("list")
def snapshot_list(
    context: typer.Context,
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Instead of the configuration's backup_directory.")
    ] = None,
    output: OutputOption = "table",
) -> None:
    """List the files that the members' schedule has written on this host, the oldest first."""
    if folder is None:
        folder = load(_connection(context).config, StoreConfig).backup_directory
    if folder is None:
        raise CliError("the configuration names no backup_directory", "--dir names one")
    rows = snapshots.scheduled(folder)
    table = [("TIME", "MEMBER", "REVISION", "SIZE", "FILE")]
    table += [(f"{r.time:%Y-%m-%d %H:%M:%S}Z", r.member, str(r.revision), size(r.size), r.file) for r in rows]
    _print(rows, output, render(table))


@snapshot.command("restore")
def snapshot_restore(
    context: typer.Context,
    file: FileArgument,
    data_dir: Annotated[Path | None, typer.Option(help="Instead of the configuration's; it must be empty.")] = None,
    name: Annotated[str, typer.Option(help="This member's name, instead of the configuration's.")] = "",
    members: Annotated[
        list[str] | None,
        typer.Option("--member", metavar="NAME=HOST:PORT", help="Every member, instead of the configuration's."),
    ] = None,
    cluster_name: Annotated[str, typer.Option(help="Instead of the configuration's.")] = "",
    skip_hash_check: Annotated[bool, typer.Option("--skip-hash-check", help="Restore without the checksum.")] = False,
    bump_revision: BumpOption = None,
    mark_compacted: Annotated[
        bool, typer.Option("--mark-compacted", help="As etcdutl has it; always so when revisions are left out.")
    ] = False,
    token: Annotated[str, typer.Option(help="Tells groups apart that are made of one file for the same members.")] = "",
) -> None:
    """Make this host's member one of a NEW group with a file's state; the member must not have data yet.

    Do the same for every member, with the same file and options, and then start them. Members of the old group, and
    those that were given something else, have no part in it. Needs no store that runs; `--config` comes before the
    command, and names the member's store.yaml.
    """
    words: list[str] = []
    for option, value in (("--data-dir", data_dir), ("--name", name), ("--cluster-name", cluster_name)):
        words += [f"{option}={value}"] if value else []
    words += [f"--member={pair}" for pair in members or []]
    words += ["--skip-hash-check"] if skip_hash_check else []
    words += ["--mark-compacted"] if mark_compacted else []
    words += [f"--token={token}"] if token else []
    _here("restore", context, bump_revision, [*words, "--", str(file)])


@store.command()
def recover(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what the member has; change nothing.")] = False,
    bump_revision: BumpOption = None,
) -> None:
    """When the majority is lost for good: let this host's member, which must be stopped, go on ALONE with what it has.

    Writes that only the lost members had are lost. Members of the old group have no part in the new one; on their
    hosts, `kybern store join` makes members of it. `--config` comes before the command.
    """
    words = ["--yes"] if yes else []
    words += ["--dry-run"] if dry_run else []
    _here("recover", context, bump_revision, words)


@store.command()
def join(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Let this host's member join the store that runs: a further one, or one whose disk was lost. It must be stopped.

    It begins with nothing and is sent everything by the others. A member of its name is removed from the store before.
    Needs a store that runs without this member; `--config` comes before the command, and names the member's store.yaml.
    """
    config = load(_connection(context).config, StoreConfig)
    others = [address for name, address in sorted(config.clients.items()) if name != config.name]
    given = _access(context)
    access = Access([a for a in given.addresses if a != config.client_address] or others, given.tls)
    # Nothing is moved aside for a store that could not take the member in.
    known = _run("asking the store", store_calls.members(access, by_quorum=True))
    own = find_own(known, config)
    if own is not None:
        typer.echo(
            f"{config.name} is a member already. It will be removed and join anew, with nothing: do this when its data "
            f"in {config.data_dir} is lost for good. While it learns, the store survives one loss less."
        )
        if not yes and _asked(f"Type the member's name ({config.name}) to go on: ") != config.name:
            raise CliError("not confirmed; nothing was changed", "--yes goes on without asking")
    # First here: while the group still knows the old member, one without its data is not let in.
    _here("join", context, None, [])

    async def change() -> MemberRow:
        if own is not None:
            await store_calls.remove_member(access, int(own.id, 16))
        return await store_calls.add_member(access, config.peer_address, learner=False)

    added = _run("telling the store", change())
    typer.echo(f"{config.name} may join as member {added.id}. Next, here: systemctl start kybern-store")


def find_own(known: Sequence[MemberRow], config: StoreConfig) -> MemberRow | None:
    """The member that a configuration is for; one that was added and has not come has its address alone.

    Raises:
        CliError: when its address is another member's, or the other way round.
    """
    found = [m for m in known if m.name == config.name or m.peer_address == config.peer_address]
    for one in found:
        if len(found) > 1 or one.name not in ("", config.name):
            raise CliError(
                f"the store has the member {one.name or one.id} at {one.peer_address}, and this one is to be "
                f"{config.name} at {config.peer_address}",
                "`kybern store member list` shows them, `kybern store member remove` removes one that is gone",
            )
    return found[0] if found else None


def _here(command: str, context: typer.Context, bump: int | None, words: Sequence[str]) -> None:
    """Let kybern-store do something to this host's data directory: what is in there is its alone to know."""
    given = [] if bump is None else [f"--bump-revision={bump}"]
    config = f"--config={_connection(context).config.absolute()}"
    # Not the current folder's modules: -P.
    program = [sys.executable, "-P", "-m", "store.main"]
    sys.stdout.flush()
    done = subprocess.run([*program, command, config, *given, *words], check=False)
    if done.returncode:
        raise typer.Exit(1)


def _access(context: typer.Context) -> Access:
    return _connection(context).access()


def _connection(context: typer.Context) -> _Connection:
    found = context.obj
    assert isinstance(found, _Connection)  # noqa: S101 - `connect` made it
    return found


def _with_member(
    context: typer.Context, name: str, act: Callable[[Access, int], Coroutine[Any, Any, None]], what: str
) -> str:
    """Do something with a member that is named or numbered; the member, in words."""

    async def work() -> MemberRow:
        access = _access(context)
        found = await store_calls.find_member(access, name)
        await act(access, int(found.id, 16))
        return found

    found = _run(what, work())
    # One that has not come yet has no name.
    return f"member {found.id} ({found.name or found.peer_address})"


def _print(found: object, output: Output, table: str) -> None:
    typer.echo(msgspec.json.encode(found).decode() if output == "json" else table)


def _status_table(rows: Sequence[StatusRow]) -> str:
    columns = ("REVISION", "TERM", "APPLIED", "IN USE", "QUOTA", "VERSION", "LEVEL", "ID")
    table: list[tuple[str, ...]] = [("NAME", "ADDRESS", "STATE", "ROLE", *columns)]
    for row in rows:
        if not row.answers:
            table.append((row.name, row.address, "Down", "", *[""] * len(columns)))
            continue
        role = "leader" if row.leader else "learner" if row.learner else "follower"
        state = "Serving" if row.knows_leader else "NoLeader"
        numbers = (str(row.revision), str(row.term), str(row.applied))
        sizes = (size(row.size_in_use), size(row.quota) if row.quota else "-")
        table.append((row.name, row.address, state, role, *numbers, *sizes, row.version, level_of(row), row.id))
    return render(table)


def level_of(row: StatusRow) -> str:
    """The group's level, and what the member can apply when that is more: it waits for others to be upgraded."""
    higher = row.highest_level and str(row.highest_level) != row.level
    return f"{row.level} (can {row.highest_level})" if higher else row.level or "-"


def _member_table(rows: Sequence[MemberRow]) -> str:
    table = [("NAME", "PEERS", "CLIENTS", "VOTES", "ID")]
    table += [(m.name, m.peer_address, m.client_address, "no" if m.learner else "yes", m.id) for m in rows]
    return render(table)
