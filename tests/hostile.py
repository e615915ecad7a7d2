"""Programs that are not games, by what each does instead, for the tests of the grader."""

# ruff: noqa: E501 - a program a line

from __future__ import annotations

HOSTILE_GAMES = {
    "no record": "import os, pygame\nos._exit(0)\n",
    "forged record": "import os, pygame\nopen('record.json', 'w').write('{}')\nos._exit(0)\n",
    "huge record": "import os, pygame\nopen('record.json', 'w').write('[' * 30_000_000)\nos._exit(0)\n",
    "network": "import pygame, socket\nsocket.create_connection(('127.0.0.1', 9))\n",
    "reads a file": "import pygame\nprint(open('/etc/passwd').read())\n",
    "asks the user": "import pygame\nname = input()\n",
    "kills itself": "import os, pygame\nos.kill(os.getpid(), 9)\n",
    "waits for ever": "import pygame, threading\nthreading.Event().wait()\n",
    "memory": "import pygame\nx = []\nwhile True: x.append(bytearray(10**7))\n",
    "prints": "import pygame\nwhile True: print('x' * 999)\n",
    "swallows all": "import pygame\nwhile True:\n try:\n  raise KeyboardInterrupt\n except BaseException: pass\n",
    "window of millions": "import pygame\npygame.display.set_mode((40000, 40000))\n",
    "deep": "import pygame\nx = " + "(" * 5000 + ")" * 5000,
}  # fmt: skip
