"""The schedule of a member's copies, and what its metrics say of it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import msgspec
import pytest

from kybern import snapshots
from kybern.config.loading import dump
from kybern.config.models import StoreConfig
from kybern.pb.v1.store_pipe_pb2 import StoreCommand
from store.main import main
from store.mvcc.outcomes import PutOutcome
from store.ops.state import read_file
from tests.integration.store.serving import HOST, Certificates, our_store, store_config
from tests.integration.store.test_http import get
from tests.ports import free_port
from tests.unit.store.driver import put

PATIENCE = 60.0


def scheduled(config: StoreConfig, folder: Path) -> StoreConfig:
    """A copy every second, of which two stay."""
    return msgspec.structs.replace(  # type: ignore[type-var] # a struct all the same
        config,
        metrics_address=f"{HOST}:{free_port()}",
        backup_directory=folder,
        backup_interval_seconds=1.0,
        backup_keep=2,
    )


async def figures(config: StoreConfig, certificates: Certificates) -> dict[str, float]:
    status, text = await get(config, certificates.master("m2"), "/metrics")
    assert status == 200
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("kybern_store_backup"))
    return {name.removeprefix("kybern_store_"): float(value) for name, value in pairs}


async def until_taken(config: StoreConfig, certificates: Certificates, count: int) -> dict[str, float]:
    async with asyncio.timeout(PATIENCE):
        while (found := await figures(config, certificates))["backups_total"] < count:  # noqa: ASYNC110 - it is asked
            await asyncio.sleep(0.1)
    return found


async def test_copies_come_by_themselves_and_the_newest_stay(certificates: Certificates, tmp_path: Path) -> None:
    config = scheduled(store_config(certificates), tmp_path / "copies")
    began = time.time()
    async with our_store(config) as (member, _):
        for number in range(4):
            await member.core.propose(StoreCommand(put=put(b"k", b"%d" % number)), PutOutcome)
            found = await until_taken(config, certificates, number + 1)
    kept = snapshots.backups(tmp_path / "copies")
    assert len(kept) == 2
    for copy in kept:
        machine, _ = read_file(Path(copy.file), check=True)
        assert (machine.keys.revision, copy.member) == (copy.revision, "s1")
    assert found["backup_last_success_timestamp_seconds"] >= int(began)
    assert found["backup_last_bytes"] == kept[-1].size
    assert (found["backup_failures_total"], found["backup_last_failing"]) == (0, 0)
    assert found["backup_last_revision"] == kept[-1].revision >= 2


async def test_a_folder_that_cannot_be_written_is_told_and_the_member_goes_on(
    certificates: Certificates, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    config = scheduled(store_config(certificates), tmp_path / "file" / "copies")
    async with our_store(config) as (member, _):
        async with asyncio.timeout(PATIENCE):
            while not (found := await figures(config, certificates))["backup_last_failing"]:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.1)
        assert found["backups_total"] == 0
        outcome = await member.core.propose(StoreCommand(put=put(b"k")), PutOutcome)
        assert outcome.revision == 2


def test_copies_are_not_kept_where_the_data_is(
    certificates: Certificates, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = store_config(certificates)
    file = tmp_path / "store.yaml"
    file.write_text(dump(scheduled(config, config.data_dir / "copies")))
    assert main(["--config", str(file)]) == 78
    assert "backup_directory must be outside of data_dir" in capsys.readouterr().err
