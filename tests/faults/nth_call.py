"""Runs a command, and at its Nth call of the system calls that write, kills it, fails the call, or cuts it short.

strace counts by thread, and the daemon writes from three of them: most of its calls would never be the Nth. Here
all threads are counted together, so every N up to the last is another point. A seccomp filter stops the process at
those calls only, ptrace tells of each before it takes effect. One line per call goes to the log.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import os
import signal
import struct
import sys
from pathlib import Path

CALLS = {18: "pwrite64", 74: "fsync", 75: "fdatasync", 77: "ftruncate", 82: "rename", 87: "unlink"}
"""What the daemon's writes are on x86-64: SQLite's and the lock's. What it only writes to sockets and to its log is left out."""
NAMED_BY_PATH = {"rename", "unlink"}

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
TRACEME, PEEKUSER, POKEUSER, CONT, SETOPTIONS = 0, 3, 6, 7, 0x4200
FORK, VFORK, CLONE, EXEC, SECCOMP, EXITKILL = 2, 4, 8, 0x10, 0x80, 0x100000
SECCOMP_EVENT = 7
WALL = 0x40000000
RDX, RAX, RDI, ORIG_RAX = (8 * register for register in (12, 10, 14, 15))
"""Where sys/reg.h has them."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong]


def tracer(
    log: Path,
    *,
    at: int = 0,
    fault: str = "kill",
    on: bool = False,
    call: str = "",
    target: str = "",
    once: Path | None = None,
) -> list[str]:
    """Return the command that runs another one and harms it so, as the options of `main` say."""
    options = ["--log", str(log), "--fault", fault, "--at", str(at), "--call", call, "--target", target]
    return [
        sys.executable,
        "-I",
        "-S",
        __file__,
        *options,
        *["--on"] * on,
        *(["--once", str(once)] if once else []),
        "--",
    ]


class Program(ctypes.Structure):
    """A filter as the kernel takes it (struct sock_fprog)."""

    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]


def stop_at_calls() -> None:
    """Let the tracer know of each of CALLS that this process and its children make."""
    load = struct.pack("HBBI", 0x20, 0, 0, 0)
    tests = [struct.pack("HBBI", 0x15, len(CALLS) - at, 0, number) for at, number in enumerate(CALLS)]
    allow, trace = (struct.pack("HBBI", 0x06, 0, 0, answer) for answer in (0x7FFF0000, 0x7FF00000))
    code = load + b"".join(tests) + allow + trace
    program = Program(len(code) // 8, code)
    if _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, None, 0, 0) or _libc.prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "seccomp")


def ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> int:
    """Ask the kernel about a stopped thread; one that was killed meanwhile answers 0."""
    ctypes.set_errno(0)
    answer = int(_libc.ptrace(request, pid, address, data))
    if answer == -1 and ctypes.get_errno() not in {0, errno.ESRCH}:
        raise OSError(ctypes.get_errno(), f"ptrace request {request:#x}")
    return answer


def start(command: list[str]) -> int:
    """Start the command, traced with all its threads and children."""
    pid = os.fork()
    if pid == 0:
        ptrace(TRACEME, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        stop_at_calls()
        os.execv(command[0], command)
    os.waitpid(pid, 0)
    ptrace(SETOPTIONS, pid, 0, FORK | VFORK | CLONE | EXEC | SECCOMP | EXITKILL)
    ptrace(CONT, pid)
    return pid


def described(thread: int) -> str:
    """Name the call that a thread is about to make, and the file that it is made on."""
    name = CALLS[ptrace(PEEKUSER, thread, ORIG_RAX)]
    if name in NAMED_BY_PATH:
        return name
    try:
        return f"{name} {Path(f'/proc/{thread}/fd/{ptrace(PEEKUSER, thread, RDI)}').readlink()}"
    except FileNotFoundError:
        return name


def trace(pid: int, options: argparse.Namespace) -> int:
    """Follow the process to its end; return its wait status."""
    known = {pid}
    met = 0
    while True:
        thread, status = os.waitpid(-1, WALL)
        if not os.WIFSTOPPED(status):
            if thread == pid:
                return status
            continue
        deliver = 0
        if status >> 16 == SECCOMP_EVENT:
            call = described(thread)
            options.log.write(f"{call}\n")
            if is_counted(call, options):
                met += 1
                if met == options.at or (options.on and met > options.at):
                    harm(pid, thread, options.fault)
        elif status >> 16 == 0 and (thread in known or os.WSTOPSIG(status) != signal.SIGSTOP):
            deliver = os.WSTOPSIG(status)
        known.add(thread)
        ptrace(CONT, thread, 0, deliver)


def is_counted(call: str, options: argparse.Namespace) -> bool:
    return (
        call.startswith(options.call)
        and call.endswith(options.target)
        and (options.once is None or options.once.exists())
    )


def harm(pid: int, thread: int, fault: str) -> None:
    """Do to the call that a thread is about to make what `fault` says."""
    if fault == "kill":
        os.kill(pid, signal.SIGKILL)
    elif fault == "short":
        ptrace(POKEUSER, thread, RDX, ptrace(PEEKUSER, thread, RDX) // 2)
    else:
        # A call without a number is not made, and what is in rax is its answer.
        ptrace(POKEUSER, thread, ORIG_RAX, -1)
        ptrace(POKEUSER, thread, RAX, -getattr(errno, fault))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--fault", default="kill", help="kill, short, or the name of an error")
    parser.add_argument("--at", type=int, default=0, help="which call; 0 for none")
    parser.add_argument("--on", action="store_true", help="every call from there on")
    parser.add_argument("--call", default="", help="count only calls of this name")
    parser.add_argument("--target", default="", help="count only calls on a file whose name ends so")
    parser.add_argument("--once", type=Path, help="count only once this file is there")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    with options.log.open("w", buffering=1) as options.log:
        status = trace(start(options.command), options)
    if os.WIFSIGNALED(status):
        os.kill(os.getpid(), os.WTERMSIG(status))
    sys.exit(os.WEXITSTATUS(status))


if __name__ == "__main__":
    main()
