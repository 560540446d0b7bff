"""What commands mean to the fake."""

from __future__ import annotations

import math

import pytest

from node.runtime.fake_program import Program, program


@pytest.mark.parametrize(
    ("command", "want"),
    [
        ([], Program(math.inf)),
        (["nginx", "-g", "daemon off;"], Program(math.inf)),
        (["true"], Program(0)),
        (["false"], Program(0, 1)),
        (["sleep", "30"], Program(30)),
        (["sleep", "infinity"], Program(math.inf)),
        (["echo", "a", "b"], Program(0, output=("a b",))),
        (["cat"], Program(0, echoes=True)),
        (["sh", "-c", "echo a; sleep 2 && exit 3; echo never"], Program(2, 3, ("a",))),
        (["/bin/sh", "-c", "echo a\nserver --port 80"], Program(math.inf, 0, ("a",))),
        (["sh", "-c", "trap '' TERM; sleep 9"], Program(9, deaf=True)),
    ],
)
def test_meaning(command: list[str], want: Program) -> None:
    assert program(command) == want
