"""The sandbox from inside: a process that takes away its own rights, and then runs the program.

Started by `sandbox` as a script, `python -I confine.py PLAN`; PLAN is JSON. It imports nothing of
the lab. Each layer that was applied is reported through a pipe that is closed before the program
starts, so that the program can't add to the report; and it starts when the lab says so.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import runpy
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path
from typing import Any

# What a program could use to start others, to reach other processes or the network, to change what
# belongs to others, or to raise its limits. Landlock does not cover modes, owners and times.
DENIED = """
    fork vfork execve execveat
    socket socketpair connect bind listen accept accept4 sendto sendmsg sendmmsg
    ptrace process_vm_readv process_vm_writev pidfd_open pidfd_getfd pidfd_send_signal
    rt_sigqueueinfo rt_tgsigqueueinfo tkill setpgid setsid
    mount umount2 pivot_root chroot fsopen fsmount fsconfig fspick move_mount open_tree
    mount_setattr unshare setns
    chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes utimensat futimesat
    setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr mknod mknodat
    setrlimit setpriority sched_setaffinity sched_setscheduler sched_setparam sched_setattr
    ioprio_set setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid
    capset personality
    shmget shmat shmctl shmdt semget semop semctl semtimedop msgget msgsnd msgrcv msgctl
    mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr
    io_uring_setup io_uring_enter io_uring_register bpf perf_event_open userfaultfd
    keyctl add_key request_key kexec_load kexec_file_load reboot swapon swapoff acct quotactl
    init_module finit_module delete_module iopl ioperm syslog sethostname setdomainname
    settimeofday clock_settime clock_adjtime adjtimex vhangup name_to_handle_at open_by_handle_at
    fanotify_init landlock_create_ruleset memfd_secret lookup_dcookie nfsservctl
""".split()
CLONE_THREAD = 0x00010000
NEWER_CALLS = range(440, 512)  # the same numbers on x86-64 and aarch64; Python needs none of them


def main() -> None:
    """Confine this process by the plan, report, and run the program."""
    plan = json.loads(sys.argv[1])
    applied: list[str] = []
    without = set(plan["without"])
    layers = (("rlimits", _limit), ("landlock", _restrict_files), ("seccomp", _filter_calls))
    prepared = {} if "seccomp" in without else _load("pyseccomp")
    landlock = {} if "landlock" in without else _load("py_landlock")
    os.chdir(plan["box"])
    for name, apply in layers:
        if name not in without:
            with suppress(Exception):  # what can't be had is missing from the report
                apply(plan, {**prepared, **landlock})
                applied.append(name)
    report = int(plan["report"])
    os.write(report, json.dumps(applied).encode() + b"\n")
    os.close(report)
    go = int(plan["go"])
    if not os.read(go, 1):  # the lab doesn't accept this level, or is gone
        os._exit(1)
    os.close(go)
    sys.argv = [plan["main"], *plan["args"]]
    sys.path[0:0] = [plan["box"]]
    runpy.run_path(plan["main"], run_name="__main__")


def _load(name: str) -> dict[str, Any]:
    """A library by its name, loaded while files and processes are still within reach."""
    try:
        return {name: importlib.import_module(name)}
    except Exception:  # noqa: BLE001 - whatever keeps it from loading, the layer is missing
        return {}


def _limit(plan: dict[str, Any], _: dict[str, Any]) -> None:
    """Limits of the kernel for one process; the hard limit too, so that it can't be raised."""
    import resource

    limits = {
        resource.RLIMIT_CPU: plan["cpu_seconds"],
        resource.RLIMIT_FSIZE: plan["file_bytes"],
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    if sys.platform == "linux":
        limits[resource.RLIMIT_AS] = plan["memory_bytes"]
        limits[resource.RLIMIT_MSGQUEUE] = 0
        limits[resource.RLIMIT_MEMLOCK] = 0
    for limit, value in limits.items():
        hard = resource.getrlimit(limit)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # A second more of CPU in which SIGXCPU says why the process ends.
        resource.setrlimit(limit, (most, most + 1 if limit == resource.RLIMIT_CPU else most))


def _restrict_files(plan: dict[str, Any], loaded: dict[str, Any]) -> None:
    """Landlock: read Python and the system's libraries, write plain files into the box."""
    lock = loaded["py_landlock"]
    access = lock.AccessFs
    read_file, read = access.READ_FILE, access.READ_FILE | access.READ_DIR | access.EXECUTE
    write = access.READ_FILE | access.READ_DIR | access.WRITE_FILE | access.TRUNCATE
    ruleset = lock.Landlock(strict=False)
    for folder in _find_readable():
        ruleset.add_path_rule(folder, access=read if Path(folder).is_dir() else read_file)
    ruleset.add_path_rule(plan["box"], access=write | access.MAKE_REG | access.REMOVE_FILE)
    ruleset.add_path_rule("/dev/null", access=read_file | access.WRITE_FILE)
    ruleset.apply()


def _find_readable() -> list[str]:
    """Where Python and the libraries that it loads lie, and what they look up on the way."""
    places = [sys.prefix, sys.base_prefix, *sysconfig.get_paths().values()]
    places += ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/usr/share/fonts"]
    files = ["/etc/ld.so.cache", "/etc/localtime", "/dev/urandom", "/dev/random"]
    return [place for place in dict.fromkeys([*places, *files]) if Path(place).exists()]


def _filter_calls(_: dict[str, Any], loaded: dict[str, Any]) -> None:
    """seccomp: deny the system calls above, and those that make a process rather than a thread."""
    seccomp = loaded["pyseccomp"]
    rules = seccomp.SyscallFilter(seccomp.ALLOW)
    denied = seccomp.ERRNO(errno.EPERM)
    for call in DENIED:
        with suppress(OSError, ValueError):  # unknown to this kernel, or to this processor
            rules.add_rule(denied, call)
    # What is newer than libseccomp knows it by no name; some of it changes modes of files.
    for number in NEWER_CALLS:
        with suppress(OSError, ValueError):
            rules.add_rule(seccomp.ERRNO(errno.ENOSYS), number)
    # glibc falls back from clone3, whose flags no filter can read, to clone.
    rules.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
    is_no_thread = seccomp.Arg(0, seccomp.MASKED_EQ, CLONE_THREAD, 0)
    rules.add_rule(denied, "clone", is_no_thread)
    # The limits may be read and not set.
    rules.add_rule(denied, "prlimit64", seccomp.Arg(2, seccomp.NE, 0))
    for call in ("kill", "tgkill"):
        rules.add_rule(denied, call, seccomp.Arg(0, seccomp.NE, os.getpid()))
    rules.load()


if __name__ == "__main__":
    main()
