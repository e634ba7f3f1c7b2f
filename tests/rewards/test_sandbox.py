"""The sandbox's promises to its callers: what comes back, limits, dialogues, threads, faults and ends."""

import ast
import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from align.rewards.sandbox import Limits, Program, Sandbox, SandboxError

MIB = 1 << 20
QUICK = Limits(wall_seconds=5.0, cpu_seconds=2.0)
SYSTEM = tuple(path for path in ("/bin", "/usr", "/lib", "/lib64") if os.path.exists(path))


@pytest.fixture(scope="module", params=["bubblewrap", "namespaces", "landlock"])
def sandbox(request):
    try:
        sandbox = Sandbox(layer=request.param, limits=QUICK, concurrency=2, weaker=True)
    except SandboxError as error:
        pytest.skip(f"this machine has no such layer: {error.message}")
    yield sandbox
    sandbox.close()


def run(sandbox, source, stdin=b"", limits=None, **program):
    return asyncio.run(sandbox.run(Program(source=source, **program), stdin, limits))


def zygotes():
    return {child.pid for child in psutil.Process().children(recursive=True)}


@pytest.mark.parametrize(
    ("source", "code", "stdout", "stderr"),
    [
        ("print(input() * 2)", 0, b"abab\n", b""),
        ("import sys; sys.exit(3)", 3, b"", b""),
        ("import sys; sys.exit('no')", 1, b"", b"no\n"),
        ("print('\\u20ac'); 1 / 0", 1, "\u20ac\n".encode(), b"ZeroDivisionError: division by zero\n"),
        ("def f(:", 1, b"", b"SyntaxError: invalid syntax\n"),
        ("import atexit; atexit.register(print, 'late'); print('early')", 0, b"early\nlate\n", b""),
        ("import threading as t; t.Thread(target=lambda: print('thread')).start()", 0, b"thread\n", b""),
        ("if __name__ == '__main__': print(__file__)", 0, b"main.py\n", b""),
        ("import os; print(dict(os.environ))", 0, b"{}\n", b""),
        ("print(len(open('/dev/stdin').read()), file=open('/dev/stdout', 'w'))", 0, b"3\n", b""),
        ("print(open('/dev/null').read() == '')", 0, b"True\n", b""),
    ],
)
def test_python_ends_as_in_an_interpreter_of_its_own(sandbox, source, code, stdout, stderr):
    if "/dev/std" in source and sandbox.layer == "landlock":
        pytest.skip("this layer has no /proc")
    ended = run(sandbox, source, b"ab\n")
    assert (ended.cause, ended.code, ended.stdout) == ("exit", code, stdout)
    assert ended.stderr.endswith(stderr)
    assert b"cell.py" not in ended.stderr


def test_the_standard_library_is_there_and_installed_packages_are_not(sandbox):
    names = (
        "sqlite3 socket ssl ctypes multiprocessing asyncio urllib.request unittest zlib bz2 lzma hashlib xml.etree.ElementTree"
    )
    assert run(sandbox, f"import {names.replace(' ', ', ')}; print('all')").stdout == b"all\n"
    assert b"No module named 'numpy'" in run(sandbox, "import numpy").stderr
    packages = "import sysconfig, os; print(os.listdir(sysconfig.get_path('purelib')))"
    assert sandbox.layer == "landlock" or b"pip" not in run(sandbox, packages).stdout  # Landlock cannot leave out a subfolder


def test_files_go_in_and_kept_ones_come_out(sandbox):
    source = "import mine; open('out/b', 'wb').write(mine.data); f = open('open', 'w'); f.write('not closed')"
    files = {"mine.py": b"data = b'\\x00\\xff'", "out/a": b"x"}
    ended = run(sandbox, source, files=files, keep=("out/a", "out/b", "open", "absent"))
    assert dict(ended.files) == {"out/a": b"x", "out/b": b"\x00\xff", "open": b"not closed"}
    # An interpreter that lies in /tmp itself is bound there: of its folders the names can be seen, and nothing else.
    own = {Path(folder).parts[2] for folder in (sys.prefix, sys.base_prefix) if Path(folder).parts[:2] == ("/", "tmp")}
    left = ast.literal_eval(run(sandbox, "import os; print(os.listdir())").stdout.decode())
    assert set(left) <= own, "files of an earlier run are gone"


@pytest.mark.parametrize(
    ("source", "limits", "cause"),
    [
        ("import time; time.sleep(60)", {"wall_seconds": 0.5}, "timeout"),
        ("while True: pass", {"cpu_seconds": 0.5}, "timeout"),
        ("import os\nfor _ in range(2): os.fork()\nwhile True: pass", {"cpu_seconds": 1.0, "wall_seconds": 20.0}, "timeout"),
        ("a = []\nwhile True: a.append(bytearray(1 << 24))", {"memory_bytes": 128 * MIB}, "memory"),
        (
            "import os, time\nfor _ in range(3): os.fork()\na = bytearray(b'x') * (60 << 20); time.sleep(60)",
            {"memory_bytes": 200 * MIB},
            "memory",
        ),
        ("while True: print('x' * 9999)", {"output_bytes": 100_000}, "output"),
        ("import os; os.abort()", {}, "signal"),
    ],
)
def test_the_cause_of_an_end(sandbox, source, limits, cause):
    ended = run(sandbox, source, limits=replace(QUICK, **limits))
    assert ended.cause == cause
    assert len(ended.stdout) <= 100_000
    assert ended.truncated == (cause == "output")


def test_commands_run_in_the_same_place(sandbox):
    program = Program(argv=("sh", "-c", "read x; echo $x; echo $((6 * 7)) >&2; exit 5"), paths=SYSTEM)
    ended = asyncio.run(sandbox.run(program, b"words\n"))
    assert (ended.code, ended.stdout, ended.stderr) == (5, b"words\n", b"42\n")
    missing = asyncio.run(sandbox.run(Program(argv=("no-such-command",))))
    assert (missing.code, missing.stderr) == (127, b"no-such-command: No such file or directory\n")


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_a_compiled_program_is_kept_and_runs(sandbox):
    source = b"#include <iostream>\nint main() { int x; std::cin >> x; std::cout << x + 1; }"
    compile_ = Program(argv=("g++", "a.cpp", "-o", "a"), paths=SYSTEM, files={"a.cpp": source}, keep=("a",))
    built = asyncio.run(sandbox.run(compile_, limits=Limits(wall_seconds=60.0, cpu_seconds=30.0)))
    assert built.code == 0, built
    ended = asyncio.run(sandbox.run(Program(argv=("./a",), files=built.files), b"41\n"))
    assert (ended.code, ended.stdout) == (0, b"42")


@pytest.fixture
def open_folder():
    """A folder that everyone may read: pytest's own are for this user, and a program may run as another."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def test_a_path_of_this_machine_is_read_where_it_was_asked_for(sandbox, open_folder):
    folder = open_folder
    (folder / "data").write_text("there")
    source = f"print(open({str(folder / 'data')!r}).read())"
    assert run(sandbox, source, paths=(str(folder),)).stdout == b"there\n"
    assert run(sandbox, source).code == 1
    with pytest.raises(SandboxError, match="there is no /no/such"):
        run(sandbox, source, paths=("/no/such",))


def test_a_dialogue(sandbox):
    async def talk():
        source = "import sys\nfor line in sys.stdin: print(int(line) + 1, flush=True)"
        async with sandbox.open(Program(source=source)) as process:
            said = []
            for number in range(3):
                await process.write(b"%d\n" % number)
                said.append(await process.readline(5))
            silence = await process.readline(0.1)
            return said, silence, await process.end(), await process.readline(1)

    said, silence, ended, after = asyncio.run(talk())
    assert said == [b"1\n", b"2\n", b"3\n"]
    assert (silence, after) == (b"", b"")
    assert (ended.cause, ended.code, ended.stdout) == ("exit", 0, b"1\n2\n3\n")


def test_a_dialogue_that_is_left_is_killed(sandbox):
    async def leave():
        async with sandbox.open(Program(source="import time; time.sleep(60)")) as process:
            await process.write(b"x")

    begin = time.monotonic()
    asyncio.run(leave())
    assert time.monotonic() - begin < 4
    assert run(sandbox, "print(1)").stdout == b"1\n"


def test_many_threads_and_loops_share_it(sandbox):
    answers = []

    def work(number):
        answers.append(run(sandbox, f"print({number})").stdout == b"%d\n" % number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 12


def test_a_cancelled_run_frees_its_slot(sandbox):
    async def cancel():
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(sandbox.run(Program(source="import time; time.sleep(60)")), 0.2)
        return await sandbox.run(Program(source="print(1)"))

    assert asyncio.run(cancel()).stdout == b"1\n"


def test_a_lost_zygote_is_replaced(sandbox):
    for pid in zygotes():
        with contextlib.suppress(ProcessLookupError):  # it has died with its parent already
            os.kill(pid, signal.SIGKILL)
    assert run(sandbox, "print(1)").stdout == b"1\n"


def test_runs_leave_nothing_behind(sandbox):
    run(sandbox, "pass")
    processes, descriptors = zygotes(), psutil.Process().num_fds()
    for _ in range(20):
        run(sandbox, "import os; os.fork()")
    assert (zygotes(), psutil.Process().num_fds()) == (processes, descriptors)


def test_control_groups_hold_all_runs_where_they_can_be_made():
    sandbox = Sandbox(concurrency=1)
    try:
        folders = dict(sandbox._groups._folders)
        if not folders:
            pytest.skip("no control group can be made here")
        members = {int(word) for folder in folders.values() for word in (folder / "cgroup.procs").read_text().split()}
        assert members == zygotes_of(sandbox)
        run(sandbox, "pass", limits=replace(QUICK, processes=500))
        if "pids" in folders:
            assert 500 < int((folders["pids"] / "pids.max").read_text()) < 1000
    finally:
        sandbox.close()
    assert not any(folder.exists() for folder in folders.values())


def zygotes_of(sandbox):
    task = next(iter(sandbox._zygotes.values()))
    process = psutil.Process(task.result()._process.pid)
    return {process.pid, *(child.pid for child in process.children(recursive=True))}


def test_close_ends_everything():
    before = zygotes()
    sandbox = Sandbox(limits=QUICK)
    assert sandbox.layer in ("bubblewrap", "namespaces")
    threading.Timer(0.3, sandbox.close).start()
    with pytest.raises(SandboxError):
        run(sandbox, "import time; time.sleep(60)")
    with pytest.raises(SandboxError, match="closed"):
        run(sandbox, "pass")
    assert zygotes() == before


def test_everything_dies_with_a_killed_host():
    script = """
        import asyncio, threading, psutil
        from align.rewards.sandbox import Program, Sandbox
        sandbox = Sandbox()
        program = Program(source="import time, os; os.fork(); time.sleep(600)")
        threading.Thread(target=lambda: asyncio.run(sandbox.run(program)), daemon=True).start()
        while len(children := psutil.Process().children(recursive=True)) < 5: pass
        print(*(child.pid for child in children), flush=True)
        threading.Event().wait()
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE) as host:
        assert host.stdout
        pids = [int(word) for word in host.stdout.readline().split()]
        host.kill()
    assert len(pids) >= 5
    deadline = time.monotonic() + 10
    while alive := [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "either source or argv"),
        ({"source": "", "argv": ("true",)}, "either source or argv"),
        ({"source": "", "files": {"../x": b""}}, "inside the working directory"),
        ({"source": "", "keep": ("/etc/passwd",)}, "inside the working directory"),
        ({"source": "", "paths": ("relative",)}, "absolute"),
    ],
)
def test_programs_that_cannot_be(fields, message):
    with pytest.raises(ValueError, match=message):
        Program(**fields)


def test_no_layer_is_an_error_that_says_what_to_do(monkeypatch):
    monkeypatch.setattr("align.rewards.sandbox.layers.STRONG", ("bubblewrap",))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SandboxError, match="bubblewrap is not installed") as caught:
        Sandbox()
    assert "weaker" in (caught.value.fix or "")
