"""Whose a data directory is, and what a member must not forget."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from kybern.daemon import StartupError
from store.raft.datadir import DataDir, Identity, Vote, is_joining, vacate

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
    with pytest.raises(StartupError, match=r"could vote twice; .*`kybern store join`"):
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
        with pytest.raises(StartupError, match=r"vote is corrupt at offset 0.*`kybern store join`"):
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


def test_a_directory_has_a_number_of_its_own(tmp_path: Path) -> None:
    first = DataDir.open(tmp_path / "a", ME)
    number = first.load_directory_id()
    assert number > 0
    first.close()
    again = DataDir.open(tmp_path / "a", ME)
    assert again.load_directory_id() == number
    again.close()
    other = DataDir.open(tmp_path / "b", ME)
    assert other.load_directory_id() not in (0, number)
    other.close()
    (tmp_path / "a" / "directory_id").write_text("?")
    broken = DataDir.open(tmp_path / "a", ME)
    with pytest.raises(StartupError, match=r"directory_id does not hold a number.*`kybern store join`"):
        broken.load_directory_id()
    broken.close()


def test_a_vacated_directory_is_a_new_one_to_join_with(tmp_path: Path) -> None:
    directory = DataDir.open(tmp_path, ME)
    number = directory.load_directory_id()
    directory.save_id(7)
    with pytest.raises(StartupError, match="another process uses"):
        vacate(tmp_path, "before-1")
    directory.close()
    assert not is_joining(tmp_path)
    assert vacate(tmp_path, "before-1") == tmp_path / "before-1"
    assert (tmp_path / "before-1" / "id").read_text() == "7\n"
    # Again, as after an interruption: there is nothing more to put aside.
    assert vacate(tmp_path, "before-2") is None
    assert is_joining(tmp_path)
    new = DataDir.open(tmp_path, ME)
    assert (new.load_id(), new.load_vote()) == (0, Vote(0, ""))
    assert new.load_directory_id() != number
    new.close()


def test_a_directory_that_does_not_exist_can_be_joined_with(tmp_path: Path) -> None:
    assert vacate(tmp_path / "new", "before-1") is None
    assert is_joining(tmp_path / "new")


def test_the_number_goes_first_when_a_directory_is_vacated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = DataDir.open(tmp_path, ME)
    number = directory.load_directory_id()
    directory.close()
    moved: list[str] = []
    real = Path.rename

    def rename(path: Path, target: Path) -> None:
        if moved:
            raise OSError(errno.EIO, "the disk is gone")
        moved.append(path.name)
        real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(StartupError, match="cannot empty the data directory"):
            vacate(tmp_path, "before-1")
    assert moved == ["directory_id"]
    # Whoever starts the member all the same is not taken for the one before.
    assert not is_joining(tmp_path)
    half = DataDir.open(tmp_path, ME)
    assert half.load_directory_id() != number
    half.close()
    assert vacate(tmp_path, "before-2") == tmp_path / "before-2"
    assert is_joining(tmp_path)
