"""Every attempt to get out of the sandbox, in every layer that works here, and what an observer outside sees of it: nothing."""

import socket
import subprocess
import time

import pytest

from tests.escapes.attempts.files import FILES
from tests.escapes.attempts.kernel import KERNEL
from tests.escapes.attempts.network import NETWORK
from tests.escapes.attempts.processes import PROCESSES
from tests.escapes.attempts.resources import RESOURCES

TABLES = {"files": FILES, "processes": PROCESSES, "resources": RESOURCES, "network": NETWORK, "kernel": KERNEL}
ATTEMPTS = {f"{table}-{name}": source for table, attempts in TABLES.items() for name, source in attempts.items()}
HONEST = "print(sum(int(word) for word in '1 2 3'.split()))"

SEEN_WITHOUT_NAMESPACES = {"network-host_name"}  # tells no secret


def test_there_are_enough():
    assert len(ATTEMPTS) >= 75


@pytest.mark.parametrize("name", ATTEMPTS)
def test_contained(lab, world, name):
    begin = time.monotonic()
    ended = lab.run(world.program(ATTEMPTS[name]))
    assert time.monotonic() - begin < 20  # limits are a second; the rest is for busy machines
    shown = ended.stdout + ended.stderr + b"".join(ended.files.values())
    assert world.token.encode() not in shown
    assert b"ESCAPED" not in ended.stdout or (lab.layer == "landlock" and name in SEEN_WITHOUT_NAMESPACES)
    assert max(len(ended.stdout), len(ended.stderr)) <= lab.sandbox.limits.output_bytes
    assert sum(map(len, ended.files.values())) <= lab.sandbox.limits.disk_bytes
    world.check()
    lab.check()
    assert lab.run(HONEST).stdout == b"6\n"


def test_a_byte_on_a_socket_would_be_noticed(world):
    with socket.create_connection(("127.0.0.1", world.known["tcp"])), pytest.raises(AssertionError, match="reached"):
        world.check()


def test_a_file_outside_would_be_noticed(world):
    (world.canary / "written").touch()
    with pytest.raises(AssertionError):
        world.check()
    (world.canary / "written").unlink()


def test_a_process_left_over_would_be_noticed(lab):
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE), pytest.raises(AssertionError):
        lab.check()
