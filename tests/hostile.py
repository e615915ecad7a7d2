"""Programs that try to break out of the sandbox, or to break the machine."""

# ruff: noqa: E501 - a program a line

from __future__ import annotations

import tempfile
from pathlib import Path

from qwqlab.paths import CHECKOUT

SECRET = "a-secret-of-the-lab"

# A program's name, its source, and what its outcome says: "killed", or words of its last error.
# PLACE stands for a folder outside that the tests own, PORT for a port on which they listen.
HOSTILE = [
    ("forks", "import os\nos.fork()", "PermissionError"),
    ("fork_bomb", "import os\nwhile True:\n try: os.fork()\n except OSError: pass", "killed"),
    ("starts_a_program", "import subprocess\nsubprocess.run(['true'])", "PermissionError"),
    ("starts_a_shell", "import os,sys\nsys.exit(os.system('touch PLACE/x') and 'refused')", "refused"),
    ("replaces_itself", "import os\nos.execv('/bin/sh', ['sh', '-c', 'true'])", "PermissionError"),
    ("multiprocessing", "import multiprocessing as m\nm.Process(target=print).start()", "Permission"),
    ("daemon", "import os\nif os.fork() == 0:\n os.setsid()\n os.fork()", "PermissionError"),
    ("leaves_its_session", "import os\nos.setsid()", "PermissionError"),
    ("spawns", "import os\nos.posix_spawn('/bin/true', ['true'], {})", "PermissionError"),
    ("raw_fork", "import ctypes\nl=ctypes.CDLL(None)\nr=[l.syscall(n,17) for n in (57,58,56)]\n"
     "raise SystemExit('refused' if r == [-1]*3 else 'forked')", "refused"),
    ("threads", "import threading,time\nwhile True:\n"
     " threading.Thread(target=time.sleep,args=(9,)).start()", "killed or RuntimeError"),
    ("memory", "x=bytearray(4<<30)", "MemoryError"),
    ("memory_bit_by_bit", "x=[]\nwhile True: x.append(bytearray(1<<20))", "MemoryError"),
    ("maps_memory", "import mmap\nx=mmap.mmap(-1, 4<<30)", "Cannot allocate"),
    ("burns_cpu", "while True: pass", "killed"),
    ("burns_cpu_and_ignores_it", "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\n"
     "while True: pass", "killed"),
    ("sleeps", "import time\ntime.sleep(1000)", "killed"),
    ("ignores_signals", "import signal,time\nfor n in range(1,65):\n"
     " try: signal.signal(n, signal.SIG_IGN)\n except (OSError, ValueError): pass\n"
     "time.sleep(1000)", "killed"),
    ("stops_itself", "import os,signal\nos.kill(os.getpid(), signal.SIGSTOP)", "killed"),
    ("kills_the_lab", "import os\nos.kill(os.getppid(), 9)", "PermissionError"),
    ("kills_all", "import os\nos.kill(-1, 9)", "PermissionError"),
    ("kills_its_group", "import os\nos.killpg(0, 9)", "PermissionError"),
    ("prints_for_ever", "while True: print('x' * 1000)", "killed"),
    ("complains_for_ever", "import sys\nwhile True: sys.stderr.write('x' * 1000)", "killed"),
    ("prints_no_newline", "import os\nwhile True: os.write(1, bytes(4096))", "killed"),
    ("large_file", "f=open('x','wb')\nwhile True: f.write(bytes(1<<20))", "File too large"),
    ("large_folder", "n=0\nwhile True:\n open(str(n),'wb').write(bytes(8<<20))\n n+=1", "killed"),
    ("many_files", "n=0\nwhile True:\n open(str(n),'w').close()\n n+=1", "killed"),
    ("nests_folders", "import os\nos.mkdir('x')", "PermissionError"),
    ("links_out", "import os\nos.symlink('PLACE', 'x')", "PermissionError"),
    ("hard_link", "import os\nos.link('PLACE/kept', 'x')", "Error"),
    ("makes_a_pipe", "import os\nos.mkfifo('x')", "PermissionError"),
    ("writes_outside", "open('PLACE/x','w').write('x')", "PermissionError"),
    ("writes_to_tmp", f"open({tempfile.gettempdir()!r}+'/qwqlab-x','w')", "PermissionError"),
    ("writes_to_shared_memory", "open('/dev/shm/qwqlab-x','w')", "PermissionError"),
    ("appends_outside", "open('PLACE/kept','a').write('x')", "PermissionError"),
    ("truncates_outside", "import os\nos.truncate('PLACE/kept', 0)", "PermissionError"),
    ("removes_outside", "import os\nos.remove('PLACE/kept')", "PermissionError"),
    ("renames_outside", "import os\nos.rename('PLACE/kept', 'PLACE/x')", "PermissionError"),
    ("changes_a_mode", "import os\nos.chmod('PLACE/kept', 0o777)", "PermissionError"),
    ("changes_a_time", "import os\nos.utime('PLACE/kept', (0, 0))", "PermissionError"),
    ("reads_outside", "print(open('PLACE/kept').read())", "PermissionError"),
    ("lists_the_home_folder", f"import os\nos.listdir({str(Path.home())!r})", "PermissionError"),
    ("reads_the_lab", f"open({str(CHECKOUT / 'README.md')!r})", "PermissionError"),
    ("reads_passwords", "open('/etc/passwd')", "PermissionError"),
    ("reads_a_process", "open('/proc/self/environ')", "PermissionError"),
    ("environment", f"import os\nraise SystemExit('{SECRET}' in str(os.environ) or 'empty')", "empty"),
    ("connects", "import socket\nsocket.create_connection(('127.0.0.1', PORT))", "PermissionError"),
    ("sends_a_packet", "import socket\nsocket.socket(type=socket.SOCK_DGRAM)", "PermissionError"),
    ("local_socket", "import socket\nsocket.socket(socket.AF_UNIX)", "PermissionError"),
    ("pair_of_sockets", "import socket\nsocket.socketpair()", "PermissionError"),
    ("asks_for_a_name", "import socket\nsocket.getaddrinfo('example.org', 80)", "gaierror"),
    ("fetches", "import urllib.request as u\nu.urlopen('http://127.0.0.1:PORT')", "Error"),
    ("raw_calls", "import ctypes\nl=ctypes.CDLL(None)\n"  # io_uring_setup, bpf, ptrace, unshare, mount
     "r=[l.syscall(n,0,0,0,0,0) for n in (425,321,101,272,165)]\n"
     "raise SystemExit('refused' if r == [-1]*5 else str(r))", "refused"),
    ("changes_a_mode_by_a_new_call", "import ctypes\nl=ctypes.CDLL(None)\n"  # fchmodat2
     "r=l.syscall(452, -100, b'PLACE/kept', 0o777, 0)\nraise SystemExit('refused' if r < 0 else 'done')", "refused"),
    ("raises_its_limits", "import resource as r\nr.setrlimit(r.RLIMIT_AS, (-1, -1))", "Error"),
    ("lowers_its_limits", "import resource as r\nr.setrlimit(r.RLIMIT_AS, (1 << 30, 1 << 30))",
     "Error"),
    ("overflows_the_stack", "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\n"
     "def g(n): return ''.join(map(str, [g(n)]))\ng(0)", "killed or Error"),
    ("reads_address_0", "import ctypes\nctypes.string_at(0)", "killed"),
    ("aborts", "import os\nos.abort()", "killed"),
    ("closes_all", "import os,time\nos.closerange(0, 100)\ntime.sleep(1000)", "killed"),
    ("prints_no_text", "import os\nos.write(1, bytes(range(256)))\nraise SystemExit('done')", "done"),
    ("forges_the_report", "import os\nfor n in range(3, 64):\n try: os.write(n, b'[\"magic\"]')\n"
     " except OSError: pass\nraise SystemExit('done')", "done"),
    ("removes_its_folder", "import os,shutil\nshutil.rmtree(os.getcwd())", "PermissionError"),
    ("locks_its_folder", "import os\nos.chmod('.', 0)", "PermissionError"),
    ("deletes_itself", "import os\nos.remove('main.py')\nraise SystemExit('done')", "done"),
    ("escapes_by_ctypes", "import ctypes\nl=ctypes.CDLL(None, use_errno=True)\n"
     "r=l.open(b'PLACE/x', 0o101, 0o600)\nraise SystemExit('refused' if r < 0 else 'opened')",
     "refused"),
]  # fmt: skip

# Games that are none: what each does instead.
HOSTILE_GAMES = {
    "no record": "import os, pygame\nos._exit(0)\n",
    "forged record": "import os, pygame\nopen('record.json', 'w').write('{}')\nos._exit(0)\n",
    "huge record": "import os, pygame\nopen('record.json', 'w').write('[' * 30_000_000)\nos._exit(0)\n",
    "network": "import pygame, socket\nsocket.create_connection(('127.0.0.1', 9))\n",
    "reads a file": "import pygame\nprint(open('/etc/passwd').read())\n",
    "asks the user": "import pygame\nname = input()\n",
    "kills itself": "import os, pygame\nos.kill(os.getpid(), 9)\n",
    "memory": "import pygame\nx = []\nwhile True: x.append(bytearray(10**7))\n",
    "prints": "import pygame\nwhile True: print('x' * 999)\n",
    "swallows all": "import pygame\nwhile True:\n try:\n  raise KeyboardInterrupt\n except BaseException: pass\n",
    "window of millions": "import pygame\npygame.display.set_mode((40000, 40000))\n",
    "deep": "import pygame\nx = " + "(" * 5000 + ")" * 5000,
}  # fmt: skip
