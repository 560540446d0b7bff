"""`kybern master`: take a master out of the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from kybern.cli import files as on_disk
from kybern.cli import store_calls
from kybern.cli.errors import CliError
from kybern.cli.leaving import Leaving, leaving
from kybern.cli.options import ETC, FolderOption
from kybern.cli.store_calls import Access, MemberRow
from kybern.cli.tables import OutputOption
from kybern.cli.talking import asked, run
from kybern.rpc.credentials import channel_credentials

master = typer.Typer(help="Take masters out. `kybern certs master` makes further ones.", no_args_is_help=True)

_FILES_ONLY = "--files-only"
_STORE_IS_AWAY = (
    f"{_FILES_ONLY} leaves the store as it is and changes this host's files alone, as before "
    "`kybern store snapshot restore`"
)


class Removal(msgspec.Struct, frozen=True):
    """What was done, or with `dry_run` would be. `member`: the member of the store that was removed, as it lists it."""

    name: str
    address: str
    member: MemberRow | None
    files: list[str]
    masters: list[str]
    dry_run: bool = False


@master.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="Name of the master.")],
    files_only: Annotated[
        bool, typer.Option(_FILES_ONLY, help="Do not ask the store, nor remove a member from it.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; change nothing.")] = False,
    output: OutputOption = "table",
    folder: FolderOption = ETC,
) -> None:
    """Take a master out of the cluster: its member out of the store, and its name out of this host's files.

    The store refuses when the members that stay and answer would be no majority. Say it on the other hosts too: each
    has files of its own. Saying it again does no harm.
    """
    folder = folder.absolute()
    found = leaving(folder, name)
    member = None
    if not files_only and (access := _access(found)) is not None:
        known = run("asking the store", _members(access))
        member = own_member(known, found)
        if member is not None and not dry_run:
            _remove_member(access, found, member, yes=yes)
    if found.files and not dry_run:
        on_disk.write(folder, found.files, force=True)
    removal = Removal(name, found.address, member, list(found.files), list(found.others), dry_run)
    typer.echo(msgspec.json.encode(removal).decode() if output == "json" else described(removal, found, folder))


def own_member(known: Sequence[MemberRow], found: Leaving) -> MemberRow | None:
    """The store's member of a master; one that was added and never came has its address alone."""
    peer = f"{found.address}:{found.file.ports.peers}"
    return next((m for m in known if m.name == found.name or (not m.name and m.peer_address == peer)), None)


def described(removal: Removal, found: Leaving, folder: Path) -> str:
    """What was done, and what there is to do."""
    name = removal.name
    if removal.member is None and not removal.files:
        left = ", ".join(removal.masters)
        return f"There is no master {name}, neither in the store nor in {folder}; nothing to do. There are {left}."
    will, lines = ("would be" if removal.dry_run else "was"), []
    if removal.member is not None:
        lines.append(f"{name}: its member {removal.member.id} {will} removed from the store.")
    lines += [f"{folder / file}: {name} {will} taken out." for file in removal.files]
    if removal.dry_run:
        return "\n".join(lines)
    if len(removal.masters) % 2 == 0:
        count = len(removal.masters)
        lines.append(f"Note: {count} masters survive no more losses than {count - 1} do; take an odd number.")
    if removal.address and f"//{removal.address}:" in f"{found.file.endpoint}/":
        lines.append(f"Note: kubeconfigs name {found.file.endpoint}, which was this master: they need another address.")
    lines += [
        "Next:",
        f"  on every other host of the cluster: kybern master remove {name}",
        f"  on {name}, if it is still there: systemctl disable --now kybern-master kybern-store",
        "  Its certificates are good until they end: destroy those that it has in /etc/kybern/pki.",
    ]
    return "\n".join(lines)


def _access(found: Leaving) -> Access | None:
    """How to reach the store's other members; None on a host that has none."""
    if found.store is None:
        return None
    channel_credentials(found.store.tls)
    addresses = [address for n, address in sorted(found.store.clients.items()) if n != found.name]
    return Access(addresses, found.store.tls, partial=True)


async def _members(access: Access) -> list[MemberRow]:
    """The members as a majority has them: what one says that lags behind may be what was before."""
    try:
        return await store_calls.members(access, by_quorum=True)
    except CliError as error:
        raise CliError(f"{error}; nothing was changed", _STORE_IS_AWAY) from error


def _remove_member(access: Access, found: Leaving, member: MemberRow, *, yes: bool) -> None:
    typer.echo(
        f"{found.name} is the member {member.id} of the store. It will be removed for good, and its data there counts "
        "no more.",
        err=True,
    )
    if not yes and asked(f"Type the master's name ({found.name}) to go on: ") != found.name:
        raise CliError("not confirmed; nothing was changed", "--yes goes on without asking")
    try:
        run("removing the member", store_calls.remove_member(access, int(member.id, 16)))
    except CliError as error:
        raise CliError(f"{error}; this host's files were not changed", error.hint or _STORE_IS_AWAY) from error
