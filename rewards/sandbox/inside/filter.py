"""The seccomp filter: a denylist of dangerous system calls, and of all that are newer than it.

Denied calls fail with EPERM (unknown ones with ENOSYS, so that libraries fall back); calls of another architecture kill.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from align.rewards.sandbox.inside.kernel import NEWIPC, NEWNET, NEWNS, NEWPID, NEWUSER, NEWUTS, PR_SET_SECCOMP, prctl

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NAMESPACES = NEWNS | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET | 0x02000000 | 0x00000080  # and cgroup, time
_NEWEST = 446  # landlock_restrict_self; what came later is refused

# name: number on x86_64, number on aarch64 (None where it has none)
_DENIED: dict[str, tuple[int | None, int | None]] = {
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "process_mrelease": (448, 448), "migrate_pages": (256, 238),
    "move_pages": (279, 239), "setns": (308, 268), "unshare": (272, 97), "perf_event_open": (298, 241),
    # file systems
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "quotactl": (179, 60), "quotactl_fd": (443, 443), "swapon": (167, 224), "swapoff": (168, 225),
    "mknod": (133, None), "mknodat": (259, 33), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    "fanotify_init": (300, 262), "fanotify_mark": (301, 263), "inotify_init": (253, None), "inotify_init1": (294, 26),
    "lookup_dcookie": (212, 18), "memfd_create": (319, 279), "memfd_secret": (447, 447), "setxattr": (188, 5),
    "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    # the network and other ways to talk
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202), "accept4": (288, 242),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188),
    "msgctl": (71, 187), "semget": (64, 190), "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192),
    "mq_open": (240, 180), "mq_unlink": (241, 181), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    # the kernel
    "bpf": (321, 280), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "userfaultfd": (323, 282), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "create_module": (174, None), "reboot": (169, 142),
    "syslog": (103, 116), "acct": (163, 89), "modify_ldt": (154, None), "iopl": (172, None), "ioperm": (173, None),
    "uselib": (134, None), "personality": (135, 92), "vhangup": (153, 58), "nfsservctl": (180, 42), "vmsplice": (278, 75),
    "io_setup": (206, 0), "io_submit": (209, 2), "io_destroy": (207, 1), "seccomp": (317, 277),
    "landlock_create_ruleset": (444, 444), "landlock_add_rule": (445, 445), "landlock_restrict_self": (446, 446),
    # clocks, names and priorities of the machine
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171),
    "sethostname": (170, 161), "setdomainname": (171, 162), "ioprio_set": (251, 30), "mlock": (149, 228), "mlock2": (325, 284),
    "mlockall": (151, 230), "sched_setscheduler": (144, 119), "sched_setattr": (314, 274), "sched_setaffinity": (203, 122),
    "set_mempolicy": (238, 237), "mbind": (237, 235), "setpriority": (141, 140), "sched_setparam": (142, 118),
}  # fmt: skip
_CLONE, _CLONE3, _PIDFD_SEND_SIGNAL = {"x86_64": 56, "aarch64": 220}, 435, 424
_IOCTL, _SOCKETPAIR, _SENDTO = {"x86_64": 16, "aarch64": 29}, {"x86_64": 53, "aarch64": 199}, {"x86_64": 44, "aarch64": 206}
_TO_PROCESSES = {
    "x86_64": (62, 200, 234, 129, 297, 302),
    "aarch64": (129, 130, 131, 138, 240, 261),
}  # kill, tkill, tgkill, sigqueueinfo of both kinds, prlimit64
_CHMODS = {"x86_64": ((90, 1), (91, 1), (268, 2)), "aarch64": ((52, 1), (53, 2))}  # calls, and which argument is the mode
_TIOCSTI, _TIOCLINUX, _AF_UNIX = 0x5412, 0x541C, 1


def supported() -> bool:
    """Whether the numbers of this machine's system calls are known here."""
    return os.uname().machine in _ARCHITECTURES


def install(*, only_own_signals: bool) -> None:
    """Put this process and its children under the filter, for ever; `only_own_signals`: it can signal and limit itself alone."""
    data = _assemble(os.uname().machine, os.getpid() if only_own_signals else None)
    buffer = ctypes.create_string_buffer(data, len(data))
    program = struct.pack("HxxxxxxP", len(data) // 8, ctypes.addressof(buffer))
    prctl(PR_SET_SECCOMP, 2, ctypes.create_string_buffer(program, len(program)))


def _assemble(machine: str, own: int | None) -> bytes:
    """The filter in BPF: each rule is a test of the call's number, loaded once, and what follows from it."""
    deny, missing = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
    column = list(_ARCHITECTURES).index(machine)
    code = [(_LOAD, 0, 0, 4), (_JUMP_EQUAL, 1, 0, _ARCHITECTURES[machine]), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    for numbers in _DENIED.values():
        if (number := numbers[column]) is not None:
            code += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, deny)]
    code += [(_JUMP_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, missing)]  # its flags lie in memory, where a filter cannot look
    code += [(_JUMP_AT_LEAST, 0, 1, _NEWEST + 1), (_RETURN, 0, 0, missing)]  # on x86_64 the x32 calls as well
    code += _argument(_CLONE[machine], 0, [(_JUMP_ANY_BIT, 0, 1, _NAMESPACES), (_RETURN, 0, 0, deny)])
    terminal = [(_JUMP_EQUAL, 1, 0, _TIOCSTI), (_JUMP_EQUAL, 0, 1, _TIOCLINUX), (_RETURN, 0, 0, deny)]
    code += _argument(_IOCTL[machine], 1, terminal)
    code += _argument(_SOCKETPAIR[machine], 0, [(_JUMP_EQUAL, 1, 0, _AF_UNIX), (_RETURN, 0, 0, deny)])
    code += _argument(_SENDTO[machine], 4, [(_JUMP_EQUAL, 1, 0, 0), (_RETURN, 0, 0, deny)])  # no address: to the other end only
    for number, index in _CHMODS[machine]:
        code += _argument(number, index, [(_JUMP_ANY_BIT, 0, 1, 0o6000), (_RETURN, 0, 0, deny)])
    if own is not None:
        code += [(_JUMP_EQUAL, 0, 1, _PIDFD_SEND_SIGNAL), (_RETURN, 0, 0, deny)]
        for number in _TO_PROCESSES[machine]:
            code += _argument(number, 0, [(_JUMP_EQUAL, 2, 0, own), (_JUMP_EQUAL, 1, 0, 0), (_RETURN, 0, 0, deny)])
    code += [(_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("HBBI", *line) for line in code)


def _argument(number: int, index: int, tests: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Of one call look at an argument (its lower half), and allow what passes the tests."""
    inner = [(_LOAD, 0, 0, 16 + 8 * index), *tests, (_RETURN, 0, 0, _ALLOW)]
    return [(_JUMP_EQUAL, 0, len(inner), number), *inner]
