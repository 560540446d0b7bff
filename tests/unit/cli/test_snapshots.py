"""Files of snapshots: whole or not there, and what is damaged is said to be."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest

from kybern.cli import snapshots
from kybern.cli.errors import CliError

HEAD = {"format": 1, "revision": 42, "compacted": 7, "applied_index": 9, "now_ms": 1, "keys": 3, "more": "x"}


def content(head: object = HEAD) -> bytes:
    encoded = msgspec.msgpack.encode(head)
    data = len(encoded).to_bytes(4, "big") + encoded + b"records"
    data += bytes(-len(data) % 512)
    return data + hashlib.sha256(data).digest()


def save(path: Path, *parts: bytes) -> None:
    with snapshots.writing(path) as write:
        for part in parts:
            write(part)


def test_a_folder_is_no_snapshot(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="is a folder"):
        snapshots.verify(tmp_path)


def test_a_whole_file_is_there_and_private(tmp_path: Path) -> None:
    data = content()
    save(tmp_path / "s", data[:10], data[10:])
    assert (tmp_path / "s").read_bytes() == data
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
    assert snapshots.verify(tmp_path / "s") == data[-32:].hex()
    info = snapshots.inspect(tmp_path / "s")
    assert (info.revision, info.compacted, info.keys, info.size) == (42, 7, 3, len(data))


def test_what_was_cut_on_its_way_is_not_there(tmp_path: Path) -> None:
    data = content()
    for parts in ((data[:-1],), (data[:100], data[200:]), ()):
        with pytest.raises(CliError):
            save(tmp_path / "s", *parts)
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyError), snapshots.writing(tmp_path / "s") as write:
        write(data)
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("mine")
    with pytest.raises(CliError, match="is there already"):
        save(tmp_path / "s", content())
    assert (tmp_path / "s").read_text() == "mine"


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    data = content()
    for at in range(0, len(data), 37):
        damaged = bytearray(data)
        damaged[at] ^= 1 << (at % 8)
        (tmp_path / "s").write_bytes(damaged)
        with pytest.raises(CliError, match="was changed"):
            snapshots.verify(tmp_path / "s")


@pytest.mark.parametrize("head", ["a text", {"format": 1}, {**HEAD, "revision": "many"}])
def test_a_file_of_something_else_is_said_to_be(tmp_path: Path, head: object) -> None:
    (tmp_path / "s").write_bytes(content(head))
    assert snapshots.verify(tmp_path / "s")
    with pytest.raises(CliError, match="this version knows"):
        snapshots.inspect(tmp_path / "s")


def test_a_file_of_etcd_is_told_apart(tmp_path: Path) -> None:
    data = b"\xff" * 1024
    (tmp_path / "s").write_bytes(data + hashlib.sha256(data).digest())
    with pytest.raises(CliError, match="not of kybern-store"):
        snapshots.inspect(tmp_path / "s")
