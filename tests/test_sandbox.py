"""Hostile programs in the sandbox: each attack fails, and no process or file of it stays."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from qwqlab.errors import SandboxError
from qwqlab.sandbox import Limits, Outcome, confine, probe, process, run_python, sandbox

NOBODY = 65534
ALL = ("landlock", "seccomp", "namespaces")
# What a promise must hold on: as it is here, without namespaces, and with what older kernels have.
KERNELS: dict[str, dict[str, Any]] = {
    "this one": {},
    "no namespaces": {"without": ("namespaces",)},
    "Linux 5.19": {"without": ("namespaces",), "abi": 2},
    "Linux 6.7": {"abi": 4},
}
on_every_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
with_and_without_a_disk = pytest.mark.parametrize(
    "kernel", [*KERNELS.values()][:2], ids=["a disk of its own", "no namespaces"]
)
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these layers are Linux's")

Run = Callable[..., Outcome]


def find_processes(boxes: Path) -> list[int]:
    """The processes whose home is in this folder, wherever they hide."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"HOME={boxes}/".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def find_children() -> list[str]:
    """The children of this process, ended or not."""
    return Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of the user's, with a secret in it."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_text("the secret")
    return folder


@pytest.fixture
def run(tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A function that runs a program and looks, at the end of the test, at what it left behind."""
    boxes = tmp_path / "boxes"
    boxes.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(boxes))
    monkeypatch.setenv("QWQLAB_TEST_SECRET", "the secret")
    children = find_children()

    def run(code: str, **options: Any) -> Outcome:
        options.setdefault("limits", Limits(seconds=20, cpu_seconds=10))
        files = {"main.py": textwrap.dedent(code), **options.pop("files", {})}
        monkeypatch.setattr(sandbox, "_LEFT_OUT", options.pop("without", ()))
        monkeypatch.setattr(sandbox, "_LANDLOCK", options.pop("abi", 0))
        for name, most in options.pop("most", {}).items():
            monkeypatch.setattr(process, name, most)
        return run_python(files, "main.py", **options)

    yield run
    assert find_processes(boxes) == []
    assert find_children() == children
    assert list(boxes.iterdir()) == []
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == "the secret"


def attempt(attack: str) -> str:
    """A program that says what became of an attack."""
    return attempt_all({"it": attack})


def attempt_all(attacks: Mapping[str, str]) -> str:
    """A program that tries one attack after the other and says what became of each."""
    return (
        "import ctypes, fcntl, os, signal, socket, subprocess, sys, time\n"
        f"for name, attack in {attacks!r}.items():\n"
        "    try:\n"
        "        exec(attack)\n"
        "    except OSError as error:\n"
        "        print(f'{name}: refused')\n"
        "    else:\n"
        "        print(f'{name}: done')\n"
    )


def all_refused(attacks: Mapping[str, str]) -> str:
    """What a program prints of whose attacks none succeeds."""
    return "".join(f"{name}: refused\n" for name in attacks)


# What it may do.


def test_this_machine_reaches_the_level_that_the_tests_are_for() -> None:
    isolation = probe()
    assert isolation.level == "strong"
    assert set(isolation.applied) >= {"limits", "landlock", "seccomp"}
    assert isolation.network.startswith("none")
    assert json.loads(json.dumps(isolation.to_dict()))["applied"] == list(isolation.applied)


def test_a_program_gets_its_files_and_gives_what_it_made(run: Run) -> None:
    done = run(
        """
        import helper, sys
        open("made.txt", "w").write(helper.SAYS + open("data.bin").read())
        open("data.bin", "a").write("!")
        print(sys.argv, __name__)
        print("to stderr", file=sys.stderr)
        sys.exit(3)
        """,
        files={"helper.py": "SAYS = 'kept '", "data.bin": b"data"},
    )
    assert (done.status, done.reason) == (3, "exited with status 3")
    assert done.stdout == "['main.py'] __main__\n"
    assert done.stderr == "to stderr\n"
    assert done.files == {"made.txt": b"kept data", "data.bin": b"data!"}


@with_and_without_a_disk
def test_a_program_keeps_its_records_in_its_folder(run: Run, kernel: dict[str, Any]) -> None:
    done = run(
        """
        import os
        os.makedirs("saves/old", exist_ok=True)
        open("saves/best.txt", "w").write("7")
        open("best.tmp", "w").write(open("saves/best.txt").read())
        os.replace("best.tmp", "best.txt")
        os.rename("saves/best.txt", "saves/old/best.txt")
        os.remove("saves/old/best.txt")
        os.rmdir("saves/old")
        """,
        **kernel,
    )
    if "disk" in done.isolation.applied:
        assert (done.stderr, done.files) == ("", {"best.txt": b"7"})
    else:  # nothing that could be hidden from those who measure
        assert "PermissionError: [Errno 13]" in done.stderr
        assert "'best.tmp' -> 'best.txt'" in done.stderr


def test_numpy_and_threads_work(run: Run) -> None:
    done = run(
        """
        import threading, numpy
        found = []
        work = lambda n: found.append(float(numpy.linalg.inv(numpy.eye(200) * n)[0, 0]))
        threads = [threading.Thread(target=work, args=(n,)) for n in (1, 2, 4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        print(sorted(found))
        """
    )
    assert (done.stdout, done.stderr) == ("[0.25, 0.5, 1.0]\n", "")


def test_pygame_draws_writes_and_saves(run: Run) -> None:
    done = run(
        """
        import os
        os.environ |= {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"}
        import pygame
        pygame.init()
        screen = pygame.display.set_mode((320, 200))
        screen.blit(pygame.font.Font(None, 20).render("text", True, "white"), (0, 0))
        pygame.draw.circle(screen, "red", (100, 100), 20)
        pygame.display.flip()
        pygame.time.Clock().tick(60)
        pygame.image.save(screen, "shot.png")
        print(tuple(screen.get_at((100, 100))))
        """
    )
    assert done.stdout.endswith("(255, 0, 0, 255)\n"), done.stderr
    assert done.files["shot.png"].startswith(b"\x89PNG")


# No other process.

PROCESSES = {
    "fork": "os.fork()",
    "subprocess": "subprocess.run(['/bin/true'])",
    "a shell": "if os.system('true'): raise PermissionError",
    "posix_spawn": "os.posix_spawn('/bin/true', ['true'], {{}})",
    "exec": "os.execv('/bin/sh', ['sh', '-c', 'echo done'])",
    "multiprocessing": "import multiprocessing as m; m.Process(target=print, args=(1,)).start()",
    "a session of its own": "os.setsid()",
    "a group of its own": "os.setpgid(0, 0)",
    "a program in memory": "os.memfd_create('x')",
    "the processors of another": "os.sched_setaffinity({lab}, {{0}})",
}


@with_and_without_a_disk
def test_no_process_is_started_or_changed_and_no_session_left(
    run: Run, kernel: dict[str, Any]
) -> None:
    attacks = {name: attack.format(lab=os.getpid()) for name, attack in PROCESSES.items()}
    done = run(attempt_all(attacks), **kernel)
    assert done.stdout == all_refused(PROCESSES), done
    assert done.reason == "exited with status 0"


@pytest.mark.parametrize("without", [("seccomp",), ALL], ids=["namespaces", "nothing"])
def test_a_daemon_ends_with_the_program_though_nothing_refuses_it(
    run: Run, without: tuple[str, ...]
) -> None:
    daemon = "os.fork() and (time.sleep(0.5), os._exit(0)); os.setsid(); os.fork() and os._exit(0)"
    done = run(attempt(f"{daemon}\ntime.sleep(60)"), without=without, minimum="weak")
    assert done.reason == "exited with status 0"


def test_signals_reach_nobody_else(run: Run) -> None:
    done = run(
        """
        import ctypes, fcntl, os, signal
        tries = {
            "parent": lambda: os.kill(os.getppid(), 9),
            "group": lambda: os.killpg(0, 9),
            "all": lambda: os.kill(-1, 9),
            "first": lambda: os.kill(1, 9),
            "by a file": lambda: fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid()),
        }
        for name, attack in tries.items():
            try:
                attack()
            except OSError as error:
                print(name, type(error).__name__)
        signal.signal(signal.SIGUSR1, lambda *_: print("its own"))
        os.kill(os.getpid(), signal.SIGUSR1)
        """
    )
    names = ("parent", "group", "all", "first", "by a file")
    assert done.stdout == "".join(f"{name} PermissionError\n" for name in names) + "its own\n"


# Nothing outside is read.

READS = {
    "the home folder": "print(os.listdir({home!r}))",
    "a file of the user": "print(open({secret!r}).read())",
    "a path with dots": "print(open('../' * 20 + {secret!r}).read())",
    "passwd": "print(open('/etc/passwd').read())",
    "the root folder": "print(os.listdir('/'))",
    "the folder of the boxes": "print(os.listdir('..'))",
    "processes": "print(os.listdir('/proc'))",
    "the first process's environment": "print(open('/proc/1/environ').read())",
    "the lab's environment": "print(open('/proc/{lab}/environ').read())",
    "the lab's memory": "print(open('/proc/{lab}/mem', 'rb'))",
    "its own memory map": "print(open('/proc/self/maps').read())",
    "the lab's code": "print(open({code!r}).read())",
    "a link to a file": "os.symlink({secret!r}, 'link'); print(open('link').read())",
    "a hard link to a file": "os.link({secret!r}, 'link'); print(open('link').read())",
    "a disk": "print(open('/dev/vda', 'rb').read(1))",
    "a terminal": "print(open('/dev/tty').read(1))",
    "the kernel's log": "print(open('/dev/kmsg').read(1))",
    "where a link leads": "print(os.readlink({link!r}))",
    "a file's marks": "print(os.listxattr({secret!r}))",
    "one of its marks": "print(os.getxattr({secret!r}, 'user.mark'))",
    "a file's flags": "print(fcntl.ioctl(open(os.__file__), 0x80086601, bytes(8)))",
}


@on_every_kernel
def test_nothing_outside_is_read(
    run: Run, outside: Path, tmp_path: Path, kernel: dict[str, Any]
) -> None:
    (tmp_path / "link").symlink_to(outside / "secret")
    names = {"home": str(Path.home()), "secret": str(outside / "secret"), "lab": os.getpid()}
    names |= {"code": confine.__file__, "link": str(tmp_path / "link")}
    attacks = {name: attack.format(**names) for name, attack in READS.items()}
    done = run(attempt_all(attacks), **kernel)
    assert done.stdout == all_refused(READS), done
    assert done.files == {}


def test_the_labs_environment_and_packages_stay_with_the_lab(run: Run) -> None:
    done = run(
        """
        import os
        print(sorted(os.environ))
        try:
            import qwqlab
        except ModuleNotFoundError as error:
            print(error)
        for n in range(3, 64):
            try:
                os.fstat(n)
                print("open", n)
            except OSError:
                pass
        """
    )
    own = {"HOME", "LANG", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PATH", "TMPDIR"}
    lines = done.stdout.splitlines()
    assert set(json.loads(lines[0].replace("'", '"'))) == own
    assert "No module named 'qwqlab'" in lines
    assert "the secret" not in done.stdout + done.stderr


# Nothing outside is written or changed.

WRITES = {
    "into the home folder": "open({home!r} + '/qwqlab-was-here', 'w')",
    "over a file": "open({secret!r}, 'w')",
    "at the end of a file": "open({secret!r}, 'a')",
    "into /tmp": "open('/tmp/qwqlab-was-here', 'w')",
    "into shared memory": "open('/dev/shm/qwqlab-was-here', 'w')",
    "into the folder where the lab runs": "open({cwd!r} + '/qwqlab-was-here', 'w')",
    "beside the box": "open('../qwqlab-was-here', 'w')",
    "into Python's packages": "open(os.__file__, 'a')",
    "cutting a file": "os.truncate({secret!r}, 0)",
    "cutting what may be read": "os.open(os.__file__, os.O_RDONLY | os.O_TRUNC)",
    "cutting with the third mode": "os.open({secret!r}, 3 | os.O_TRUNC)",
    "flags with the third mode": "fcntl.ioctl(os.open({secret!r}, 3), 0x40086602, bytes(8))",
    "the third mode in a folder": "os.open('secret', 3, dir_fd=os.open({outside!r}, os.O_PATH))",
    "a device with the third mode": "os.open('/dev/urandom', 3)",
    "flags of its own": "fcntl.ioctl(open('main.py', 'r+b'), 0x40086602, bytes(8))",
    "a lock on what may be read": "fcntl.flock(open(os.__file__), fcntl.LOCK_SH)",
    "a lease on what may be read": "fcntl.fcntl(open(os.__file__), 1024, fcntl.F_RDLCK)",
    "removing a file": "os.remove({secret!r})",
    "moving a file": "os.rename({secret!r}, 'mine')",
    "moving a file out": "open('a', 'w').close(); os.rename('a', {outside!r} + '/a')",
    "a hard link out": "open('a', 'w').close(); os.link('a', {outside!r} + '/a')",
    "removing a folder": "os.rmdir({outside!r})",
    "removing its own folder": "os.rmdir(os.getcwd())",
    "a file's mode": "os.chmod({secret!r}, 0o777)",
    "its own folder's mode": "os.chmod('.', 0)",
    "a file's owner": "os.chown({secret!r}, 1000, 1000)",
    "a file's times": "os.utime({secret!r}, (0, 0))",
    "a file's attributes": "os.setxattr({secret!r}, 'user.mark', b'x')",
    "a folder": "os.mkdir({outside!r} + '/folder')",
    "a folder that its owner can't read": "os.mkdir('folder', 0o300)",
    "a mask for folders": "os.umask(0o700)",
    "a pipe": "os.mkfifo('pipe')",
    "a device": "os.mknod('device', 0o20666, os.makedev(1, 3))",
}


@on_every_kernel
def test_nothing_outside_is_written_or_changed(
    run: Run, outside: Path, kernel: dict[str, Any]
) -> None:
    before = (outside / "secret").stat()
    places = [Path.home(), Path("/tmp"), Path("/dev/shm"), Path.cwd()]
    names = {"home": str(Path.home()), "cwd": str(Path.cwd())}
    names |= {"secret": str(outside / "secret"), "outside": str(outside)}
    attacks = {name: attack.format(**names) for name, attack in WRITES.items()}
    done = run(attempt_all(attacks), **kernel)
    assert done.stdout == all_refused(WRITES), done
    after = (outside / "secret").stat()
    assert (after.st_mode, after.st_uid, after.st_mtime) == (
        before.st_mode,
        before.st_uid,
        before.st_mtime,
    )
    assert not any((place / "qwqlab-was-here").exists() for place in places if os.access(place, 1))


# No network.

SOCKETS = {
    "TCP": "socket.create_connection(('127.0.0.1', {port}), 2).send(b'x')",
    "UDP": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))",
    "a listener": "socket.create_server(('127.0.0.1', 0))",
    "a Unix socket": "socket.socket(socket.AF_UNIX).connect({path!r})",
    "an abstract socket": "socket.socket(socket.AF_UNIX).connect('\\0' + {name!r})",
    "a pair": "socket.socketpair()",
    "a raw socket": "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "a name": "socket.getaddrinfo('example.org', 80)",
}


@pytest.fixture
def listeners(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Sockets that wait for a program's call, and where they do."""
    name = f"qwqlab-{uuid.uuid4().hex}"
    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        where = {"port": tcp.getsockname()[1], "path": f"/tmp/{name}", "name": name}
        stack.callback(Path(where["path"]).unlink)
        kinds = [(socket.AF_UNIX, socket.SOCK_STREAM, where["path"])]
        kinds += [(socket.AF_UNIX, socket.SOCK_STREAM, f"\0{name}")]
        sockets = [tcp, stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))]
        sockets[1].bind(("127.0.0.1", where["port"]))
        for family, kind, address in kinds:
            sockets.append(stack.enter_context(socket.socket(family, kind)))
            sockets[-1].bind(address)
            sockets[-1].listen()
        for waiting in sockets:
            waiting.setblocking(False)
        yield {**where, "sockets": sockets}


def count_calls(listeners: dict[str, Any]) -> int:
    calls = 0
    for waiting in listeners["sockets"]:
        with contextlib.suppress(BlockingIOError):
            if waiting.type == socket.SOCK_DGRAM:
                waiting.recv(10)
            else:
                waiting.accept()[0].close()
            calls += 1
    return calls


def test_no_socket_is_made(run: Run, listeners: dict[str, Any]) -> None:
    attacks = {name: attack.format(**listeners) for name, attack in SOCKETS.items()}
    done = run(attempt_all(attacks))
    assert done.stdout == all_refused(SOCKETS), done
    assert count_calls(listeners) == 0


def test_a_namespace_alone_keeps_the_network_out(
    run: Run, listeners: dict[str, Any], lacking: Callable[[str], NoReturn]
) -> None:
    if "namespaces" not in probe().applied:
        if os.getuid() == 0:
            lacking("root gets no namespaces here")
        pytest.skip("ordinary users get no namespaces here")
    names = ("TCP", "an abstract socket", "a name")
    attacks = {name: SOCKETS[name].format(**listeners) for name in names}
    done = run(attempt_all(attacks), without=("seccomp", "landlock"), minimum="partial")
    assert done.stdout == all_refused(attacks), done
    assert count_calls(listeners) == 0


# System calls without Python.

CALLS = {
    "fork": "57",
    "vfork by clone": "56, 0x4100 | 17, 0, 0, 0, 0",
    "clone3": "435, ctypes.create_string_buffer(88), 88",
    "a thread with files of its own": "56, 0x10900, 0, 0, 0, 0",
    "socket": "41, 2, 1, 0",
    "a socket with high bits": "41, (1 << 32) | 2, 1, 0",
    "io_uring": "425, 1, ctypes.create_string_buffer(120)",
    "ptrace": "101, 0, 0, 0, 0",
    "chmod": "90, b'main.py', 0o777",
    "open with the third mode": "2, b'main.py', 3",
    "the same, high bits": "2, b'main.py', (1 << 32) | 3",
    "no dumps, high bits": "157, (1 << 32) | 4, 0",
    "an ioctl, high bits": "16, 0, (1 << 32) | 0x5412, b'x'",
    "fchmodat2": "452, -100, b'main.py', 0o777, 0",
    "setxattrat": "463, -100, b'main.py', 0, b'user.x', 0, 0",
    "file_setattr": "469, -100, b'main.py', 0, 0, 0",
    "a call from the future": "500, 0, 0, 0",
    "kill with high bits": "62, (1 << 32) | os.getppid(), 9",
    "a file that signals, high bits": "72, 0, (1 << 32) | 8, os.getppid()",
    "unshare": "272, 0x10000000",
    "mount": "165, b'/', b'/', 0, 4096, 0",
    "bpf": "321, 0, 0, 0",
    "keyctl": "250, 0, 0",
    "perf": "298, 0, 0, -1, -1, 0",
    "userfaultfd": "323, 0",
    "openat2": "437, -100, b'main.py', ctypes.create_string_buffer(24), 24",
    "shared memory": "29, 0, 4096, 0o1600",
    "setuid": "105, 0",
    "syslog": "103, 10, 0, 0",
    "inotify": "294, 0",
}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86-64")
def test_the_kernel_refuses_the_calls(run: Run) -> None:
    done = run(
        f"""
        import ctypes, errno, os
        call = ctypes.CDLL(None, use_errno=True).syscall
        for name, args in {CALLS!r}.items():
            print(name, eval(f"call({{args}})"), errno.errorcode[ctypes.get_errno()])
        """
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(CALLS), done
    for name, line in zip(CALLS, lines, strict=True):
        assert line in (f"{name} -1 EPERM", f"{name} -1 ENOSYS")


MACHINE_CODE = """
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=7)
page.write(bytes.fromhex("{code}"))
print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))())
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="machine code of x86-64")
@pytest.mark.parametrize(
    "code",
    ["b814000000cd80c3", "b8270000400f05c3"],
    ids=["getpid of i386", "getpid of x32"],
)
def test_calls_of_another_architecture_are_the_end(run: Run, code: str) -> None:
    done = run(MACHINE_CODE.format(code=code))
    assert (done.stdout, done.reason) == ("", "killed by signal SIGSYS")


def test_limits_cannot_be_raised_and_rights_are_gone(run: Run) -> None:
    done = run(
        """
        import ctypes, resource
        for name in ("RLIMIT_CPU", "RLIMIT_AS", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_CORE"):
            which = getattr(resource, name)
            soft, hard = resource.getrlimit(which)
            assert hard - soft == (name == "RLIMIT_CPU")  # between them it is told why it ends
            for limit in ((-1, -1), (10, 10)):
                try:
                    resource.setrlimit(which, limit)
                    print("raised", name)
                except (OSError, ValueError):
                    pass
        class Header(ctypes.Structure):
            _fields_ = [("version", ctypes.c_uint), ("pid", ctypes.c_int)]
        rights = (ctypes.c_uint * 6)()
        libc = ctypes.CDLL(None)
        libc.capget(ctypes.byref(Header(0x20080522, 0)), rights)
        print(list(rights), libc.prctl(39, 0, 0, 0, 0))
        """
    )
    assert done.stdout == "[0, 0, 0, 0, 0, 0] 1\n", done.stderr


# Limits.


def test_memory_ends_at_its_limit(run: Run) -> None:
    attacks = ("bytearray(2 << 30)", "__import__('mmap').mmap(-1, 2 << 30)", "[0] * (1 << 28)")
    tries = (
        f"try:\n    {a}\nexcept (MemoryError, OSError):\n    print('refused')" for a in attacks
    )
    assert run("\n".join(tries)).stdout == "refused\n" * len(attacks)
    done = run("x = []\nwhile True: x.append(bytearray(1 << 25))")
    assert done.status == 1 and "MemoryError" in done.stderr


@with_and_without_a_disk
def test_threads_end_at_their_limit(run: Run, kernel: dict[str, Any]) -> None:
    done = run(
        """
        import threading, time
        threading.stack_size(1 << 16)
        try:
            for n in range(1000):
                threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        except RuntimeError:
            print(n)
        """,
        **kernel,
    )
    if os.getuid() and "namespaces" not in done.isolation.applied:
        # The kernel would count all that this user runs.
        assert done.reason == "killed because it started more than 64 threads"
    else:
        assert 50 < int(done.stdout) < process.THREADS


def test_a_loop_ends_with_its_processor_time(run: Run) -> None:
    done = run("while True: pass", limits=Limits(seconds=30, cpu_seconds=1))
    assert done.status == -signal.SIGXCPU
    assert done.reason == "killed because it used up its 1 s of processor time"


SLEEPERS = {
    "ignore every signal": """
        import signal, time
        for number in {*range(1, 65)} - {signal.SIGKILL, signal.SIGSTOP, 32, 33}:
            signal.signal(number, signal.SIG_IGN)
        time.sleep(60)
        """,
    "stop itself": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
    "never end its exit": "import atexit, time\natexit.register(time.sleep, 60)",
}


@pytest.mark.parametrize("code", SLEEPERS.values(), ids=SLEEPERS.keys())
def test_what_does_not_end_is_ended_by_the_clock(run: Run, code: str) -> None:
    done = run(code, limits=Limits(seconds=0.5))
    assert done.status == -9
    assert done.reason == "killed after 0.5 s of wall clock"


@pytest.mark.parametrize(("where", "number"), [("stdout", 1), ("stderr", 2)])
def test_what_prints_for_ever_is_ended(run: Run, where: str, number: int) -> None:
    code = f"import os\nwhile True: os.write({number}, b'a\\xff\\0b')"
    done = run(code)
    assert done.reason == f"killed because it printed more than 1 MiB to {where}"
    assert getattr(done, where) == "a\ufffd\0b" * (1 << 18)


def test_a_file_ends_at_its_limit(run: Run) -> None:
    code = "with open('a', 'wb') as file:\n    while True: file.write(bytes(1 << 20))"
    done = run(code, most={"FILE": 4 << 20})
    assert done.status == 1 and "File too large" in done.stderr
    assert len(done.files["a"]) <= 4 << 20


DELETED = "file = open('f', 'wb'); file.write(bytes(size)); held.append(file); os.remove('f')"
DISK = {
    "files": "open(f'f{n}', 'wb').write(bytes(size))",
    "folders": "os.mkdir(f'd{n}'); open(f'd{n}/f', 'wb').write(bytes(size))",
    "reserved": "held.append(open(f'f{n}', 'wb')); reserve(held[-1].fileno(), 1, 0, size)",
    "deleted": DELETED,
    "deleted and mapped": (
        "file = open('f', 'w+b'); file.write(bytes(size)); file.flush()\n"
        "    map(0, size, 3, 1, file.fileno(), 0); file.close(); os.remove('f')"
    ),
    "replaced": "held.append(open('f', 'wb')); held[-1].write(bytes(size)); os.replace('f', 'g')",
    "nameless": "held.append(os.open('.', os.O_TMPFILE | 2)); os.write(held[-1], bytes(size))",
    "deleted, the first thread gone": DELETED,
}
TAKE = """
import ctypes, os, threading, time
def fail(result, *_):
    if result == -1:
        raise OSError
long = ctypes.c_int64
reserve = ctypes.CDLL(None).fallocate64
reserve.argtypes, reserve.errcheck = [ctypes.c_int, ctypes.c_int, long, long], fail
map = ctypes.CDLL(None).mmap  # Python's own keeps the file open
map.argtypes, map.restype, map.errcheck = [long, long, *[ctypes.c_int] * 3, long], long, fail
held, size = [], 1 << 20
def take(n):
    {code}
def work():
    try:
        for n in range(40):
            take(n)
    except OSError:
        pass
    time.sleep(0.2)
    os.write(1, str(n).encode())
    os._exit(0)
if {apart}:
    threading.Thread(target=work).start()
    ctypes.CDLL(None).pthread_exit(None)
work()
"""


@with_and_without_a_disk
@pytest.mark.parametrize("attack", DISK)
def test_the_disk_ends_at_its_limit(run: Run, attack: str, kernel: dict[str, Any]) -> None:
    code = TAKE.format(code=DISK[attack], apart="gone" in attack)
    done = run(code, most={"FOLDER": 8 << 20}, **kernel)
    filled = "killed because it filled its folder with more than 8 MiB"
    assert done.reason == filled or int(done.stdout) <= 8, done
    assert sum(map(len, done.files.values())) <= 8 << 20


@with_and_without_a_disk
def test_many_files_are_the_end(run: Run, kernel: dict[str, Any]) -> None:
    code = "import time\nfor n in range(500): open(f'f{n}', 'w').close()\ntime.sleep(20)"
    done = run(code, most={"FILES": 100}, **kernel)
    if "disk" in done.isolation.applied:
        assert "No space left on device: 'f98'" in done.stderr  # the folder and main.py are two
    else:
        assert done.reason == "killed because it made more than 100 files"
        assert len(done.files) == 100


@with_and_without_a_disk
@pytest.mark.parametrize("n_letters", [1, 200])
def test_folders_without_end_are_the_end(run: Run, n_letters: int, kernel: dict[str, Any]) -> None:
    name = "d" * n_letters
    done = run(f"import os\nwhile True: os.mkdir({name!r}); os.chdir({name!r})", **kernel)
    if "disk" in done.isolation.applied:
        assert "No space left on device" in done.stderr
    else:
        assert done.reason == "killed because its folders are too deep to be measured"


# How it ends.

ENDS = {
    "a bad pointer": ("import ctypes\nctypes.string_at(0)", -11, "killed by signal SIGSEGV"),
    "kill itself": (
        "import os\nos.kill(os.getpid(), 9)",
        -9,
        "killed by signal SIGKILL",
    ),
    "a signal without a name": (
        "import os\nos.kill(os.getpid(), 40)",
        -40,
        "killed by signal 40",
    ),
    "exit at once": ("import os\nos._exit(137)", 137, "exited with status 137"),
    "half a surrogate": ("print('\ud800')", 1, "exited with status 1"),
    "no byte": ("", 0, "exited with status 0"),
}


@pytest.mark.parametrize(("code", "status", "reason"), ENDS.values(), ids=ENDS.keys())
def test_every_end_has_its_words(run: Run, code: str, status: int, reason: str) -> None:
    done = run(code)
    assert (done.status, done.reason) == (status, reason), done.stderr


def test_a_forged_report_changes_nothing(run: Run) -> None:
    done = run(
        """
        import os, sys
        forged = b'{"pid": 1, "applied": ["everything"], "lacking": {}, "status": 0, "cpu": 0}\\n'
        for number in range(64):
            try:
                os.write(number, forged * 2)
            except OSError:
                pass
        os._exit(5)
        """
    )
    assert done.status == 5
    assert done.isolation == probe()


def test_a_name_that_would_leave_the_box_is_refused(run: Run) -> None:
    for name in ("../x", "/tmp/x", "a/b", "", ".", ".."):
        with pytest.raises(SandboxError, match="must be the name"):
            run("", files={name: "x"})
    with pytest.raises(SandboxError, match="must be one of weak, partial, strong"):
        run("", minimum="perfect")


# The layers one by one: what each holds, nothing else holds.


def test_without_landlock_files_are_open_and_the_words_say_so(run: Run, outside: Path) -> None:
    code = attempt(READS["a file of the user"].format(secret=str(outside / "secret")))
    done = run(code, without=("landlock",), minimum="partial")
    assert done.stdout == "the secret\nit: done\n"
    assert done.isolation.level == "partial"
    assert done.isolation.filesystem.startswith("open: ")
    done = run(code, without=("seccomp", "namespaces"), minimum="partial")
    assert done.stdout == "it: refused\n"


def test_without_seccomp_and_namespaces_processes_and_network_are_open_and_the_words_say_so(
    run: Run, listeners: dict[str, Any]
) -> None:
    without = ("seccomp", "namespaces")
    done = run(
        attempt("os.fork() and os.wait() or os._exit(0)"), without=without, minimum="partial"
    )
    assert done.stdout == "it: done\n"
    assert done.isolation.processes.startswith("open: ")
    assert done.isolation.network.startswith("open: ")
    udp = SOCKETS["UDP"].format(**listeners)
    assert run(attempt(udp), without=without, minimum="partial").stdout == "it: done\n"
    assert count_calls(listeners) == 1
    alone = run(attempt(udp), without=("namespaces", "landlock"), minimum="partial")
    assert alone.stdout == "it: refused\n"
    assert alone.isolation.network == "none: no socket can be made"


def test_with_limits_alone_memory_and_files_are_held(run: Run) -> None:
    done = run(
        "try: bytearray(2 << 30)\nexcept MemoryError: open('a', 'wb').write(bytes(1 << 20))",
        without=ALL,
        minimum="weak",
        most={"FILE": 1000},
    )
    assert "File too large" in done.stderr and done.isolation.level == "weak"


@pytest.mark.parametrize(
    "code",
    [
        "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nos.setsid()\nsignal.pause()",
        "import os, shutil\nshutil.rmtree(os.getcwd())",
    ],
    ids=["kill its parent", "no folder"],
)
def test_nothing_stays_even_where_no_layer_holds(run: Run, code: str) -> None:
    done = run(code, without=ALL, minimum="weak", limits=Limits(3))
    assert not any(b"root:" in content for content in done.files.values())


def test_below_the_minimum_no_line_is_run(run: Run, outside: Path) -> None:
    code = f"open({str(outside / 'made')!r}, 'w')"
    for without, words in ((("landlock",), "Landlock"), (ALL, "libseccomp"), (("limits",), "lim")):
        with pytest.raises(SandboxError, match=words) as refusal:
            run(code, without=without)
        assert "minimum='" in str(refusal.value)
    with pytest.raises(SandboxError, match="is weak here and not partial"):
        run(code, without=ALL, minimum="partial")


# The lab.


def test_ctrl_c_in_the_lab_ends_the_program(run: Run) -> None:
    # A shell that runs this in the background has it ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(1, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run("import time\ntime.sleep(60)")
    assert time.monotonic() - begun < 20
    timer.join()
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_the_program_ends_where_the_lab_is_killed(tmp_path: Path) -> None:
    lab = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from qwqlab.sandbox import process, sandbox\n"
            "process.START, process.GRACE = 4.0, 0.5\n"
            "sandbox.run_python({'a.py': 'import time; time.sleep(300)'}, 'a.py',"
            " limits=sandbox.Limits(seconds=0.5))",
        ],
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    deadline = time.monotonic() + 60
    # timeout, unshare, the first process of the namespace, and the program.
    while len(find_processes(tmp_path)) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    lab.kill()
    lab.wait()
    assert find_processes(tmp_path)
    while find_processes(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert find_processes(tmp_path) == []


AS_NOBODY = """
set -e
python=$1; prefix=$2; closed=$3; shift 3
if [ -n "$closed" ]; then
    mount --bind "$prefix" /mnt
    mount -t tmpfs -o mode=755 none "$closed"
    mkdir -p "$prefix"
    mount --bind /mnt "$prefix"
fi
exec setpriv --reuid={nobody} --regid={nobody} --clear-groups "$python" "$@"
"""


# Promises that the kernel keeps in another way for root than for a user.
FOR_BOTH = (
    test_this_machine_reaches_the_level_that_the_tests_are_for,
    test_pygame_draws_writes_and_saves,
    test_a_program_keeps_its_records_in_its_folder,
    test_no_process_is_started_or_changed_and_no_session_left,
    test_a_daemon_ends_with_the_program_though_nothing_refuses_it,
    test_signals_reach_nobody_else,
    test_nothing_outside_is_read,
    test_the_labs_environment_and_packages_stay_with_the_lab,
    test_nothing_outside_is_written_or_changed,
    test_no_socket_is_made,
    test_a_namespace_alone_keeps_the_network_out,
    test_the_kernel_refuses_the_calls,
    test_limits_cannot_be_raised_and_rights_are_gone,
    test_threads_end_at_their_limit,
    test_the_disk_ends_at_its_limit,
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "tests", [FOR_BOTH, pytest.param((), marks=pytest.mark.nightly)], ids=["for both", "all"]
)
def test_this_holds_for_an_ordinary_user(
    tests: Sequence[Callable[..., None]], tmp_path: Path, lacking: Callable[[str], None]
) -> None:
    if os.getuid():
        pytest.skip("these tests are run by an ordinary user already")
    if not shutil.which("setpriv") or not shutil.which("unshare"):
        lacking("setpriv and unshare are not there")
    which = [f"{__file__}::{each.__name__}" for each in tests] or [__file__]
    # In a mount namespace of its own, a Python that lies in root's home gets a way to it.
    prefix = Path(sys.base_prefix)
    closed = [path for path in reversed(prefix.parents) if not path.stat().st_mode & 1]
    tmp_path.chmod(0o755)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.chown(folder, NOBODY, NOBODY)
        done = subprocess.run(
            [
                *("unshare", "--mount", "sh", "-c", AS_NOBODY.format(nobody=NOBODY), "sh"),
                *(sys.executable, str(prefix), str(closed[0]) if closed else ""),
                *("-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={folder}/tests"),
                *("-m", "not slow", *which),
            ],
            capture_output=True,
            text=True,
            env={**os.environ, "HOME": str(folder), "TMPDIR": str(folder)},
        )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
