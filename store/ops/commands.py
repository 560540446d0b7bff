"""`kybern-store restore`, `recover` and `join`: what is done to a data directory while no member uses it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from kybern import daemon, logs
from kybern.clock import SystemClock
from kybern.config.loading import load
from kybern.config.models import StoreConfig
from kybern.daemon import StartupError
from store.ops.recover import Survey, Survivor
from store.ops.restore import Order, restore
from store.ops.state import BUMP, MOST_BUMP
from store.raft import failpoints
from store.raft.datadir import vacate

_CONFIG = Path("/etc/kybern/store.yaml")
# What shells say of a program that ended by Ctrl-C.
_INTERRUPTED = 130


def main(program: str, arguments: Sequence[str]) -> int:
    """Run a command line that begins with one of them; the result is the exit code."""
    parser = argparse.ArgumentParser(prog=program)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_restore(commands.add_parser("restore", help="make a data directory out of a file of a snapshot"))
    _add_recover(commands.add_parser("recover", help="let one member go on alone after a loss of the quorum"))
    _add_join(commands.add_parser("join", help="make an empty data directory for a member that joins a group"))
    options = parser.parse_args(arguments)
    logs.setup("warning", "text")
    try:
        failpoints.from_environment(os.environ)
        {"restore": _restore, "recover": _recover, "join": _join}[options.command](options)
    except StartupError as error:
        return daemon.fail(program, error)
    except KeyboardInterrupt:
        print(f"\n{program}: interrupted", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _add_restore(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make the data directory of a member of a new group out of a file of a snapshot. Do so for every member, with "
        "the same file and the same options; members that were given something else are not let in."
    )
    parser.add_argument("file", type=Path)
    _add_config(parser)
    parser.add_argument("--data-dir", type=Path, help="instead of the configuration's; must be empty")
    parser.add_argument("--name", help="instead of the configuration's")
    parser.add_argument(
        "--member", action="append", default=[], metavar="NAME=HOST:PORT", help="instead of the configuration's; each"
    )
    parser.add_argument("--cluster-name", help="instead of the configuration's")
    parser.add_argument(
        "--skip-hash-check", action="store_true", help="restore a file whose checksum is wrong or absent"
    )
    parser.add_argument("--token", default="", help="tells groups apart that are made of one file for the same members")
    _add_bump(parser)
    parser.add_argument(
        "--mark-compacted", action="store_true", help="as etcdutl has it; always so when revisions are left out"
    )


def _add_recover(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "After the majority of a group is lost for good: make this host's member, which must not run, the only one of "
        "a new group, with all that it has. It asks for a confirmation."
    )
    _add_config(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--dry-run", action="store_true", help="say what the member has and end; nothing is changed")
    _add_bump(parser)


def _add_join(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make the data directory of this host's member, which must not run, an empty one with which it waits until the "
        "leader of a group that runs finds it. `kybern store join` does this, and tells the group."
    )
    _add_config(parser)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=_CONFIG, help="the member's store.yaml (default: %(default)s)")


def _add_bump(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bump-revision",
        type=int,
        default=BUMP,
        metavar="N",
        help="leave out so many revisions, and compact what is before, so that watches that have seen lost revisions "
        "begin anew; 0 for none (default: %(default)s)",
    )


def _restore(options: argparse.Namespace) -> None:
    order = _order(options)
    _say(f"reading {order.file}, which takes a while when it is large")
    done = restore(order)
    print(
        f"{order.data_dir}: the data directory of {order.name} in a new group of {', '.join(sorted(order.members))}: "
        f"revision {done.revision}, {done.keys} keys, {done.leases} leases; group {done.group}"
    )
    print(listed(order, "--member" if options.member else str(options.config)))
    print("Next: the same on the others' hosts, with the same file; then start all of them.")


def listed(order: Order, source: str) -> str:
    """The members of the new group, which `source` names, and how to have others: all of them count for a majority."""
    names = sorted(order.members)
    width = max(map(len, names))
    rows = [f"  {n:{width}}  {order.members[n]}{'  (this one)' if n == order.name else ''}" for n in names]
    change = "name the others alone"
    if source != "--member":
        change = f"`kybern master remove NAME --files-only` takes it out of {source} (or give --member for each other)"
    return "\n".join(
        [
            f"Its members are those of {source}; {len(names) // 2 + 1} of {len(names)} must run:",
            *rows,
            f"If one of them is gone, or never came: {change}, empty {order.data_dir}, and restore again.",
        ]
    )


def _order(options: argparse.Namespace) -> Order:
    bump = _bump(options)
    if options.mark_compacted and not bump:
        raise StartupError("--mark-compacted needs a --bump-revision of more than 0")
    members: dict[str, str] = {}
    for pair in options.member:
        name, separator, address = pair.partition("=")
        if not separator or name in members:
            raise StartupError(f"--member {pair}: must be NAME=HOST:PORT, each name once")
        members[name] = address
    complete = options.data_dir and options.name and members
    config = None if complete else load(options.config, StoreConfig)
    return Order(
        file=options.file,
        data_dir=(options.data_dir or _of(config).data_dir).absolute(),
        name=options.name or _of(config).name,
        members=members or _of(config).members,
        clients={} if config is None or members else config.clients,
        cluster=options.cluster_name or ("kybern" if config is None else config.cluster_name),
        check=not options.skip_hash_check,
        bump=bump,
        token=options.token,
    )


def _of(config: StoreConfig | None) -> StoreConfig:
    assert config is not None  # noqa: S101 - loaded unless all that it would be asked for was given
    return config


def _bump(options: argparse.Namespace) -> int:
    bump: int = options.bump_revision
    if not 0 <= bump <= MOST_BUMP:
        raise StartupError(f"--bump-revision {bump}: must be from 0 to {MOST_BUMP}")
    return bump


def _recover(options: argparse.Namespace) -> None:
    bump = _bump(options)
    config = load(options.config, StoreConfig)
    _say(f"reading {config.data_dir}, which takes a while when it holds much")
    survivor = Survivor.open(config)
    try:
        survey = survivor.survey()
        print(described(config, survey))
        if not survey.others and survey.belongs:
            raise StartupError(f"{config.name} is the only member of its group already; nothing was changed")
        if options.dry_run:
            return
        print(warned(config, survey, bump))
        if not options.yes:
            _confirm(config.name)
        kept, revision = survivor.recover(SystemClock().now(), bump)
    finally:
        survivor.close()
    print(f"{config.name} is alone in a new group now, at revision {revision}.")
    print(f"What was is kept in {kept}; remove it when all is well.")
    print(
        "Next: start kybern-store here. Then, on the host of each further member, which must not run yet: "
        "`kybern store join`, and start it."
    )


def _join(options: argparse.Namespace) -> None:
    config = load(options.config, StoreConfig)
    kept = vacate(config.data_dir, f"before-joining-{SystemClock().now():%Y%m%dT%H%M%SZ}")
    if kept is not None:
        print(f"What {config.data_dir} held is kept in {kept}; remove it when all is well.")


def described(config: StoreConfig, survey: Survey) -> str:
    """What a member has, for comparing survivors with each other."""
    others = ", ".join(f"{m.name or '?'} ({m.peer_address})" for m in survey.others) or "nobody"
    lines = [
        f"Member {config.name} of the cluster {config.cluster_name}, in {config.data_dir}:",
        f"  last entry  {survey.last_index} of term {survey.last_term}",
        f"  state       revision {survey.revision}, {survey.keys} keys, {survey.leases} leases",
        f"  others      {others}",
    ]
    if not survey.belongs:
        lines.append("  NOTE        this member was removed from the group, or never took part; what it has may be old")
    return "\n".join(lines)


def warned(config: StoreConfig, survey: Survey, bump: int) -> str:
    """What recovering a member means."""
    name, revision = config.name, survey.revision + bump
    others = " and ".join(m.name or m.peer_address for m in survey.others) or "the others"
    history = "history before is compacted, so that watchers begin anew."
    if not bump:
        history = "that may be a step BACK. Restart whoever watches the store."
    return f"""
WARNING: this makes {name} the only member of a new group. Do it only when the majority is lost for good: if enough
members can be started again with their disks, start those instead.
- LOST: writes that {others} acknowledged without this member. What they were cannot be known here.
  If another member has survived too, compare with --dry-run there, and recover that one alone whose last entry has
  the higher term, and of the same term the higher number.
- KEPT: everything in {name}'s log, also writes of which it never heard whether they were committed; so writes that
  were reported as failed may turn out to be done.
- {others} must not be started with their data again: this group does not let them in, but a majority of them
  would serve clients as the old group.
- The revision goes on at {revision}; {history}
"""


def _say(text: str) -> None:
    """What somebody who waits wants to know."""
    print(f"{text} ...", file=sys.stderr, flush=True)


def _confirm(name: str) -> None:
    try:
        typed = input(f"Type the member's name ({name}) to go on: ")
    except EOFError:
        typed = ""
    if typed.strip() != name:
        print(file=sys.stderr)
        raise StartupError("not confirmed; nothing was changed (--yes goes on without asking)")
