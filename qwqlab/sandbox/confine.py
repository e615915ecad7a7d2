"""Shut the process that runs this file into one folder, then run a program in it.

`process` starts this file as a script, with its plan as JSON on stdin. It imports nothing of the
lab, since the program must not be able to read the lab. Each layer holds on its own. Which of them
were applied goes to the file that the plan names, which is closed before the program starts.

- A disk of its own, where namespaces allow it: what lies in the folder is in memory, and the kernel
  bounds it, whether it has a name or not. Elsewhere the folder is measured from outside, and so
  every file there must keep its name: nothing can be removed.
- Limits (setrlimit): memory, processor time, size of one file, open files, no core dump.
- Landlock: reads Python and system libraries, writes one folder, and nothing else. In that folder
  only plain files and folders: no links, sockets or devices.
- Seccomp: no new process, no socket, no signal to another process, no change of a file's mode,
  owner, times or attributes, which Landlock does not cover, nor of the limits.

Sources: https://docs.kernel.org/userspace-api/landlock.html, seccomp(2), clone(2), fcntl(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import json
import os
import runpy
import socket
import struct
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

LEVELS = ("weak", "partial", "strong")
_SYSTEM = (
    "/usr/lib /usr/lib64 /usr/local/lib /lib /lib64 /usr/share/fonts /usr/share/zoneinfo "
    "/etc/ld.so.cache /etc/localtime /dev/urandom /dev/null"
).split()
# System calls that no program here has a use for; some machines don't have all of them.
_REFUSED = (
    "fork vfork execve execveat memfd_create setsid setpgid socket socketpair socketcall connect "
    "bind listen accept accept4 sendto sendmsg sendmmsg tkill rt_sigqueueinfo rt_tgsigqueueinfo "
    "pidfd_open pidfd_getfd pidfd_send_signal ptrace process_vm_readv process_vm_writev kcmp "
    "move_pages migrate_pages mount umount umount2 pivot_root chroot move_mount open_tree fsopen "
    "fsconfig fsmount fspick unshare setns chmod fchmod fchmodat chown fchown lchown fchownat "
    "utime utimes utimensat futimesat setxattr lsetxattr fsetxattr removexattr lremovexattr "
    "fremovexattr truncate mknod mknodat open_by_handle_at name_to_handle_at readlink readlinkat "
    "flock inotify_init inotify_init1 inotify_add_watch fanotify_init fanotify_mark shmget shmat "
    "shmctl shmdt semget semop semctl semtimedop msgget msgsnd msgrcv msgctl ipc mq_open "
    "mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr io_uring_setup "
    "io_uring_enter io_uring_register io_setup io_submit bpf perf_event_open userfaultfd add_key "
    "request_key keyctl personality setrlimit seccomp setuid setgid setreuid setregid setresuid "
    "setresgid setfsuid setfsgid setgroups capset kexec_load kexec_file_load reboot swapon "
    "swapoff init_module finit_module delete_module acct quotactl syslog vhangup iopl ioperm "
    "modify_ldt sync syncfs settimeofday clock_settime clock_adjtime adjtimex sethostname "
    "setdomainname setpriority ioprio_set sched_setscheduler sched_setattr sched_setparam "
    "sched_setaffinity"
).split()
# These hide their flags behind a pointer. Told that the kernel has none of them, the C library
# takes clone and open.
_UNKNOWN = ("clone3", "openat2")
# To these the answer is that the disk can't: they reserve more than a file's size, and read marks
# of any file.
_UNSUPPORTED = "fallocate getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr".split()
# The calls of Linux 5.10 and later, by number since an older libseccomp has no name for them. No
# program here needs one, some change files, and those still to come are not known to be safe.
_KNOWN, _LATER = range(440), range(440, 512)
_PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP = 38, 24
_NOBODYS = 0x7F000000  # users of this number and above: nobody has one
_INT, _POINTER = (1 << 32) - 1, (1 << 64) - 1  # the kernel looks at the lower half of an int alone
# A thread is a clone that stays in the process and shares its table of open files.
_THREAD = 0x00010000 | 0x00000400
# A file without a name; and a folder that its owner can't read.
_NAMELESS, _CLOSED = getattr(os, "O_TMPFILE", 0) & ~os.O_DIRECTORY, 0o700
# How a file may be opened. With mode 3 Landlock is asked for no right at all, and before its
# version 3 it lets a file that may only be read be cut to nothing.
_OPEN = (
    (os.O_ACCMODE | os.O_TRUNC | _NAMELESS, os.O_RDONLY),
    (os.O_ACCMODE | _NAMELESS, os.O_WRONLY),
    (os.O_ACCMODE | _NAMELESS, os.O_RDWR),
)


def _any_of(*values: int) -> tuple[tuple[int, int], ...]:
    return tuple((_INT, value) for value in values)


# Calls that are allowed where one argument, under a mask, has one of these values.
_ONLY: dict[str, tuple[int, tuple[tuple[int, int], ...]]] = {
    "clone": (0, ((_THREAD, _THREAD),)),
    "open": (1, _OPEN),
    "openat": (2, _OPEN),
    "mkdir": (1, ((_CLOSED, _CLOSED),)),
    "mkdirat": (2, ((_CLOSED, _CLOSED),)),
    "umask": (0, ((_CLOSED, 0),)),
    "prlimit64": (2, ((_POINTER, 0),)),
    # Get and set a thread's name; read what it may do.
    "prctl": (0, _any_of(3, 15, 16, 23, 39, 0x53564D41)),
    # Duplicates, flags, and record locks, but no lease, and no file that sends signals.
    "fcntl": (1, _any_of(*range(8), 1030, 1032)),
    # Is it a terminal, how wide is it, how much can be read; don't wait; close on exec.
    "ioctl": (1, _any_of(0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),
}


def rate(applied: Iterable[str]) -> str:
    """Return the level that these layers reach together: "strong", "partial" or "weak".

    >>> rate(["limits", "landlock", "seccomp"]), rate(["limits", "landlock"]), rate(["limits"])
    ('strong', 'partial', 'weak')
    """
    applied = set(applied)
    if applied >= {"limits", "landlock", "seccomp"}:
        return "strong"
    return "partial" if applied & {"landlock", "seccomp", "namespaces"} else "weak"


def _list_readable() -> list[str]:
    """Return what a Python program needs to read: Python, its environment, system libraries."""
    found = {os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, *_SYSTEM)}
    # A Python whose prefix is the root would open everything; the system's folders are enough.
    return sorted(path for path in found - {"/"} if Path(path).exists())


def _call(name: str, *args: object) -> None:
    """Call a function of the C library that returns 0, or raise OSError."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*args):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _mount_disk(box: str, n_bytes: int, n_files: int) -> None:
    """Put a disk in memory over the box, with the files that lie there."""
    given = {path.name: path.read_bytes() for path in Path(box).iterdir()}
    flags = 2 | 4 | 8  # MS_NOSUID, MS_NODEV, MS_NOEXEC
    how = f"size={n_bytes},nr_inodes={n_files},mode=777"
    _call("mount", b"qwqlab", os.fsencode(box), b"tmpfs", flags, how.encode())
    os.chdir(box)
    for name, content in given.items():
        Path(name).write_bytes(content)


def _apply_limits(cpu_seconds: int, memory_bytes: int, file_bytes: int, processes: int) -> None:
    """Set the limits of this process for good, hard as soft."""
    import resource

    wanted = {
        "RLIMIT_CPU": cpu_seconds,
        "RLIMIT_AS": memory_bytes,
        "RLIMIT_FSIZE": file_bytes,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_CORE": 0,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_MEMLOCK": 65536,
    }
    if processes:
        wanted["RLIMIT_NPROC"] = processes
    for name, most in wanted.items():
        if hasattr(resource, name):
            which = getattr(resource, name)
            hard = resource.getrlimit(which)[1]
            # Beyond the soft limit on time a program gets SIGXCPU, which says why it ends.
            both = [most, most + 1 if name == "RLIMIT_CPU" else most]
            if hard != resource.RLIM_INFINITY:
                both = [min(each, hard) for each in both]
            resource.setrlimit(which, (both[0], both[1]))


def _give_up_rights() -> None:
    """Drop what root, or a namespace, lets this process do; nothing that it starts gains any."""
    libc = ctypes.CDLL(None)
    for right in range(64):
        libc.prctl(_PR_CAPBSET_DROP, right, 0, 0, 0)
    _call("capset", struct.pack("Ii", 0x20080522, 0), bytes(24))  # version 3, this process; none
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _apply_landlock(box: str, removes: bool, abi: int) -> None:
    """Let this process open what it may read and, for writing, what lies in the box.

    abi: as which version of Landlock, or 0 for the kernel's own.
    """
    from py_landlock import AccessFs, Landlock
    from py_landlock.abi import ABIVersion

    rules = Landlock(strict=False)
    if abi:
        rules._abi_version = ABIVersion(abi)
    for path in _list_readable():
        folder = AccessFs.READ_DIR if Path(path).is_dir() else AccessFs(0)
        write = AccessFs.WRITE_FILE if path == os.devnull else AccessFs(0)
        rules.add_path_rule(path, access=AccessFs.READ_FILE | folder | write)
    own = AccessFs.READ_FILE | AccessFs.READ_DIR | AccessFs.WRITE_FILE | AccessFs.TRUNCATE
    own |= AccessFs.MAKE_REG | AccessFs.MAKE_DIR
    if removes:
        own |= AccessFs.REMOVE_FILE | AccessFs.REMOVE_DIR | AccessFs.REFER
    rules.add_path_rule(box, access=own)
    rules.apply()


def _apply_seccomp() -> None:
    """Have the kernel answer EPERM to every call that is not listed here as allowed.

    Calls of another architecture (x32, i386) are fatal: libseccomp's default.
    """
    import pyseccomp as seccomp

    def find(names: Iterable[str]) -> set[int]:
        # A call that this architecture does not have resolves to a number below 0.
        return {seccomp.resolve_syscall(seccomp.Arch.NATIVE, name) for name in names}

    rules = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    unknown, unsupported = find(_UNKNOWN) | {*_LATER}, find(_UNSUPPORTED)
    itself = (0, ((_INT, os.getpid()),))
    only = {**_ONLY, "kill": itself, "tgkill": itself}
    for number in {*_KNOWN} - find(_REFUSED) - find(only) - unknown - unsupported:
        rules.add_rule(seccomp.ALLOW, number)
    for name, (argument, allowed) in only.items():
        for mask, value in allowed:
            for number in find([name]) & {*_KNOWN}:
                same = seccomp.Arg(argument, seccomp.MASKED_EQ, mask, value)
                rules.add_rule(seccomp.ALLOW, number, same)
    for answer, numbers in ((errno.ENOSYS, unknown), (errno.EOPNOTSUPP, unsupported)):
        for number in numbers & {*_KNOWN, *_LATER}:
            rules.add_rule(seccomp.ERRNO(answer), number)
    rules.load()


def _confine(plan: dict[str, Any], pid: int, applied: list[str], failed: dict[str, str]) -> None:
    """Apply every layer that this machine has and the plan does not leave out.

    Add the names of those applied, and a reason for each that failed. pid: the one outside, which
    no other process has.
    """
    for library in ("py_landlock", "pyseccomp"):
        # Each asks ldconfig for a library of C when it is imported: now, or never.
        with contextlib.suppress(Exception):
            importlib.import_module(library)
    if os.geteuid() == 0:
        # The kernel counts the threads of a real user that is not root. With one that is nobody's
        # and an effective one that is root as before, they are counted, and nothing else changes.
        with contextlib.suppress(OSError, AttributeError):
            os.setresuid(_NOBODYS + pid, 0, 0)
        counted = os.getuid() != 0
    else:
        counted = "namespaces" in applied  # outside it counts all that the user runs
    processes = plan["threads"] if counted else 0
    cpu_seconds, memory_bytes, file_bytes = plan["limits"]
    layers: dict[str, Callable[[], None]] = {
        "limits": lambda: _apply_limits(cpu_seconds, memory_bytes, file_bytes, processes),
        "no new privileges": _give_up_rights,
        "landlock": lambda: _apply_landlock(plan["box"], "disk" in applied, plan["abi"]),
        "seccomp": _apply_seccomp,
    }
    for name, apply in layers.items():
        if name not in plan["without"] and (sys.platform == "linux" or name == "limits"):
            _try(name, apply, applied, failed)


def _try(name: str, apply: Callable[[], None], applied: list[str], failed: dict[str, str]) -> None:
    try:
        apply()
    except Exception as error:  # noqa: BLE001 - the level is then a lower one
        failed[name] = f"{type(error).__name__}: {error}"
    else:
        applied.append(name)


def _stay_behind(report: socket.socket) -> None:
    """As the first process of a namespace, let a child go on, and tell how it ended.

    The kernel shields a first process from signals, so a program that is one would not die as
    others do; and `unshare` cannot hand on a death by SIGKILL. What the child left running ends
    with this process.
    """
    if child := os.fork():
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        report.sendall(f"{status}\n".encode())
        os._exit(0)


def _main() -> None:
    """Read the plan, confine this process, report, and run the program of the plan."""
    plan = json.load(sys.stdin)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.chdir(plan["box"])
    report = socket.socket(fileno=plan["report"])
    applied: list[str] = []
    failed: dict[str, str] = {}
    # `unshare` asks the kernel for every namespace in one call, and runs nothing if that fails.
    if os.getpid() == 1:
        applied.append("namespaces")
        if "disk" not in plan["without"]:
            _try("disk", lambda: _mount_disk(plan["box"], *plan["disk"]), applied, failed)
        _stay_behind(report)
    box = os.open(".", os.O_RDONLY)
    socket.send_fds(report, [b" "], [box])  # the lab reads there, when the namespace is gone
    os.close(box)
    pid = 0
    with contextlib.suppress(OSError):
        # The pid outside: /proc is that of the process which started this one.
        pid = int(str(Path("/proc/self").readlink()))
    # A folder that may not be read makes an import fail with another error than "no module"; and
    # links may not be read either, so that a module's path must be without.
    readable = tuple(f"{path}/" for path in _list_readable())
    found = [os.path.realpath(path) for path in sys.path]
    sys.path = [path for path in found if f"{path}/".startswith(readable)]
    _confine(plan, pid, applied, failed)
    line = json.dumps({"pid": pid, "applied": applied, "failed": failed})
    os.write(report.fileno(), line.encode() + b"\n")
    report.close()
    if LEVELS.index(rate(applied)) < LEVELS.index(plan["minimum"]):
        sys.exit(1)
    sys.argv = [plan["main"]]
    sys.path.insert(0, plan["box"])
    runpy.run_path(plan["main"], run_name="__main__")


if __name__ == "__main__":
    _main()
