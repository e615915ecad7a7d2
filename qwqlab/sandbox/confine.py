"""Shut the process that runs this file into one folder, then run a program in it.

`process` starts this file as a script, with its plan as JSON on stdin. It imports nothing of the
lab, since the program must not be able to read the lab. Each layer holds on its own. Which of them
were applied goes to the file that the plan names, which is closed before the program starts.

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
    "fork vfork execve execveat memfd_create setsid setpgid socket socketpair socketcall "
    "connect bind listen accept accept4 sendto sendmsg sendmmsg tkill rt_sigqueueinfo "
    "rt_tgsigqueueinfo pidfd_open pidfd_getfd pidfd_send_signal ptrace process_vm_readv "
    "process_vm_writev kcmp move_pages migrate_pages mount umount umount2 pivot_root chroot "
    "move_mount open_tree fsopen fsconfig fsmount fspick unshare setns chmod fchmod fchmodat "
    "chown fchown lchown fchownat utime utimes utimensat futimesat setxattr lsetxattr fsetxattr "
    "removexattr lremovexattr fremovexattr truncate mknod mknodat open_by_handle_at "
    "name_to_handle_at inotify_init inotify_init1 inotify_add_watch fanotify_init fanotify_mark "
    "shmget shmat shmctl shmdt semget semop semctl semtimedop msgget msgsnd msgrcv msgctl ipc "
    "mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr io_uring_setup "
    "io_uring_enter io_uring_register io_setup io_submit bpf perf_event_open userfaultfd "
    "add_key request_key keyctl personality setrlimit seccomp setuid setgid setreuid setregid "
    "setresuid setresgid setfsuid setfsgid setgroups capset kexec_load kexec_file_load reboot "
    "swapon swapoff init_module finit_module delete_module acct quotactl syslog vhangup iopl "
    "ioperm modify_ldt sync syncfs settimeofday clock_settime clock_adjtime adjtimex "
    "sethostname setdomainname setpriority ioprio_set sched_setscheduler sched_setattr "
    "sched_setparam"
).split()
# The calls of Linux 5.10 and later, by number since an older libseccomp has no name for them. No
# program here needs one, some change files, and those still to come are not known to be safe.
_LATER = range(440, 512)
_CLONE_THREAD = 0x00010000
_CALLS_OF_FCNTL = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: a file that sends signals
_CALLS_OF_IOCTL = (0x5412, 0x8901, 0x8902)  # TIOCSTI; FIOSETOWN and SIOCSPGRP, the same again
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_INT = 0xFFFFFFFF  # the kernel looks at the lower half alone where an argument is an int


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


def _refuse_new_privileges() -> None:
    """Let no program that this process starts gain rights (Linux)."""
    if ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError("prctl(PR_SET_NO_NEW_PRIVS) failed")


def _apply_landlock(box: str) -> None:
    """Let this process open what it may read and, for writing, plain files in the box."""
    from py_landlock import AccessFs, Landlock

    rules = Landlock(strict=False)
    for path in _list_readable():
        folder = AccessFs.READ_DIR if Path(path).is_dir() else AccessFs(0)
        write = AccessFs.WRITE_FILE if path == os.devnull else AccessFs(0)
        rules.add_path_rule(path, access=AccessFs.READ_FILE | folder | write)
    plain = AccessFs.WRITE_FILE | AccessFs.TRUNCATE | AccessFs.MAKE_REG | AccessFs.REMOVE_FILE
    folders = AccessFs.READ_DIR | AccessFs.MAKE_DIR | AccessFs.REMOVE_DIR
    rules.add_path_rule(box, access=AccessFs.READ_FILE | folders | plain)
    rules.apply()


def _apply_seccomp() -> None:
    """Have the kernel answer EPERM to the calls refused, and ENOSYS to later ones.

    Calls of another architecture (x32, i386) are fatal: libseccomp's default.
    """
    import pyseccomp as seccomp

    no = seccomp.ERRNO(errno.EPERM)
    rules = seccomp.SyscallFilter(seccomp.ALLOW)

    def refuse(name: str, *args: Any, answer: int = no) -> None:
        # A call that this architecture does not have resolves to a number below 0.
        if seccomp.resolve_syscall(seccomp.Arch.NATIVE, name) >= 0:
            rules.add_rule(answer, name, *args)

    def low(number: int, value: int, mask: int = _INT) -> Any:
        return seccomp.Arg(number, seccomp.MASKED_EQ, mask, value)

    for name in _REFUSED:
        refuse(name)
    for number in _LATER:
        rules.add_rule(seccomp.ERRNO(errno.ENOSYS), number)
    # Threads are clones that stay in the process. clone3 hides its flags behind a pointer: told
    # that there is none, the C library takes clone. So it is with openat2 and open.
    refuse("clone", low(0, 0, _CLONE_THREAD))
    refuse("clone3", answer=seccomp.ERRNO(errno.ENOSYS))
    refuse("openat2", answer=seccomp.ERRNO(errno.ENOSYS))
    for name, number in (("open", 1), ("openat", 2)):
        # Before its version 3 Landlock lets a file that may be read be cut to nothing.
        refuse(name, low(number, os.O_TRUNC, os.O_TRUNC | os.O_ACCMODE))
    for name in ("kill", "tgkill"):
        refuse(name, seccomp.Arg(0, seccomp.NE, os.getpid()))
    refuse("prlimit64", seccomp.Arg(2, seccomp.NE, 0))
    refuse("prctl", low(0, _PR_SET_DUMPABLE))
    for name, calls in (("fcntl", _CALLS_OF_FCNTL), ("ioctl", _CALLS_OF_IOCTL)):
        for call in calls:
            refuse(name, low(1, call))
    rules.load()


def _confine(plan: dict[str, Any], apart: bool) -> tuple[list[str], dict[str, str]]:
    """Apply every layer that this machine has and the plan does not leave out.

    apart: whether namespaces are there already. Return the names of those applied, and a reason
    for each that failed.
    """
    applied, failed = ["namespaces"] if apart else [], {}
    # Outside a namespace the kernel counts all that the user runs, and for root it counts nothing.
    processes = plan["threads"] if apart and os.getuid() else 0
    cpu_seconds, memory_bytes, file_bytes = plan["limits"]
    layers: dict[str, Callable[[], None]] = {
        "limits": lambda: _apply_limits(cpu_seconds, memory_bytes, file_bytes, processes),
        "no new privileges": _refuse_new_privileges,
        "landlock": lambda: _apply_landlock(plan["box"]),
        "seccomp": _apply_seccomp,
    }
    for library in ("py_landlock", "pyseccomp"):
        # Each asks ldconfig for a library of C when it is imported: now, or never.
        with contextlib.suppress(Exception):
            importlib.import_module(library)
    for name, apply in layers.items():
        if name in plan["without"] or (sys.platform != "linux" and name != "limits"):
            continue
        try:
            apply()
        except Exception as error:  # noqa: BLE001 - the level is then a lower one
            failed[name] = f"{type(error).__name__}: {error}"
        else:
            applied.append(name)
    return applied, failed


def _stay_behind(report: int) -> None:
    """As the first process of a namespace, let a child go on, and tell how it ended.

    The kernel shields a first process from signals, so a program that is one would not die as
    others do; and `unshare` cannot hand on a death by SIGKILL. What the child left running ends
    with this process.
    """
    if child := os.fork():
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(report, f"{status}\n".encode())
        os._exit(0)


def _main() -> None:
    """Read the plan, confine this process, report, and run the program of the plan."""
    plan = json.load(sys.stdin)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.chdir(plan["box"])
    # `unshare` asks the kernel for every namespace in one call, and runs nothing if that fails.
    apart = os.getpid() == 1
    if apart:
        _stay_behind(plan["report"])
    pid = 0
    with contextlib.suppress(OSError):
        # The pid outside: /proc is that of the process which started this one.
        pid = int(str(Path("/proc/self").readlink()))
    applied, failed = _confine(plan, apart)
    report = json.dumps({"pid": pid, "applied": applied, "failed": failed})
    os.write(plan["report"], report.encode() + b"\n")
    os.close(plan["report"])
    if LEVELS.index(rate(applied)) < LEVELS.index(plan["minimum"]):
        sys.exit(1)
    sys.argv = [plan["main"]]
    # A folder that may not be read makes an import fail with another error than "no module".
    readable = tuple(f"{path}/" for path in _list_readable())
    sys.path = [path for path in sys.path if f"{os.path.realpath(path)}/".startswith(readable)]
    sys.path.insert(0, plan["box"])
    runpy.run_path(plan["main"], run_name="__main__")


if __name__ == "__main__":
    _main()
