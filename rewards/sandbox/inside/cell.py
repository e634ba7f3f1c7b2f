"""One run: its first process, which lays out the files, watches and reports, and the program that it forks."""

from __future__ import annotations

import atexit
import builtins
import contextlib
import json
import os
import resource
import select
import signal
import stat
import sys
import threading
import time
import types
from collections.abc import Callable
from math import ceil
from typing import Any

from align.rewards.sandbox.inside import filter, jail, kernel, landlock, usage, zygote

_TICK_MS = 20
_NAMESPACES = kernel.NEWNS | kernel.NEWIPC | kernel.NEWUTS | kernel.NEWNET
_STACK = 64 << 20
_PATH = "/usr/local/bin:/usr/bin:/bin"  # compilers find their parts by it
_GRACE_SECONDS = 2.0  # the host ends a run at its limit; this end is for when the host cannot


class Cell:
    """`orders` are those of the zygote, `order` is this run: its limits, and whether it is Python."""

    def __init__(self, orders: dict[str, Any], order: dict[str, Any], descriptors: list[int]) -> None:
        self._orders, self._limits, self._folder = orders, order["limits"], order["folder"]
        self._separate = orders["layer"] != "landlock"
        self._job, self._stdin, self._stdout, self._stderr, self._status = descriptors
        self._begin = time.monotonic()

    def run(self) -> Callable[[], None]:
        """Returns in the program alone; the run's first process ends here."""
        try:
            self._enter()
            header = self._lay_out()
            child = os.fork()
            if child == 0:
                return self._become(header)
            for descriptor in (self._stdin, self._stdout, self._stderr, self._job):
                os.close(descriptor)
            self._report(self._watch(child), header["keep"])
        except BaseException as error:  # noqa: BLE001  the host hears of it, as our failure
            with contextlib.suppress(OSError):
                os.write(self._status, json.dumps({"failed": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        os._exit(0)

    def _enter(self) -> None:
        kernel.die_with_parent()
        if not self._separate:
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGTERM)
            kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
            signal.signal(signal.SIGTERM, self._end_all)
            os.chdir(self._folder)
            return
        kernel.unshare(_NAMESPACES)
        size = self._limits["disk_bytes"]
        options = f"size={size},nr_inodes={max(64, min(16384, size >> 10))},mode=0700"
        covered = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in self._orders["paths"] if path.startswith("/tmp/")}
        kernel.mount("tmpfs", "/tmp", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)
        for path, source in covered.items():
            jail.bind(source, path)
            os.close(source)
        kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC, "subset=pid")
        kernel.sethostname(b"sandbox")
        os.chdir("/tmp")
        kernel.enter_user_namespace()
        kernel.drop_capabilities()
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)  # nobody in here may look into this process

    def _lay_out(self) -> dict[str, Any]:
        """Write the files of the program, and return what else the job says."""
        with open(self._job, "rb", closefd=False) as job:
            header = dict(json.loads(job.readline()))
            for name, size in header["files"]:
                if folder := os.path.dirname(name):
                    os.makedirs(folder, exist_ok=True)
                with open(name, "wb") as file:
                    file.write(job.read(size))
                os.chmod(name, 0o755)
        return header

    def _watch(self, child: int) -> dict[str, Any]:
        """Wait for the program, reap orphans, and end the run where its processes together pass a limit."""
        ended: dict[str, Any] = {"cause": "exit", "code": None}
        pidfd, limits = os.pidfd_open(child), self._limits
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        while ended["code"] is None and ended["cause"] == "exit":
            poll.poll(_TICK_MS)
            for pid, status in _reaped(os.WNOHANG):
                if pid == child:
                    ended["code"] = os.waitstatus_to_exitcode(status)
            if ended["code"] is None:
                pids = usage.members(whole=self._separate)
                seconds, memory, processes = usage.measure(pids)
                if seconds > limits["cpu_seconds"] or time.monotonic() - self._begin > limits["wall_seconds"] + _GRACE_SECONDS:
                    ended["cause"] = "timeout"
                elif memory > limits["memory_bytes"] and usage.proportional(pids) > limits["memory_bytes"]:
                    ended["cause"] = "memory"
                elif processes > limits["processes"] + 1:
                    ended["cause"] = "processes"
                elif not self._separate and usage.disk(".") > limits["disk_bytes"]:
                    ended["cause"] = "disk"
        self._kill_all()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return ended | {"cpu_seconds": used.ru_utime + used.ru_stime}

    def _kill_all(self) -> None:
        """Kill and reap until no process of the run is left but this one."""
        while True:
            with contextlib.suppress(ProcessLookupError):
                if self._separate:
                    os.kill(-1, signal.SIGKILL)
                for pid in () if self._separate else usage.members(whole=False):
                    os.kill(pid, signal.SIGKILL)
            if not any(True for _ in _reaped(0 if self._separate else os.WNOHANG)) and not usage.members(whole=self._separate):
                return

    def _end_all(self, *_: object) -> None:
        self._kill_all()
        os._exit(0)

    def _report(self, ended: dict[str, Any], keep: list[str]) -> None:
        """Say how it ended and give back the files that are wanted, as far as the disk limit goes."""
        left, whole, files = self._limits["disk_bytes"], True, []
        for name in keep:
            data = _read_inside(name, left + 1)
            if data is not None:
                whole &= len(data) <= left
                files.append((name, data[:left]))
                left -= len(files[-1][1])
        ended |= {"files": [(name, len(data)) for name, data in files], "whole": whole}
        with open(self._status, "wb") as status:
            status.write(json.dumps(ended).encode() + b"\n")
            for _, data in files:
                status.write(data)

    def _become(self, header: dict[str, Any]) -> Callable[[], None]:
        """Turn this process into the program's: nothing is left to it that could reach further."""
        try:
            os.setsid()
            for target, descriptor in enumerate((self._stdin, self._stdout, self._stderr)):
                os.dup2(descriptor, target, inheritable=True)
            os.closerange(3, max(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1024))
            self._limit(python=header["argv"] == [])
            kernel.die_with_parent()
            kernel.drop_capabilities()
            kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
            devices = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"]
            readable = ["/"] if self._separate else [*self._orders["paths"], *devices]
            landlock.restrict(readable, [os.getcwd(), *devices, *(["/proc"] if self._separate else [])])
            for number in range(1, signal.NSIG):
                with contextlib.suppress(OSError, ValueError):
                    signal.signal(number, signal.SIG_DFL)
            filter.install(only_own_signals=not self._separate)
            os.environ.clear()
            if header["argv"]:
                _execute(header["argv"])
        except BaseException as error:  # noqa: BLE001  the program has not begun
            os.write(2, f"the sandbox could not start the program: {error}\n".encode())
            os._exit(127)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as every Python
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        source = str(header["source"])
        return lambda: _run_source(source)

    def _limit(self, *, python: bool) -> None:
        limits = self._limits
        cpu, memory = max(1, ceil(limits["cpu_seconds"])), limits["memory_bytes"]
        stack = min(_STACK, memory)
        wanted = {
            resource.RLIMIT_CPU: (cpu, cpu + 1),
            # Other languages reserve far more addresses than they use.
            (resource.RLIMIT_AS if python else resource.RLIMIT_DATA): (memory, memory),
            resource.RLIMIT_STACK: (min(8 << 20, stack) if python else stack, stack),
            resource.RLIMIT_FSIZE: (limits["disk_bytes"], limits["disk_bytes"]),
            resource.RLIMIT_NOFILE: (256, 256),
            resource.RLIMIT_CORE: (0, 0),
            resource.RLIMIT_MSGQUEUE: (0, 0),
            resource.RLIMIT_MEMLOCK: (0, 0),
            resource.RLIMIT_SIGPENDING: (256, 256),
            resource.RLIMIT_NICE: (0, 0),
            resource.RLIMIT_RTPRIO: (0, 0),
        }
        # In its user namespace only this run's processes count, its first one as well; elsewhere all of the user's do.
        count = limits["processes"] + (1 if self._separate else _processes_of(os.getuid()))
        for kind, pair in {**wanted, resource.RLIMIT_NPROC: (count, count)}.items():
            hard = resource.getrlimit(kind)[1]
            resource.setrlimit(kind, pair if hard == resource.RLIM_INFINITY else (min(pair[0], hard), min(pair[1], hard)))


def _processes_of(user: int) -> int:
    count = 0
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == user:
                count += len(os.listdir(f"/proc/{name}/task"))
    return count


def _reaped(flags: int) -> Any:
    """Children that have ended; without WNOHANG waits for all there are."""
    while True:
        try:
            pid, status = os.waitpid(-1, flags)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status


def _read_inside(name: str, most: int) -> bytes | None:
    """A regular file of the working directory, reached through no link; None where it is none."""
    folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        *parents, last = name.split("/")
        for parent in parents:
            inner = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        descriptor = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        return None
    finally:
        os.close(folder)
    with open(descriptor, "rb") as file:
        return file.read(most) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None


def _execute(argv: list[str]) -> None:
    try:
        os.execvpe(argv[0], argv, {"PATH": _PATH, "TMPDIR": os.getcwd()})
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        os._exit(127)


def _run_source(source: str) -> None:
    """Run Python as an interpreter that was given this file would; what it raises ends it as usual."""
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    sys.argv, sys.path[:] = ["main.py"], [os.getcwd(), *sys.path]
    main = types.ModuleType("__main__")
    main.__dict__.update(__builtins__=builtins, __file__="main.py")
    sys.modules["__main__"] = main
    zygote.forget()
    code = 1
    try:
        exec(compile(source, "main.py", "exec", dont_inherit=True), main.__dict__)
        code = 0
    except SystemExit as error:
        code = _exit_code(error.code)
    except BaseException as error:  # noqa: BLE001  as the interpreter does, without this frame
        error = error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
        sys.excepthook(type(error), error, error.__traceback__)
        del error
    _end_interpreter(main, code)


def _exit_code(code: object) -> int:
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    print(code, file=sys.stderr)  # noqa: T201  it is what sys.exit says
    return 1


def _end_interpreter(main: types.ModuleType, code: int) -> None:
    """Threads, atexit, files, as an interpreter ends; but it does not take itself apart, which would cost more than the run."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        main.__dict__.clear()  # closes files that were left open
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except BaseException:  # noqa: BLE001  whatever the program put there
                code = code or 120
        os._exit(code)
