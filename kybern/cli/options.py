"""Options that several commands have: where a host's files lie."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ETC = Path("/etc/kybern")
DATA = Path("/var/lib/kybern")

FolderOption = Annotated[Path, typer.Option("--dir", help="Folder of the configuration.")]
# What only looks may be pointed elsewhere by a variable (the lab's `kybern-lab env` sets it); what writes is told so.
LookedAtOption = Annotated[Path, typer.Option("--dir", envvar="KYBERN_DIR", help="Folder of the configuration.")]
DataOption = Annotated[Path, typer.Option("--data-dir", help="Folder of the daemons' data.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace files that are there.")]
