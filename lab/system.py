"""Installs the programs of the system that are missing. Needs nothing but Python's own library: it runs first of all.

python3 lab/system.py run|test
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

# By what for: the program that must be there, and Debian's packages that have it.
PACKAGES: dict[str, dict[str, str]] = {
    "run": {
        "dockerd": "docker.io",
        "containerd": "containerd",
        "iptables-restore": "iptables",
        "conntrack": "conntrack",
        "busybox": "busybox-static",
        "ip": "iproute2",
        "nsenter": "util-linux",
        "tail": "coreutils",
    },
    # With its provider, without which it does not check the providers' settings.
    "test": {
        "etcd": "etcd-server",
        "faketime": "faketime",
        "etcdctl": "etcd-client",
        "dig": "bind9-dnsutils",
        "mkfs.ext4": "e2fsprogs",
        "nft": "nftables",
        "systemd-analyze": "systemd",
        "vagrant": "vagrant vagrant-libvirt",
    },
}
ADMIN_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
# Read by Debian's invoke-rc.d and deb-systemd-invoke before they start what was just installed.
POLICY = Path("/usr/sbin/policy-rc.d")


def missing(purposes: list[str]) -> list[str]:
    """The packages whose programs are not there."""
    path = os.environ.get("PATH", "") + os.pathsep + ADMIN_PATH
    wanted = {program: package for p in purposes for program, package in PACKAGES[p].items()}
    absent = (packages for program, packages in wanted.items() if shutil.which(program, path=path) is None)
    found = {package for packages in absent for package in packages.split()}
    if "run" in purposes and not _has_venv():
        found.add("python3-venv")
    return sorted(found)


def install(packages: list[str]) -> int:
    """Install packages with apt-get; returns its exit code. Engines that are installed are not started."""
    if shutil.which("apt-get") is None:
        print(f"these are missing, and there is no apt-get here: {' '.join(packages)}", file=sys.stderr)
        return 1
    if os.geteuid() != 0:
        print(f"installing {' '.join(packages)} needs root: run this with sudo", file=sys.stderr)
        return 1
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    held = not POLICY.exists()
    if held:
        # The lab starts engines of its own; one that the package starts would be left behind by `make down`.
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        for command in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
            began = time.monotonic()
            print(f"... apt-get {' '.join(command)}", file=sys.stderr, flush=True)
            code = subprocess.run(
                ["apt-get", "-qq", "-o", "Dpkg::Use-Pty=0", *command],
                env=environment,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            ).returncode
            if code != 0 and command[0] == "install":
                return code
            print(f"✓ apt-get {command[0]} ({time.monotonic() - began:.1f} s)", file=sys.stderr, flush=True)
    finally:
        if held:
            POLICY.unlink()
    return 0


def _has_venv() -> bool:
    try:
        import ensurepip  # noqa: F401, PLC0415 - Debian has it in a package of its own
    except ImportError:
        return False
    return True


def main(purposes: list[str]) -> int:
    """The command: installs what is missing for the named purposes."""
    if not purposes or not set(purposes) <= set(PACKAGES):
        print(f"usage: python3 lab/system.py {'|'.join(PACKAGES)}...", file=sys.stderr)
        return 2
    if sys.version_info < (3, 11):  # noqa: UP036 - whatever Python is there runs this first
        print(f"Kybern needs Python 3.11 or later; this is {sys.version.split()[0]}: make PYTHON=...", file=sys.stderr)
        return 1
    packages = missing(purposes)
    return install(packages) if packages else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
