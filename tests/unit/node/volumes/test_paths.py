"""hostPath types and subPaths."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.volumes import host_path, sub_path
from node.volumes.interface import VolumeError


def test_host_path_types(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "dir").mkdir()
    assert host_path.prepare(tmp_path / "nothing", "") == tmp_path / "nothing"
    assert host_path.prepare(tmp_path / "new", "DirectoryOrCreate").is_dir()
    assert host_path.prepare(tmp_path / "touched", "FileOrCreate").is_file()
    assert host_path.prepare(tmp_path / "dir", "Directory").is_dir()
    assert host_path.prepare(tmp_path / "file", "File").is_file()
    assert host_path.prepare(Path("/dev/null"), "CharDevice") == Path("/dev/null")


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("file", "Directory", "is not a directory"),
        ("dir", "File", "is not a file"),
        ("dir", "FileOrCreate", "is not a file"),
        ("file", "Socket", "is not a socket"),
        ("file", "BlockDevice", "is not a block device"),
        ("none", "Directory", "is not a directory: No such file"),
        ("file", "Nonsense", "type 'Nonsense' is not known"),
        ("a/../b", "", "must not contain"),
    ],
)
def test_host_paths_that_are_not_what_they_should_be(tmp_path: Path, name: str, kind: str, message: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "dir").mkdir()
    with pytest.raises(VolumeError, match=message):
        host_path.prepare(Path(f"{tmp_path}/{name}"), kind)


def test_sub_paths_are_made_and_found(tmp_path: Path) -> None:
    assert sub_path.resolve(tmp_path, "a/b").is_dir()
    (tmp_path / "a" / "file").write_text("x")
    assert sub_path.resolve(tmp_path, "a/file").is_file()


def test_sub_paths_follow_links_inside_the_volume(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert sub_path.resolve(tmp_path, "link") == tmp_path / "real"


@pytest.mark.parametrize("path", ["../x", "/etc", "a/../../b", "out", "out/deeper"])
def test_sub_paths_do_not_lead_out(tmp_path: Path, path: str) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (tmp_path / "outside").mkdir()
    (volume / "out").symlink_to(tmp_path / "outside")
    with pytest.raises(VolumeError):
        sub_path.resolve(volume, path)
    assert not list((tmp_path / "outside").iterdir())
