"""The pause image: one static program that holds a sandbox's namespaces, written here as machine code.

So a sandbox needs neither a registry nor a compiler nor anything of the host. The program

1. ignores SIGCHLD, which makes the kernel reap every child at once: when a pod shares one process namespace it is
   process 1, to which orphans fall;
2. blocks SIGINT and SIGTERM: a blocked signal is kept even for process 1, for which the kernel drops signals that have
   their default action;
3. waits for one of them, over again when it is interrupted (by SIGSTOP and SIGCONT, for example);
4. ends with 0.
"""

from __future__ import annotations

import io
import platform
import struct
import tarfile
from collections.abc import Callable, Mapping

from node.runtime.interface import RuntimeFailure

# The tag changes with the program.
PAUSE_IMAGE = "kybern/pause:1"
PAUSE_COMMAND = "/pause"

_BASE = 0x400000
_HEADERS = 64 + 56
_SIGINT, _SIGTERM, _SIGCHLD = 2, 15, 17
_SIG_BLOCK = 0
_SIG_IGN = 1
_SET_BYTES = 8
# The signal set, and behind it the kernel's struct sigaction: handler, flags, restorer (x86-64 alone has one; elsewhere
# the mask begins there and the last word is not read), mask.
_SIGNALS = struct.pack("<Q", 1 << (_SIGINT - 1) | 1 << (_SIGTERM - 1))
_DATA = _SIGNALS + struct.pack("<QQQQ", _SIG_IGN, 0, 0, 0)
_SET_AT, _ACTION_AT = 0, len(_SIGNALS)


def _x86_64(data: int) -> bytes:
    """The code, for data at that address. System call: number in eax, arguments in rdi, rsi, rdx, r10."""
    eax, edx, esi, edi = 0, 2, 6, 7

    def mov(register: int, value: int) -> bytes:
        return bytes([0xB8 + register]) + struct.pack("<I", value)  # mov r32, imm32

    mov_r10 = bytes.fromhex("41ba") + struct.pack("<I", _SET_BYTES)  # mov r10d, imm32
    syscall = bytes.fromhex("0f05")
    rt_sigaction, rt_sigprocmask, rt_sigtimedwait, exit_group = 13, 14, 128, 231
    code = mov(eax, rt_sigaction) + mov(edi, _SIGCHLD) + mov(esi, data + _ACTION_AT) + mov(edx, 0) + mov_r10 + syscall
    code += mov(eax, rt_sigprocmask) + mov(edi, _SIG_BLOCK) + mov(esi, data + _SET_AT) + syscall
    wait = mov(eax, rt_sigtimedwait) + mov(edi, data + _SET_AT) + mov(esi, 0) + syscall
    wait += bytes.fromhex("85c0")  # test eax, eax
    wait += bytes([0x78, 0x100 - len(wait) - 2])  # js wait
    return code + wait + mov(edi, 0) + mov(eax, exit_group) + syscall


def _aarch64(data: int) -> bytes:
    """The code, for data at that address. System call: number in x8, arguments in x0 to x3."""
    words: list[int] = []

    def mov(register: int, value: int) -> None:
        words.append(0xD2800000 | (value & 0xFFFF) << 5 | register)  # movz x, imm16
        if value >> 16:
            words.append(0xF2A00000 | (value >> 16) << 5 | register)  # movk x, imm16, lsl 16

    def call(number: int, *arguments: int) -> None:
        for register, value in enumerate(arguments):
            mov(register, value)
        mov(8, number)
        words.append(0xD4000001)  # svc 0

    rt_sigaction, rt_sigprocmask, rt_sigtimedwait, exit_group = 134, 135, 137, 94
    call(rt_sigaction, _SIGCHLD, data + _ACTION_AT, 0, _SET_BYTES)
    call(rt_sigprocmask, _SIG_BLOCK, data + _SET_AT, 0, _SET_BYTES)
    wait = len(words)
    call(rt_sigtimedwait, data + _SET_AT, 0, 0, _SET_BYTES)
    words.append(0xB7F80000 | ((wait - len(words)) & 0x3FFF) << 5)  # tbnz x0, 63, wait: while the result is negative
    call(exit_group, 0)
    return struct.pack(f"<{len(words)}I", *words)


# By the name that `uname -m` has for it: the machine's number in ELF headers, and its code.
_MACHINES: Mapping[str, tuple[int, Callable[[int], bytes]]] = {"x86_64": (62, _x86_64), "aarch64": (183, _aarch64)}


def program(machine: str = "") -> bytes:
    """The static ELF for a machine (as `uname -m` names it; this host's by default).

    Raises:
        RuntimeFailure: for a machine that it is not written for.
    """
    found = _MACHINES.get(machine or platform.machine())
    if found is None:
        raise RuntimeFailure(f"there is no pause program for {machine or platform.machine()}")
    number, assemble = found
    # The code's length does not depend on the address of the data behind it.
    length = len(assemble(_BASE))
    body = assemble(_BASE + _HEADERS + length) + _DATA
    size = _HEADERS + len(body)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",  # 64 bits, little-endian
        2,  # ET_EXEC
        number,
        1,
        _BASE + _HEADERS,  # entry
        64,  # where the program header is
        0,
        0,
        64,
        56,
        1,
        0,
        0,
        0,
    )
    # One segment that is loaded whole: PT_LOAD, readable and executable.
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return header + segment + body


def image_tar(machine: str = "") -> bytes:
    """The image's files, as an engine imports them.

    Raises:
        RuntimeFailure: for a machine that there is no program for.
    """
    data = program(machine)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo(PAUSE_COMMAND.lstrip("/"))
        entry.size = len(data)
        entry.mode = 0o755
        tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
