"""The journal on a real directory: what a crash leaves is cut, what it cannot leave is refused."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from kybern.daemon import StartupError
from store.raft import segments
from store.raft.journal import Batch, Journal


def opened(directory: Path, **options: int) -> Journal:
    journal = Journal(directory, **options)
    journal.open()
    return journal


def flush(journal: Journal) -> None:
    while (batch := journal.take()) is not None:
        journal.write(batch)
        journal.done(batch)


def fill(journal: Journal, first: int, last: int, term: int = 1, *, size: int = 20) -> None:
    """Append entries, one batch each."""
    for index in range(first, last + 1):
        journal.append(index, term, payload(index, term, size))
        flush(journal)


def payload(index: int, term: int, size: int = 20) -> bytes:
    return f"{index}/{term}:".encode().ljust(size, b"x")


def contents(journal: Journal) -> list[tuple[int, int, bytes]]:
    return journal.entries(journal.base_index + 1, 1 << 30)


def expected(first: int, last: int, term: int = 1, *, size: int = 20) -> list[tuple[int, int, bytes]]:
    return [(index, term, payload(index, term, size)) for index in range(first, last + 1)]


def only_segment(directory: Path) -> Path:
    (path,) = directory.iterdir()
    return path


def used(path: Path) -> int:
    """Where what is written ends: behind it are zeros."""
    return len(path.read_bytes().rstrip(b"\0"))


def lose_sector(path: Path, start: int) -> None:
    """What a power cut does to a sector that had not been written yet from `start` on."""
    data = bytearray(path.read_bytes())
    data[start : start // 512 * 512 + 512] = bytes(512 - start % 512)
    path.write_bytes(data)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    first = opened(tmp_path)
    assert (first.last_index, first.last_term, first.durable_index) == (1, 0, 1)
    fill(first, 2, 9)
    first.close()
    second = opened(tmp_path)
    assert contents(second) == expected(2, 9)
    assert (second.last_index, second.last_term, second.durable_index) == (9, 1, 9)
    fill(second, 10, 12, term=2)
    second.close()
    assert contents(opened(tmp_path)) == expected(2, 9) + expected(10, 12, 2)


def test_entries_are_bounded_by_bytes_but_one_always_goes(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    fill(journal, 2, 9, size=100)
    assert [index for index, _, _ in journal.entries(3, 250)] == [3, 4]
    assert [index for index, _, _ in journal.entries(3, 1)] == [3]
    journal.close()


def test_nothing_is_durable_before_the_write_is_done(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.append(2, 1, b"a")
    batch = journal.take()
    assert batch is not None
    journal.append(3, 1, b"b")
    assert journal.take() is None
    assert (journal.durable_index, journal.last_index, journal.pending_bytes) == (1, 3, 2)
    journal.write(batch)
    journal.done(batch)
    assert journal.durable_index == 2
    flush(journal)
    assert (journal.durable_index, journal.pending_bytes) == (3, 0)
    journal.close()


def test_a_truncation_during_a_write_takes_its_durability(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    fill(journal, 2, 3)
    for index in range(4, 8):
        journal.append(index, 1, payload(index, 1))
    batch = journal.take()
    assert batch is not None
    journal.truncate_from(5)
    journal.append(5, 2, payload(5, 2))
    journal.write(batch)
    journal.done(batch)
    assert (journal.durable_index, journal.last_index) == (4, 5)
    flush(journal)
    assert journal.durable_index == 5
    journal.close()
    assert contents(opened(tmp_path)) == expected(2, 4) + expected(5, 5, 2)


def test_a_truncation_of_what_is_durable_is_replayed(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    fill(journal, 2, 9)
    journal.truncate_from(4)
    assert journal.durable_index == 3
    fill(journal, 4, 5, term=3)
    journal.close()
    again = opened(tmp_path)
    assert contents(again) == expected(2, 3) + expected(4, 5, 3)
    again.close()


def test_segments_follow_each_other(tmp_path: Path) -> None:
    journal = opened(tmp_path, segment_bytes=300)
    fill(journal, 2, 40)
    journal.truncate_from(30)
    fill(journal, 30, 35, term=2)
    journal.close()
    assert len(list(tmp_path.iterdir())) > 4
    again = opened(tmp_path, segment_bytes=300)
    assert contents(again) == expected(2, 29) + expected(30, 35, 2)
    again.close()


def test_the_cache_is_bounded_and_the_rest_comes_from_disk(tmp_path: Path) -> None:
    journal = opened(tmp_path, cache_bytes=500)
    fill(journal, 2, 50, size=100)
    assert sum(map(len, journal._cache.values())) <= 500
    assert contents(journal) == expected(2, 50, size=100)
    journal.close()


def test_what_is_not_durable_stays_in_the_cache(tmp_path: Path) -> None:
    journal = opened(tmp_path, cache_bytes=50)
    for index in range(2, 10):
        journal.append(index, 1, payload(index, 1))
    assert contents(journal) == expected(2, 9)
    journal.close()


_LAST_BATCH = segments.BATCH_HEADER_BYTES + segments.RECORD_HEADER_BYTES + 20 + segments.BATCH_END_BYTES


@pytest.mark.parametrize("kept", range(1, _LAST_BATCH))
@pytest.mark.parametrize("room", [True, False], ids=["zeros follow", "the file ends"])
def test_a_tail_that_a_crash_cut_short_is_cut(
    tmp_path: Path, kept: int, room: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The last batch has one record of 20 bytes: whatever part of it was written, it was not acknowledged."""
    journal = opened(tmp_path, segment_bytes=1000)
    fill(journal, 2, 5)
    path = only_segment(tmp_path)
    good = used(path)
    fill(journal, 6, 6)
    journal.close()
    assert used(path) == good + _LAST_BATCH
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(good + kept)
        if room:
            file.truncate(size)
    again = opened(tmp_path, segment_bytes=1000)
    assert contents(again) == expected(2, 5)
    assert f"off {path} at offset {good}: a write that a crash interrupted" in caplog.text
    fill(again, 6, 7, term=2)
    again.close()
    assert contents(opened(tmp_path, segment_bytes=1000)) == expected(2, 5) + expected(6, 7, 2)


def test_a_tail_whose_sectors_were_not_written_is_cut(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    fill(journal, 2, 5)
    path = only_segment(tmp_path)
    good = used(path)
    fill(journal, 6, 6, size=5000)
    journal.close()
    # A power cut: the file has its length, but a sector in the middle never reached the disk.
    lose_sector(path, good + 2048 - good % 512)
    assert contents(opened(tmp_path)) == expected(2, 5)


def test_a_batch_whose_first_sector_was_not_written_is_cut(tmp_path: Path) -> None:
    """Sectors reach a disk in any order: what is behind the lost header of the last batch is no batch."""
    journal = opened(tmp_path)
    fill(journal, 2, 5)
    path = only_segment(tmp_path)
    good = used(path)
    fill(journal, 6, 6, size=5000)
    journal.close()
    lose_sector(path, good)
    assert contents(opened(tmp_path)) == expected(2, 5)


def test_a_batch_that_lost_its_first_sector_before_others_is_refused(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    fill(journal, 2, 5)
    path = only_segment(tmp_path)
    good = used(path)
    fill(journal, 6, 6, size=5000)
    fill(journal, 7, 7)
    journal.close()
    lose_sector(path, good)
    with pytest.raises(StartupError, match=f"at offset {good}: the header of a batch"):
        opened(tmp_path)


def test_zeros_that_were_written_excuse_nothing_elsewhere(tmp_path: Path) -> None:
    """A sector of zeros is the sign of an interrupted write only where something is wrong."""
    journal = opened(tmp_path)
    fill(journal, 2, 5)
    path = only_segment(tmp_path)
    good = used(path)
    for index, entry in ((6, payload(6, 1)), (7, bytes(5000))):
        journal.append(index, 1, entry)
    flush(journal)
    journal.close()
    data = bytearray(path.read_bytes())
    data[good + segments.BATCH_HEADER_BYTES + segments.RECORD_HEADER_BYTES] ^= 8
    path.write_bytes(data)
    with pytest.raises(StartupError, match=f"at offset {good + segments.BATCH_HEADER_BYTES}: a record"):
        opened(tmp_path)


def test_an_entry_of_zeros_is_no_interrupted_write(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = opened(tmp_path)
    journal.append(2, 1, bytes(3000))
    flush(journal)
    journal.close()
    again = opened(tmp_path)
    assert contents(again) == [(2, 1, bytes(3000))]
    assert not caplog.text
    again.close()


def test_a_file_has_room_ahead_and_keeps_its_length(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A write that makes a file longer costs more than one that does not."""
    journal = opened(tmp_path, segment_bytes=3 << 20)
    fill(journal, 2, 3)
    path = only_segment(tmp_path)
    size = path.stat().st_size
    assert used(path) < 1000 < 1 << 20 <= size < 2 << 20
    fill(journal, 4, 100)
    journal.close()
    again = opened(tmp_path, segment_bytes=3 << 20)
    fill(again, 101, 200)
    assert path.stat().st_size == size
    # A large one needs none, and those behind it get their own.
    fill(again, 201, 201, size=1 << 20)
    assert path.stat().st_size == used(path) > size
    fill(again, 202, 203)
    assert used(path) + (1 << 19) < path.stat().st_size <= 3 << 20
    fill(again, 204, 206, size=1 << 20)
    again.close()
    assert path.stat().st_size == used(path) > 3 << 20
    assert not caplog.text
    last = opened(tmp_path)
    assert contents(last) == [
        *expected(2, 200),
        *expected(201, 201, size=1 << 20),
        *expected(202, 203),
        *expected(204, 206, size=1 << 20),
    ]
    last.close()


def test_a_disk_without_room_ahead_is_written_as_long_as_it_takes_the_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.pwritev", _refusing_zeros(errno.ENOSPC))
    journal = opened(tmp_path, segment_bytes=300)
    fill(journal, 2, 20)
    journal.close()
    paths = list(tmp_path.iterdir())
    assert len(paths) > 2
    assert all(path.stat().st_size == used(path) for path in paths)
    assert contents(opened(tmp_path)) == expected(2, 20)


def test_a_disk_that_fails_to_make_room_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a disk holds after that nobody knows."""
    monkeypatch.setattr("os.pwritev", _refusing_zeros(errno.EIO))
    journal = opened(tmp_path)
    journal.append(2, 1, b"entry")
    batch = journal.take()
    assert batch is not None
    with pytest.raises(OSError, match="Input/output error"):
        journal.write(batch)
    journal.close()


def test_a_segment_of_the_format_before_is_read_and_followed_by_another(tmp_path: Path) -> None:
    header = segments.encode_file_header(segments.FileHeader(1, 1, 1, 0, format=1))
    batches = [
        segments.encode_batch(sequence, [segments.encode_record(index, 1, payload(index, 1))])[
            : -segments.BATCH_END_BYTES
        ]
        for sequence, index in enumerate((2, 3, 4), 1)
    ]
    old = tmp_path / "0000000001.log"
    content = header + b"".join(batches)
    old.write_bytes(content)
    journal = opened(tmp_path)
    assert contents(journal) == expected(2, 4)
    fill(journal, 5, 6)
    journal.close()
    assert old.read_bytes() == content
    assert contents(opened(tmp_path)) == expected(2, 6)
    # As before, a bit that flipped in its last batch is not taken for an interrupted write.
    (tmp_path / "0000000002.log").unlink()
    old.write_bytes(content[:-1] + b"y")
    with pytest.raises(StartupError, match="is corrupt at offset"):
        opened(tmp_path)


def test_a_segment_of_a_later_format_is_refused(tmp_path: Path) -> None:
    header = segments.encode_file_header(segments.FileHeader(1, 1, 1, 0, format=segments.FORMAT + 1))
    (tmp_path / "0000000001.log").write_bytes(header)
    with pytest.raises(StartupError, match=f"format {segments.FORMAT + 1} is not known"):
        opened(tmp_path)


def test_any_flipped_bit_is_refused(tmp_path: Path) -> None:
    """Also in the last batch: a member that forgets what it acknowledged could elect a leader without it."""
    journal = opened(tmp_path, segment_bytes=1000)
    fill(journal, 2, 4)
    journal.close()
    path = only_segment(tmp_path)
    good = path.read_bytes()
    for offset in range(used(path)):
        bad = bytearray(good)
        bad[offset] ^= 1 << offset % 8
        path.write_bytes(bad)
        with pytest.raises(StartupError, match=rf"{path} is corrupt at offset \d+"):
            opened(tmp_path, segment_bytes=1000)
    path.write_bytes(good)
    assert contents(opened(tmp_path, segment_bytes=1000)) == expected(2, 4)


def test_the_offset_of_the_error_is_that_of_the_record(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    fill(journal, 2, 3)
    path = only_segment(tmp_path)
    at = used(path)
    fill(journal, 4, 9)
    journal.close()
    bad = bytearray(path.read_bytes())
    bad[at + segments.BATCH_HEADER_BYTES + segments.RECORD_HEADER_BYTES + 3] ^= 4
    path.write_bytes(bad)
    with pytest.raises(StartupError, match=f"at offset {at + segments.BATCH_HEADER_BYTES}:"):
        opened(tmp_path)


def test_a_segment_that_is_missing_is_noticed(tmp_path: Path) -> None:
    journal = opened(tmp_path, segment_bytes=300)
    fill(journal, 2, 40)
    journal.close()
    paths = sorted(tmp_path.iterdir())
    paths[2].unlink()
    with pytest.raises(StartupError, match="missing before it"):
        opened(tmp_path)


def test_a_torn_segment_before_others_is_refused(tmp_path: Path) -> None:
    journal = opened(tmp_path, segment_bytes=300)
    fill(journal, 2, 40)
    journal.close()
    path = sorted(tmp_path.iterdir())[1]
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 5)
    with pytest.raises(StartupError, match="cut off, and later segments follow"):
        opened(tmp_path)


@pytest.mark.parametrize("kept", [0, 10, segments.FILE_HEADER_BYTES - 1])
def test_a_segment_whose_making_was_interrupted_is_made_again(tmp_path: Path, kept: int) -> None:
    journal = opened(tmp_path, segment_bytes=300)
    fill(journal, 2, 20)
    number = len(list(tmp_path.iterdir())) + 1
    journal.close()
    (tmp_path / f"{number:010d}.log").write_bytes(b"\x01" * kept)
    again = opened(tmp_path, segment_bytes=300)
    assert contents(again) == expected(2, 20)
    fill(again, 21, 40)
    again.close()
    assert contents(opened(tmp_path, segment_bytes=300)) == expected(2, 40)


def test_a_write_that_failed_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = opened(tmp_path)
    fill(journal, 2, 4)
    for index in range(5, 8):
        journal.append(index, 1, payload(index, 1))
    batch = journal.take()
    assert isinstance(batch, Batch)
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, parts, at, _=0: real(fd, [bytes(parts[0])[:7]], at) and _full())
    with pytest.raises(OSError, match="No space"):
        journal.write(batch)
    monkeypatch.setattr(os, "pwritev", real)
    assert journal.durable_index == 4
    journal.write(batch)
    journal.done(batch)
    journal.close()
    assert contents(opened(tmp_path)) == expected(2, 7)


def test_a_disk_that_returns_something_else_is_noticed(tmp_path: Path) -> None:
    journal = opened(tmp_path, cache_bytes=0)
    fill(journal, 2, 9)
    path = only_segment(tmp_path)
    bad = bytearray(path.read_bytes())
    bad[used(path) - segments.BATCH_END_BYTES - 1] ^= 1
    path.write_bytes(bad)
    with pytest.raises(segments.CorruptJournal, match="entry 9 fails its checksum"):
        journal.read(9)
    journal.close()


def _refusing_zeros(code: int) -> Callable[..., int]:
    real = os.pwritev

    def write(descriptor: int, parts: Sequence[bytes | memoryview], at: int, flags: int = 0) -> int:
        if not any(parts[0]):
            raise OSError(code, os.strerror(code))
        return real(descriptor, parts, at, flags)

    return write


def _full() -> int:
    raise OSError(28, "No space left on device")
