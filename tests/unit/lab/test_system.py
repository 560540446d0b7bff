"""Which of Debian's packages are missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import system


def programs(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)


def test_packages_of_absent_programs_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(system, "ADMIN_PATH", "")
    programs(tmp_path, *(set(system.PACKAGES["run"]) - {"dockerd", "conntrack"}))
    assert system.missing(["run"]) == ["conntrack", "docker.io"]
    programs(tmp_path, "dockerd", "conntrack")
    assert system.missing(["run"]) == []


def test_a_program_may_need_several_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(system, "ADMIN_PATH", "")
    programs(tmp_path, *(set(system.PACKAGES["test"]) - {"vagrant"}))
    assert system.missing(["test"]) == ["vagrant", "vagrant-libvirt"]


def test_without_apt_the_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert system.install(["conntrack"]) == 1
    assert "conntrack" in capsys.readouterr().err


def test_wrong_usage_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert system.main([]) == system.main(["everything"]) == 2
    assert "usage" in capsys.readouterr().err
