"""Whose a data directory is, and what a member must not forget."""

from __future__ import annotations

from pathlib import Path

import pytest

from kybern.daemon import StartupError
from store.raft.datadir import DataDir, Identity, Vote

ME = Identity("test", "s1")


def test_a_new_directory_is_claimed_and_found_again(tmp_path: Path) -> None:
    first = DataDir.open(tmp_path / "data", ME)
    assert first.load_vote() == Vote(0, "")
    first.save_vote(Vote(7, "s2"))
    first.close()
    second = DataDir.open(tmp_path / "data", ME)
    assert second.load_vote() == Vote(7, "s2")
    second.close()


def test_two_processes_are_kept_apart(tmp_path: Path) -> None:
    first = DataDir.open(tmp_path, ME)
    with pytest.raises(StartupError, match="another process uses") as caught:
        DataDir.open(tmp_path, ME)
    assert caught.value.retry
    first.close()
    DataDir.open(tmp_path, ME).close()


@pytest.mark.parametrize("other", [Identity("test", "s2"), Identity("production", "s1")])
def test_another_members_directory_is_refused(tmp_path: Path, other: Identity) -> None:
    DataDir.open(tmp_path, ME).close()
    with pytest.raises(StartupError, match="belongs to member 's1' of cluster 'test'"):
        DataDir.open(tmp_path, other)


def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match="cannot use the data directory"):
        DataDir.open(tmp_path / "file", ME)


def test_a_lost_vote_is_refused(tmp_path: Path) -> None:
    directory = DataDir.open(tmp_path, ME)
    (tmp_path / "vote").unlink()
    with pytest.raises(StartupError, match="could vote twice"):
        directory.load_vote()
    directory.close()


def test_a_flipped_bit_in_the_vote_is_refused(tmp_path: Path) -> None:
    directory = DataDir.open(tmp_path, ME)
    directory.save_vote(Vote(300, "s2"))
    good = (tmp_path / "vote").read_bytes()
    for offset in range(len(good)):
        bad = bytearray(good)
        bad[offset] ^= 1 << offset % 8
        (tmp_path / "vote").write_bytes(bad)
        with pytest.raises(StartupError, match="vote is corrupt at offset 0"):
            directory.load_vote()
    directory.close()


def test_a_lost_identity_is_refused(tmp_path: Path) -> None:
    DataDir.open(tmp_path, ME).close()
    (tmp_path / "log" / "0000000001.log").write_bytes(b"something")
    (tmp_path / "identity.json").unlink()
    with pytest.raises(StartupError, match=r"identity.json is missing"):
        DataDir.open(tmp_path, ME)


def test_a_first_start_that_was_interrupted_starts_again(tmp_path: Path) -> None:
    DataDir.open(tmp_path, ME).close()
    (tmp_path / "identity.json").unlink()
    directory = DataDir.open(tmp_path, ME)
    assert directory.load_vote() == Vote()
    directory.close()
