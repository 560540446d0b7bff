"""The systemd units and the scripts beside them."""

from __future__ import annotations

import configparser
import subprocess
import tomllib
from pathlib import Path

import pytest

from kybern.daemon import EXIT_CONFIG

ROOT = Path(__file__).parents[3]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
SCRIPTS = [ROOT / "deploy" / "install.sh", ROOT / "deploy" / "uninstall.sh", ROOT / "vagrant" / "provision.sh"]


def service(unit: Path) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read(unit)
    return parser["Service"]


def test_there_is_a_unit_for_every_daemon() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    daemons = set(scripts) - {"kybern", "kybern-lab"}
    assert {u.stem for u in UNITS} == daemons


@pytest.mark.parametrize("unit", UNITS, ids=lambda u: u.stem)
def test_systemd_finds_nothing_to_complain_about(unit: Path, tmp_path: Path) -> None:
    # The daemon is not installed here; systemd wants its program to be there.
    program = tmp_path / "bin" / unit.stem
    program.parent.mkdir()
    program.symlink_to("/bin/true")
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/kybern/", f"{tmp_path}/"))
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda u: u.stem)
def test_a_unit_fits_how_daemons_start_and_end(unit: Path) -> None:
    section = service(unit)
    name = unit.stem.removeprefix("kybern-")
    assert section["Type"] == "notify"
    assert int(section["WatchdogSec"]) > 0
    assert section["Restart"] == "on-failure"
    assert section["RestartPreventExitStatus"] == str(EXIT_CONFIG)
    assert section["ExecStart"] == f"/opt/kybern/bin/{unit.stem} --config /etc/kybern/{name}.yaml"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.name)
def test_scripts_are_programs_that_bash_can_read(script: Path) -> None:
    assert script.stat().st_mode & 0o111
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_scripts_refuse_options_that_they_do_not_know() -> None:
    done = subprocess.run([SCRIPTS[1], "--everything"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("uninstall.sh: ")
