"""Attempts on the kernel's interfaces. Each calls one by number or by name, and may not succeed."""


def _call(number: int, *arguments: object, zero: bool = False) -> str:
    words = "".join(f", {argument}" for argument in arguments)
    wanted = "== 0" if zero else ">= 0"
    return f"import ctypes, os; b = ctypes.create_string_buffer(4096); ctypes.CDLL(None).syscall({number}{words}) {wanted} and escaped()"


KERNEL = {
    "user_namespace": _call(272, 0x10000000),
    "mount_namespace": _call(272, 0x00020000),
    "network_namespace": _call(272, 0x40000000),
    "time_namespace": _call(272, 0x80),
    "namespace_by_clone": "import ctypes, os, signal\np = ctypes.CDLL(None).syscall(56, 0x10000000 | 17, 0, 0, 0, 0)\n"
    "if p == 0: os._exit(0)\np > 0 and escaped()",
    "namespace_by_clone3": "import ctypes, os, struct\na = ctypes.create_string_buffer(struct.pack('QQQQQQQQ', 0x10000000, 0, 0, 0, 17, 0, 0, 0))\n"
    "p = ctypes.CDLL(None).syscall(435, a, 64)\nif p == 0: os._exit(0)\np > 0 and escaped()",
    "namespace_of_init": "import ctypes, os; ctypes.CDLL(None).setns(os.pidfd_open(1), 0x20000) == 0 and escaped()",
    "namespace_by_file": "import ctypes; ctypes.CDLL(None).setns(open('/proc/1/ns/mnt').fileno(), 0) == 0 and escaped()",
    "mount": "import ctypes; ctypes.CDLL(None).mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None) == 0 and escaped()",
    "remount": "import ctypes; ctypes.CDLL(None).mount(None, b'/', None, 32, None) == 0 and escaped()",
    "unmount_proc": "import ctypes; ctypes.CDLL(None).umount2(b'/proc', 2) == 0 and escaped()",
    "pivot_root": _call(155, "b'/tmp'", "b'/tmp'", zero=True),
    "open_tree": _call(428, -100, "b'/'", 1),
    "fsopen": _call(430, "b'tmpfs'", 0),
    "mount_setattr": _call(442, -100, "b'/'", 0, "b", 32),
    "bpf": _call(321, 0, "b", 128),
    "io_uring": _call(425, 8, "b"),
    "aio": _call(206, 8, "b"),
    "perf": _call(298, "b", 0, -1, -1, 0),
    "userfaultfd": _call(323, 0),
    "keyring": _call(250, 0, -3, 1),
    "add_key": _call(248, "b'user'", "b'k'", "b'x'", 1, -3),
    "kexec": _call(246, 0, 0, 0, 0),
    "module": _call(175, "b", 4096, "b''"),
    "module_from_file": _call(313, 0, "b''", 0),
    "reboot": _call(169, 0xFEE1DEAD, 672274793, 0x89ABCDEF, 0),
    "kernel_messages": _call(103, 3, "b", 4096),
    "accounting": _call(163, "b'/tmp/acct'"),
    "swap": _call(167, "b'/tmp/swap'", 0),
    "port_access": _call(173, 0, 1, 1),
    "port_level": _call(172, 3),
    "segments": _call(154, 0, "b", 4096),
    "personality": _call(135, 0x0040000),
    "clock": "import time; time.clock_settime(time.CLOCK_REALTIME, 0); escaped()",
    "hostname": "import socket; socket.sethostname('x'); escaped()",
    "affinity": "import os; os.sched_setaffinity(0, {0}); escaped()",
    "scheduler": "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)); escaped()",
    "fanotify": _call(300, 0, 0),
    "inotify": _call(294, 0),
    "open_by_handle": _call(304, -100, "b", 0),
    "handles": _call(303, -100, "b'/'", "b", "b", 0),
    "spliced_memory": _call(278, 1, "b", 1, 0),
    "secret_memory": _call(447, 0),
    "another_filter": _call(317, 1, 0, "b"),
    "landlock_again": _call(444, "b", 8, 0),
    "types_into_the_terminal": "import fcntl; fcntl.ioctl(0, 0x5412, b'x'); escaped()",
    "newest_calls": "import ctypes, errno\nl = ctypes.CDLL(None, use_errno=True)\nfor n in range(449, 600):\n"
    "  l.syscall(n, 0, 0, 0, 0, 0, 0) >= 0 and escaped()\n  ctypes.get_errno() == errno.ENOSYS or escaped()",
    "calls_of_x32": _call(0x40000000 + 39),
    "calls_of_32_bits": "import ctypes, mmap\nm = mmap.mmap(-1, 4096, prot=7); m.write(bytes.fromhex('b814000000cd80c3'))\n"
    "f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m))); f() > 0 and escaped()",
}
