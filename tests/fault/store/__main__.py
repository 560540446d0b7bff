"""`python -m tests.fault.store --rounds N --seed S`: faults under load, checked. Exit code 1 on any violation.

The seed decides the faults, their order and length, and what each client asks for; when exactly processes and packets
get their turn is the machine's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from tests import volumes
from tests.fault.store import disks, nemesis
from tests.fault.store.cluster import Cluster
from tests.fault.store.folders import own_folder
from tests.fault.store.network import INSIDE, own_namespaces
from tests.fault.store.rounds import Options, Run, Summary


def main() -> int:
    """Parse the arguments and run; the result is the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fault.store", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None, help="default: random, and printed")
    parser.add_argument("--seconds", type=float, default=0.0, help="begin no other round after so many seconds")
    parser.add_argument("--nemesis", default="all", help=f"faults, with commas: all, {', '.join(nemesis.FAULTS)}")
    parser.add_argument("--single", action="store_true", help="do not also kill all members in every round")
    parser.add_argument("--keep", type=Path, default=None, help="a folder for data, logs and histories; it is kept")
    options = parser.parse_args()
    seed = random.randrange(1 << 31) if options.seed is None else options.seed
    names = list(nemesis.FAULTS) if options.nemesis == "all" else options.nemesis.split(",")
    if unknown := [name for name in names if name not in nemesis.FAULTS]:
        parser.error(f"unknown faults: {', '.join(unknown)}")
    if INSIDE not in os.environ:
        command = own_namespaces()
        if command is None:
            parser.error("network and mount namespaces of its own need root (or namespaces of users), and iproute2")
        # What is in namespaces vanishes with their last process, however it ends.
        os.environ[INSIDE] = "1"
        os.execv(command[0], [*command, sys.executable, "-m", "tests.fault.store", *sys.argv[1:], f"--seed={seed}"])
    left_out = {n: why for n, why in nemesis.unavailable().items() if n in names}
    faults = [name for name in names if name not in left_out]
    random.Random(seed).shuffle(faults)
    _say(f"seed {seed}")
    for name, why in left_out.items():
        _say(f"without {name}: {why}")
    if not faults:
        parser.error("nothing is left to do")
    # As Ctrl-C: what was started is ended, and the data removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    how = Options(seed, options.rounds, faults, seconds=options.seconds, kill_all_every_round=not options.single)
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
        summary = asyncio.run(_run(options.keep, how))
    else:
        with own_folder() as folder:
            summary = asyncio.run(_run(folder, how))
    summary.left_out = left_out
    if "fail-point" in faults and summary.fail_points_missed:
        _say(f"steps that no member was at: {', '.join(summary.fail_points_missed)}")
    print(json.dumps(asdict(summary)), flush=True)
    return 1 if summary.violations else 0


async def _run(folder: Path, options: Options) -> Summary:
    cluster = Cluster(folder)
    if "disk-full" in options.faults:
        cluster.data(disks.TMPFS_MEMBER).mkdir(mode=0o700)
        await disks.mount_tmpfs(cluster.data(disks.TMPFS_MEMBER))
    if "disk-hang" in options.faults:
        volumes.make_volume(cluster.data(disks.VOLUME_MEMBER))
    try:
        await cluster.start()
        run = Run(cluster, options, _say)
        try:
            await run.run()
        finally:
            await run.close()
    finally:
        await cluster.stop()
        if "disk-full" in options.faults:
            await disks.unmount(cluster.data(disks.TMPFS_MEMBER))
        if "disk-hang" in options.faults:
            volumes.remove_volume(cluster.data(disks.VOLUME_MEMBER))
    return run.summary


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
