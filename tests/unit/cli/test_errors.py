"""How a command ends."""

from __future__ import annotations

import pytest
import typer

from kybern.cli.errors import CliError, invoke
from kybern.daemon import StartupError


def ending(error: BaseException, cause: BaseException | None = None) -> int:
    """The exit code of a command that raises."""
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def command() -> None:
        raise error from cause

    return invoke(app, "kybern", [])


@pytest.mark.parametrize(
    ("error", "cause", "said"),
    [
        (CliError("no", "try yes"), None, "kybern: no\n  try yes\n"),
        (CliError("no"), OSError(), "kybern: no\n"),
        (StartupError("cannot read x"), PermissionError(), "kybern: cannot read x\n  does it need root?\n"),
        (
            PermissionError(13, "Permission denied", "x"),
            None,
            "kybern: [Errno 13] Permission denied: 'x'\n  does it need root?\n",
        ),
        (OSError(28, "No space left on device"), None, "kybern: [Errno 28] No space left on device\n"),
    ],
)
def test_errors_are_told_without_a_traceback(
    capsys: pytest.CaptureFixture[str], error: Exception, cause: Exception | None, said: str
) -> None:
    assert ending(error, cause) == 1
    assert capsys.readouterr().err == said


def test_ctrl_c_is_130() -> None:
    assert ending(KeyboardInterrupt()) == 130
