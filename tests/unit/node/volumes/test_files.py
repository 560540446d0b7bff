"""Volumes made of files, on a real disk in a temporary directory."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kybern.api.errors import unavailable
from kybern.api.types import ConfigMap, Pod, Secret
from node.volumes.atomic import FileEntry
from node.volumes.files import Owner
from node.volumes.interface import HostFacts, Token, VolumeError, run_inline
from node.volumes.manager import VolumeManager
from tests.unit.node.agent.bench import FakeMounter


class Sources:
    """The API's objects, and tokens that are counted."""

    def __init__(self) -> None:
        self.config: dict[str, Mapping[str, Any]] = {}
        self.secrets: dict[str, Mapping[str, str]] = {}
        self.tokens = 0
        self.away = False
        self.clock = Clock()

    async def config_map(self, namespace: str, name: str) -> ConfigMap | None:
        self._reach()
        return msgspec.convert(self.config[name], ConfigMap) if name in self.config else None

    async def secret(self, namespace: str, name: str) -> Secret | None:
        self._reach()
        return msgspec.convert({"data": self.secrets[name]}, Secret) if name in self.secrets else None

    async def token(self, pod: Pod, audience: str, seconds: int) -> Token:
        self._reach()
        self.tokens += 1
        return Token(f"{audience}-{self.tokens}", self.clock.now() + timedelta(seconds=seconds))

    def _reach(self) -> None:
        if self.away:
            raise unavailable("cut off")


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


class Disk:
    """A manager with all that it needs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sources = Sources()
        self.mounter = FakeMounter()
        self.manager = self.restart()

    def restart(self) -> VolumeManager:
        host = HostFacts("n1", "192.168.7.11", 4000, 8 * 2**30, 2**40)
        clock = self.sources.clock
        self.manager = VolumeManager(self.path, self.sources, host, clock, self.mounter, run_inline)
        return self.manager

    def set_up(self, *volumes: dict[str, Any], **more: Any) -> dict[str, Path]:
        return asyncio.run(self.manager.set_up(pod(*volumes, **more)))

    def refresh(self, *volumes: dict[str, Any], **more: Any) -> None:
        asyncio.run(self.manager.refresh(pod(*volumes, **more)))


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def pod(*volumes: dict[str, Any], **more: Any) -> Pod:
    metadata = {"name": "p", "namespace": "default", "uid": "uid", **more.pop("metadata", {})}
    limits = {"name": "main", "resources": {"limits": {"cpu": "1500m"}}}
    return msgspec.convert({"metadata": metadata, "spec": {"containers": [limits], "volumes": volumes, **more}}, Pod)


def tree(root: Path) -> dict[str, str]:
    """What a container sees: names and contents."""
    shown: dict[str, str] = {}
    for path in sorted(root.iterdir()):
        if not path.name.startswith(".."):
            if path.is_dir():
                shown |= {f"{path.name}/{name}": text for name, text in tree(path).items()}
            else:
                shown[path.name] = path.read_text()
    return shown


CONFIG = {"name": "c", "configMap": {"name": "c"}}


def test_every_key_is_a_file(disk: Disk) -> None:
    disk.sources.config["c"] = {"data": {"a": "1", "b": "2"}, "binaryData": {"raw": "aGk="}}
    root = disk.set_up(CONFIG)["c"]
    assert root == disk.path / "pods" / "uid" / "volumes" / "c"
    assert tree(root) == {"a": "1", "b": "2", "raw": "hi"}
    assert (root / "a").stat().st_mode & 0o777 == 0o644
    assert not disk.mounter.mounted


def test_items_choose_paths_and_modes(disk: Disk) -> None:
    disk.sources.config["c"] = {"data": {"a": "1", "b": "2"}}
    items = [{"key": "a", "path": "deep/er/x", "mode": 0o400}]
    root = disk.set_up({"name": "c", "configMap": {"name": "c", "items": items, "defaultMode": 0o600}})["c"]
    assert tree(root) == {"deep/er/x": "1"}
    assert (root / "deep/er/x").stat().st_mode & 0o777 == 0o400


def test_what_is_missing_is_named_unless_it_is_optional(disk: Disk) -> None:
    with pytest.raises(VolumeError, match='failed for volume "c" : configmap "c" not found'):
        disk.set_up(CONFIG)
    assert tree(disk.set_up({"name": "c", "configMap": {"name": "c", "optional": True}})["c"]) == {}
    disk.sources.config["c"] = {"data": {"a": "1"}}
    items = [{"key": "zzz", "path": "x"}]
    with pytest.raises(VolumeError, match="references non-existent key 'zzz'"):
        disk.set_up({"name": "c", "configMap": {"name": "c", "items": items}})
    assert tree(disk.set_up({"name": "c", "configMap": {"name": "c", "items": items, "optional": True}})["c"]) == {}


def test_secrets_lie_in_memory(disk: Disk) -> None:
    disk.sources.secrets["s"] = {"password": base64.b64encode(b"hunter2").decode()}
    root = disk.set_up({"name": "s", "secret": {"secretName": "s", "defaultMode": 0o400}})["s"]
    assert tree(root) == {"password": "hunter2"}
    assert (root / "password").stat().st_mode & 0o777 == 0o400
    assert disk.mounter.mounted == {root: (None, 0o755)}


def test_changes_come_all_at_once_through_one_link(disk: Disk) -> None:
    disk.sources.config["c"] = {"data": {"a": "1", "b": "1"}}
    root = disk.set_up(CONFIG)["c"]
    before = (root / "..data").readlink()
    held = os.open(root / "..data", os.O_RDONLY)
    disk.sources.config["c"] = {"data": {"a": "2", "c": "2"}}
    disk.refresh(CONFIG)
    assert tree(root) == {"a": "2", "c": "2"}
    assert (root / "..data").readlink() != before
    assert (root / "a").readlink() == Path("..data/a")
    # The old directory is gone, whoever still holds it.
    assert [p.name for p in root.iterdir() if p.is_dir() and not p.is_symlink()] == [str((root / "..data").readlink())]
    os.close(held)
    same = (root / "..data").readlink()
    disk.refresh(CONFIG)
    assert (root / "..data").readlink() == same


def test_while_the_api_is_away_files_stay(disk: Disk) -> None:
    disk.sources.config["c"] = {"data": {"a": "1"}}
    root = disk.set_up(CONFIG)["c"]
    disk.sources.away = True
    disk.refresh(CONFIG)
    disk.restart()
    assert disk.set_up(CONFIG)["c"] == root
    assert tree(root) == {"a": "1"}
    with pytest.raises(VolumeError, match="cut off"):
        disk.set_up(CONFIG, {"name": "d", "configMap": {"name": "d"}})


TOKEN = {
    "name": "t",
    "projected": {
        "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 1000, "audience": "api"}},
            {"configMap": {"name": "ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
        ]
    },
}


def test_tokens_are_replaced_before_they_end(disk: Disk) -> None:
    disk.sources.config["ca"] = {"data": {"ca.crt": "CERT"}}
    root = disk.set_up(TOKEN)["t"]
    assert tree(root) == {"token": "api-1", "ca.crt": "CERT", "namespace": "default"}
    assert root in disk.mounter.mounted
    disk.sources.clock.seconds = 790
    disk.refresh(TOKEN)
    assert disk.sources.tokens == 1
    disk.sources.clock.seconds = 801
    disk.refresh(TOKEN)
    assert tree(root)["token"] == "api-2"


def test_tokens_belong_to_whom_they_are_for() -> None:
    assert Owner().secret_entry(b"", 0o644) == FileEntry(b"", 0o644)
    assert Owner(uid=1000).secret_entry(b"", 0o644) == FileEntry(b"", 0o600, uid=1000)
    assert Owner(uid=1000, gid=2000).secret_entry(b"", 0o644) == FileEntry(b"", 0o640, gid=2000)
    assert Owner(gid=2000).entry(b"", 0o400) == FileEntry(b"", 0o440, gid=2000)


def test_the_downward_api(disk: Disk) -> None:
    items = [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "app", "fieldRef": {"fieldPath": "metadata.labels['app']"}},
        {"path": "cpu", "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu"}},
        {"path": "cpu_m", "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu", "divisor": "1m"}},
        {"path": "memory", "resourceFieldRef": {"containerName": "main", "resource": "limits.memory"}},
        {"path": "request", "resourceFieldRef": {"containerName": "main", "resource": "requests.memory"}},
    ]
    volume = {"name": "d", "downwardAPI": {"items": items}}
    labels = {"app": "web", "b": 'x"y'}
    root = disk.set_up(volume, metadata={"labels": labels})["d"]
    assert tree(root) == {
        "labels": 'app="web"\nb="x\\"y"',
        "app": "web",
        "cpu": "2",
        "cpu_m": "1500",
        "memory": str(8 * 2**30),
        "request": "0",
    }
    disk.refresh(volume, metadata={"labels": {"app": "db"}})
    assert tree(root)["app"] == "db"


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "..x", ""])
def test_files_cannot_lie_outside(disk: Disk, path: str) -> None:
    disk.sources.config["c"] = {"data": {"a": "1"}}
    with pytest.raises(VolumeError, match="not a path inside the volume"):
        disk.set_up({"name": "c", "configMap": {"name": "c", "items": [{"key": "a", "path": path}]}})


def test_tearing_down_removes_all_and_can_be_done_again(disk: Disk) -> None:
    disk.sources.config["c"] = {"data": {"a": "1"}}
    disk.set_up(CONFIG, {"name": "e", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})
    assert asyncio.run(disk.manager.known()) == {"uid"}
    assert disk.mounter.mounted == {disk.path / "pods/uid/volumes/e": (2**20, 0o777)}
    for _ in range(2):
        asyncio.run(disk.manager.tear_down("uid"))
    assert asyncio.run(disk.manager.known()) == set()
    assert not disk.mounter.mounted


def test_an_empty_directory_keeps_what_is_in_it(disk: Disk) -> None:
    volume = {"name": "e", "emptyDir": {}}
    root = disk.set_up(volume)["e"]
    assert root.stat().st_mode & 0o7777 == 0o777
    (root / "kept").write_text("x")
    disk.restart()
    assert disk.set_up(volume)["e"] == root
    assert tree(root) == {"kept": "x"}


def test_kinds_that_are_not_known_are_refused(disk: Disk) -> None:
    with pytest.raises(VolumeError, match='volume "x" : volumes of this kind are not supported'):
        disk.set_up({"name": "x", "persistentVolumeClaim": {"claimName": "y"}})


def test_uids_that_lead_elsewhere_are_refused(disk: Disk) -> None:
    for uid in ("", "..", "a/b", ".hidden"):
        with pytest.raises(VolumeError, match="cannot be the uid"):
            disk.manager.pod_dir(uid)
