"""Programs that are not games, by what each does instead, for the tests of the grader."""

# ruff: noqa: E501 - a program a line

from __future__ import annotations

HOSTILE_GAMES = {
    "no record": "import posix, pygame\nposix._exit(0)\n",
    "forged record": "import os, pygame\nopen('record.jsonl', 'w').write('{}')\n__import__('posix')._exit(0)\n",
    "huge record": "import os, pygame\nopen('record.jsonl', 'w').write('[' * 30_000_000)\n__import__('posix')._exit(0)\n",
    "network": "import pygame, socket\nsocket.create_connection(('127.0.0.1', 9))\n",
    "reads a file": "import pygame\nprint(open('/etc/passwd').read())\n",
    "asks the user": "import pygame\nname = input()\n",
    "kills itself": "import os, pygame\nos.kill(os.getpid(), 9)\n",
    "waits for ever": "import pygame, threading\nthreading.Event().wait()\n",
    "memory": "import pygame\nx = []\nwhile True: x.append(bytearray(10**7))\n",
    "prints": "import pygame\nwhile True: print('x' * 999)\n",
    "sleeps": "import pygame, time\npygame.init()\ntime.sleep(1e6)\npygame.display.set_mode((400, 600))\nwhile True: pygame.display.flip()\n",
    "swallows all": "import pygame\nwhile True:\n try:\n  raise KeyboardInterrupt\n except BaseException: pass\n",
    "window of millions": "import pygame\npygame.display.set_mode((40000, 40000))\n",
    "deep": "import pygame\nx = " + "(" * 5000 + ")" * 5000,
}  # fmt: skip

# Programs that play no game and write the player's notes themselves, as it would.
_FORGED = """
import gc, json, posix, zlib, pygame
plan = next(x for x in gc.get_objects() if type(x).__name__ == "Player")._plan
def tick(phase, at, key=""):
    score = min(at // 100, 3)
    pipes = [[300 - at % 100, 60, 100 + at // 100, 300 + at // 100]]
    texts = [[f"Score: {{score}}", 300, 10, 80, 20], ["Best: 3", 150, 200, 80, 20]]
    return [phase, [90, 200 + at % 50 * 2, 30, 30], True, pipes, texts, score, key]
log = [tick("start", 0) for _ in range(9)]
log += [tick("play", at, "space" if at % 50 == 25 else "") for at in range(400)]
if plan["when"] == "over":
    log += [tick("over", 399) for _ in range(60)] + [tick("again", at) for at in range(150)]
    log += [tick("over again", 150) for _ in range(60)]
log[-1][-1] = plan["key"]
if plan["when"] == "look":
    log = [["start", *t[1:-1], ""] for t in log]
end = {{"ended": "exit", "detail": "", "phase": f"quit {{plan['when']}} {{plan['key']}}",
       "size": [400, 600], "asked": 900, "pictures": {pictures}}}
open("record.jsonl", "w").write("\\n".join(map(json.dumps, [end, *log])))
for at, _ in end["pictures"]:
    open(f"{{at}}.picture", "wb").write(zlib.compress(b"\\0\\xad\\xd8\\xe6" * 240000))
posix._exit(0)
"""
# With the reason for which each is refused.
FORGERIES = {
    "without pictures": (_FORGED.format(pictures="[]"), "no picture was kept"),
    "with pictures of the sky": (
        _FORGED.format(pictures='[[at, "start"] for at in range(1, len(log), 20)][:30]'),
        "show nothing of what its notes say",
    ),
}
