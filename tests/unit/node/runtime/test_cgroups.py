"""Control groups of both versions, as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.runtime import cgroups

ID = "abc123"


def put(root: Path, **files: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / name.replace("__", ".")).write_text(text)


def process(tmp_path: Path, groups: str) -> Path:
    put(tmp_path / "proc/7", cgroup=groups)
    return tmp_path / "proc"


@pytest.mark.parametrize("mounted", ["cpuacct", "cpu,cpuacct"])
def test_version_1(tmp_path: Path, mounted: str) -> None:
    proc = process(tmp_path, f"8:memory:/p/{ID}\n2:{mounted}:/p/{ID}\n0::/\n")
    put(tmp_path / f"cg/{mounted}/p/{ID}", cpuacct__usage="12345\n")
    put(
        tmp_path / f"cg/memory/p/{ID}",
        memory__usage_in_bytes="5000\n",
        memory__stat="cache 1\ntotal_inactive_file 1500\n",
    )
    assert cgroups.usage(7, ID, root=tmp_path / "cg", proc=proc) == (12345, 3500)


@pytest.mark.parametrize("mount", ["cg", "cg/unified"])
def test_version_2(tmp_path: Path, mount: str) -> None:
    proc = process(tmp_path, f"0::/system.slice/docker-{ID}.scope\n")
    put(
        tmp_path / f"{mount}/system.slice/docker-{ID}.scope",
        memory__current="9000\n",
        memory__stat="anon 1\ninactive_file 10000\n",
        cpu__stat="usage_usec 77\nuser_usec 70\n",
    )
    # The working set is never below zero.
    assert cgroups.usage(7, ID, root=tmp_path / "cg", proc=proc) == (77_000, 0)


def test_another_process_that_got_the_number(tmp_path: Path) -> None:
    proc = process(tmp_path, "0::/user.slice/other\n")
    put(tmp_path / "cg/user.slice/other", memory__current="1", memory__stat="", cpu__stat="usage_usec 1")
    assert cgroups.usage(7, ID, root=tmp_path / "cg", proc=proc) is None


@pytest.mark.parametrize("groups", ["", f"0::/gone/{ID}\n", f"8:memory:/p/{ID}\n2:cpuacct:/p/{ID}\n"])
def test_files_that_are_not_there(tmp_path: Path, groups: str) -> None:
    proc = process(tmp_path, groups)
    assert cgroups.usage(7, ID, root=tmp_path / "cg", proc=proc) is None
    assert cgroups.usage(8, ID, root=tmp_path / "cg", proc=proc) is None


def test_the_whole_host(tmp_path: Path) -> None:
    # user nice system idle iowait irq softirq steal guest guest_nice
    put(
        tmp_path,
        stat="cpu  10 1 5 900 50 2 3 4 6 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n",
        meminfo="MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: 400 kB\n",
    )
    assert cgroups.host_usage(ticks_per_second=100, proc=tmp_path) == (250_000_000, 600 * 1024)
