"""Games that differ from a passing one in one thing, for the tests of the grader.

Three games of different make are changed by replacing text. Each change has a name, a kind, and the
requirement that it breaks; 0 for a change that keeps them all.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent

HERE = Path(__file__).parent
GAMES = {
    "functions": HERE / "cases" / "flappy_functions.txt",
    "class": HERE.parent / "data" / "specimens" / "complete.py",
    "sprites": HERE.parent / "data" / "specimens" / "another.py",
}


@dataclass(frozen=True)
class Variant:
    """A changed game: which game and change, of what kind, and the requirement that it misses."""

    game: str
    name: str
    kind: str
    breaks: int
    source: str

    @property
    def id(self) -> str:
        return f"{self.game}: {self.name}"


@dataclass(frozen=True)
class Place:
    """A statement of a game that changes replace, and the names that stand around it."""

    old: str
    names: dict[str, str]


def _place(old: str, **names: str) -> Place:
    return Place(old, names)


# What draws what in each game. {s} is the screen, {c} the colour, {x} and {y} a corner.
SKY = {
    "functions": _place('screen.fill(g["bg"])', s="screen", c='g["bg"]', w="W", h="H"),
    "class": _place(
        "self.screen.fill(self.background)",
        s="self.screen", c="self.background", w="WIDTH", h="HEIGHT",
    ),
    "sprites": _place("win.fill(sky)", s="win", c="sky", w="W", h="H"),
}  # fmt: skip
LAND = {
    "functions": _place(
        'pygame.draw.rect(screen, g["land"], (0, H - GROUND, W, GROUND))',
        s="screen", c='g["land"]', w="W", h="GROUND", y="(H - GROUND)",
    ),
    "class": _place(
        "pygame.draw.rect(self.screen, self.soil, (0, FLOOR, WIDTH, GROUND))",
        s="self.screen", c="self.soil", w="WIDTH", h="GROUND", y="FLOOR",
    ),
    "sprites": _place("win.blit(land, (0, 420))", s="win", c="land.get_at((9, 9))[:3]", w="W",
                      h="60", y="420"),
}  # fmt: skip
BIRD = {
    "functions": _place(
        "draw_bird(g)", s="screen", x="90 - 14", y="int(g['y']) - 14", d="30", v="g['v']",
        draw="draw_bird(g)", size="(W, H)", c="g['color']",
    ),
    "class": _place(
        "self.draw_bird()\n", s="self.screen", x="self.bird.x", y="self.bird.y", d="30",
        v="self.speed", draw="self.draw_bird()", size="(WIDTH, HEIGHT)", c="self.color",
    ),
    "sprites": _place(
        "win.blit(bird, box)", s="win", x="box.x", y="box.y", d="32", v="v / 30",
        draw="win.blit(bird, box)", size="(W, H)", c="bird.get_at((9, 16))[:3]",
    ),
}  # fmt: skip
SCORE = {
    "functions": _place(
        """    text = font.render(f"Score: {g['score']}", True, (0, 0, 0))
    screen.blit(text, text.get_rect(topright=(W - 10, 10)))
""",
        s="screen", n="g['score']", f="font", w="W", h="H", best="best", t="g['timer']",
    ),
    "class": _place(
        """        self.write(f"Score: {self.score}", right=WIDTH - 10, y=10)
""",
        s="self.screen", n="self.score", f="self.font", w="WIDTH", h="HEIGHT", best="self.best",
        t="pygame.time.get_ticks() // 16",
    ),
    "sprites": _place(
        """        show(str(score), big, topright=(W - 12, 8))
""",
        s="win", n="score", f="small", w="W", h="H", best="best",
        t="pygame.time.get_ticks() // 16",
    ),
}  # fmt: skip
BEST = {
    "functions": _place(
        """        end = font.render(f"Best: {best}", True, (0, 0, 0))
        screen.blit(end, end.get_rect(center=(W // 2, H // 2)))
""",
        s="screen", b="best", f="font", w="W", h="H", score="g['score']",
    ),
    "class": _place(
        """            self.write(f"Best score: {self.best}", y=260)
""",
        s="self.screen", b="self.best", f="self.font", w="WIDTH", h="HEIGHT", score="self.score",
    ),
    "sprites": _place(
        """    show(f"Score {score}   High score {best}", small, center=(W // 2, 210))
""",
        s="win", b="best", f="small", w="W", h="H", score="score",
    ),
}  # fmt: skip
PIPES = {
    "functions": _place(
        """        pygame.draw.rect(screen, p["color"], (int(p["x"]), 0, 60, p["top"]))
        low = p["top"] + p["gap"]
        pygame.draw.rect(screen, p["color"], (int(p["x"]), low, 60, H - GROUND - low))
""",
        s="screen", c='p["color"]', x='int(p["x"])', t='p["top"]', l='(p["top"] + p["gap"])',
        w="60", f="(H - GROUND)",
    ),
    "class": _place(
        """            for wall in self.walls(pipe):
                pygame.draw.rect(self.screen, pipe["color"], wall)
""",
        s="self.screen", c='pipe["color"]', x='pipe["x"]', t='pipe["top"]',
        l='(pipe["top"] + GAP)', w="PIPE_WIDTH", f="FLOOR",
    ),
    "sprites": _place(
        """            upper = win.blit(pipe[2], (int(pipe[0]), 0))
            lower = win.blit(pipe[3], (int(pipe[0]), pipe[1]))
""",
        s="win", c="pipe[2].get_at((1, 1))[:3]", x="int(pipe[0])", t="pipe[2].get_height()",
        l="pipe[1]", w="64", f="420",
    ),
}  # fmt: skip

# The same thing drawn in another way, and things that are wrong: (kind, name, breaks, code).
SKIES = [
    ("sky", "as a rectangle", 0, "pygame.draw.rect({s}, {c}, {s}.get_rect())"),
    ("sky", "as a surface", 0,
     "sheet = pygame.Surface(({w}, {h}))\nsheet.fill({c})\n{s}.blit(sheet, (0, 0))"),
    ("sky", "of one pixel, scaled", 0,
     "dot = pygame.Surface((1, 1))\ndot.fill({c})\n"
     "{s}.blit(pygame.transform.scale(dot, ({w}, {h})), (0, 0))"),
    ("sky", "scaled onto the screen", 0,
     "dot = pygame.Surface((1, 1)).convert()\ndot.fill({c})\n"
     "pygame.transform.scale(dot, ({w}, {h}), {s})"),
    ("sky", "as an array", 0,
     "import numpy\npygame.surfarray.blit_array("
     "{s}, numpy.full(({w}, {h}, 3), {c}, dtype=numpy.uint8))"),
    ("sky", "as pixels of the screen", 0,
     "view = pygame.surfarray.pixels3d({s})\nview[:] = {c}\ndel view"),
    ("sky", "of lines that grow lighter", 0,
     "for line in range({h}):\n    part = line / {h}\n    shade = tuple(int(v + (255 - v) * part) "
     "for v in {c})\n    pygame.draw.line({s}, shade, (0, line), ({w}, line))"),
    ("sky", "of columns that grow lighter", 0,
     "for line in range({w}):\n    part = line / {w}\n    shade = tuple(int(v + (250 - v) * part) "
     "for v in {c})\n    pygame.draw.line({s}, shade, (line, 0), (line, {h}))"),
    ("sky", "of two parts", 0,
     "{s}.fill({c}, (0, 0, {w}, {h} // 2))\n{s}.fill({c}, (0, {h} // 2, {w}, {h}))"),
    ("sky", "through a subsurface", 0,
     "{s}.subsurface((0, 0, {w}, {h})).fill({c})"),
    ("sky", "added to black", 0,
     "{s}.fill((0, 0, 0))\n{s}.fill({c}, None, pygame.BLEND_RGB_ADD)"),
    ("sky", "multiplied with white", 0,
     "{s}.fill((255, 255, 255))\n{s}.fill({c}, None, pygame.BLEND_MULT)"),
    ("sky", "with clouds", 0,
     "{s}.fill({c})\nfor at in range(3):\n"
     "    pygame.draw.ellipse({s}, (255, 255, 255), (60 + 130 * at, 70 + 30 * at, 90, 36))"),
    ("sky", "with a sun", 0,
     "{s}.fill({c})\npygame.draw.circle({s}, (255, 240, 150), ({w} - 60, 120), 40)"),
    ("sky", "beneath a clear layer", 0,
     "{s}.fill({c})\nclear = pygame.Surface(({w}, {h}), pygame.SRCALPHA)\n{s}.blit(clear, (0, 0))"),
    ("sky", "always the same", 2, "{s}.fill((173, 216, 230))"),
    ("sky", "lines that are always the same", 2,
     "for line in range({h}):\n    pygame.draw.line("
     "{s}, (173, 216, 200 + line // 20), (0, line), ({w}, line))"),
    ("sky", "beneath a dark veil", 2,
     "{s}.fill({c})\nveil = pygame.Surface(({w}, {h}))\nveil.set_alpha(170)\n"
     "{s}.blit(veil, (0, 0))"),
    ("sky", "multiplied with gray", 2,
     "{s}.fill({c})\n{s}.fill((90, 90, 90), None, pygame.BLEND_MULT)"),
    ("sky", "hidden by one colour", 2,
     "{s}.fill({c})\ncover = pygame.Surface(({w}, {h}))\ncover.fill((173, 216, 230))\n"
     "{s}.blit(cover, (0, 0))"),
    ("sky", "pink first and always", 2, "{s}.fill((255, 182, 193))"),
]  # fmt: skip
LANDS = [
    ("land", "as tiles", 0,
     "for at in range(0, {w}, 40):\n    pygame.draw.rect({s}, {c}, (at, {y}, 40, {h}))"),
    ("land", "with grass on it", 0,
     "pygame.draw.rect({s}, {c}, (0, {y}, {w}, {h}))\n"
     "pygame.draw.rect({s}, (90, 160, 60), (0, {y}, {w}, 8))"),
    ("land", "with a line on it", 0,
     "pygame.draw.rect({s}, {c}, (0, {y}, {w}, {h}))\n"
     "pygame.draw.line({s}, (0, 0, 0), (0, {y}), ({w}, {y}), 3)"),
    ("land", "by a layer with alpha", 0,
     "ground = pygame.Surface(({w}, {h}), pygame.SRCALPHA)\nground.fill({c})\n"
     "{s}.blit(ground, (0, {y}))"),
    ("land", "as pixels", 0,
     "view = pygame.surfarray.pixels3d({s})\nview[:, {y}:] = {c}\ndel view"),
    ("land", "with stones", 0,
     "pygame.draw.rect({s}, {c}, (0, {y}, {w}, {h}))\nfor at in range(10, {w}, 50):\n"
     "    pygame.draw.circle({s}, (60, 40, 20), (at, {y} + 30), 6)"),
    ("land", "always one brown", 5, "pygame.draw.rect({s}, (101, 67, 33), (0, {y}, {w}, {h}))"),
    ("land", "blue", 5, "pygame.draw.rect({s}, (40, 60, 200), (0, {y}, {w}, {h}))"),
    ("land", "multiplied to green", 5,
     "pygame.draw.rect({s}, {c}, (0, {y}, {w}, {h}))\n"
     "{s}.fill((60, 255, 60), (0, {y}, {w}, {h}), pygame.BLEND_MULT)"),
    ("land", "not drawn", 5, "pass"),
]  # fmt: skip
BIRDS = [
    ("bird", "with an eye", 0,
     "{draw}\npygame.draw.circle({s}, (255, 255, 255), ({x} + 20, {y} + 20), 4)"),
    ("bird", "with a beak", 0,
     "{draw}\npygame.draw.polygon({s}, (255, 140, 0), [({x} + 26, {y} + 12), ({x} + 40, {y} + 16), "
     "({x} + 26, {y} + 20)])"),
    ("bird", "under a layer with alpha", 0,
     "{draw}\nmist = pygame.Surface({size}, pygame.SRCALPHA)\nmist.fill((255, 255, 255, 12))\n"
     "{s}.blit(mist, (0, 0))"),
    ("bird", "behind a copy of the screen", 0,
     "{draw}\npast = {s}.copy()\n{s}.blit(past, (0, 0))"),
    ("bird", "with a shadow on the land", 0,
     "{draw}\npygame.draw.ellipse({s}, (80, 60, 20), ({x}, {s}.get_height() - 30, 30, 8))"),
    ("bird", "light by a layer that adds", 4,
     "{draw}\nlight = pygame.Surface((44, 44))\nlight.fill((170, 170, 170))\n"
     "{s}.blit(light, ({x} - 6, {y} - 6), special_flags=pygame.BLEND_RGB_ADD)"),
    ("bird", "always a square over it", 4,
     "{draw}\npygame.draw.rect({s}, {c}, ({x} - 3, {y} - 3, 36, 36))"),
    ("bird", "always black over it", 4,
     "{draw}\nfor row in range(-2, 34):\n    for column in range(-2, 34):\n"
     "        spot = int({x}) + column, int({y}) + row\n"
     "        if {s}.get_rect().collidepoint(spot) and {s}.get_at(spot)[:3] == tuple({c}):\n"
     "            {s}.set_at(spot, (0, 0, 0))"),
    ("bird", "a star over it", 4,
     "{draw}\npygame.draw.polygon({s}, {c}, [({x} + 15, {y} - 12), ({x} + 22, {y} + 8), ({x} + 42, "
     "{y} + 8), ({x} + 26, {y} + 20), ({x} + 32, {y} + 42), ({x} + 15, {y} + 30), ({x} - 2, "
     "{y} + 42), ({x} + 4, {y} + 20), ({x} - 12, {y} + 8), ({x} + 8, {y} + 8)])"),
]  # fmt: skip
_RIGHT = "{s}.blit(image, image.get_rect(topright=({w} - 10, 10)))"
_RENDER = 'image = {f}.render(f"Score: {{{n}}}", True, (0, 0, 0))\n'
SCORES = [
    ("score", "called points", 0,
     'image = {f}.render(f"Points: {{{n}}}", True, (0, 0, 0))\n' + _RIGHT),
    ("score", "a number alone", 0, "image = {f}.render(str({n}), True, (0, 0, 0))\n" + _RIGHT),
    ("score", "of so many", 0,
     'image = {f}.render(f"{{{n}}} / 100", True, (0, 0, 0))\n' + _RIGHT),
    ("score", "before a level", 0,
     'image = {f}.render(f"Score {{{n}}} Level 1", True, (0, 0, 0))\n' + _RIGHT),
    ("score", "behind the best", 0,
     'image = {f}.render(f"Best {{{best}}} Now {{{n}}}", True, (0, 0, 0))\n' + _RIGHT),
    ("score", "with three digits", 0,
     'image = {f}.render(f"{{{n}:03d}}", True, (0, 0, 0))\n' + _RIGHT),
    ("score", "not smoothed", 0,
     'image = {f}.render(f"Score: {{{n}}}", False, (0, 0, 0))\n' + _RIGHT),
    ("score", "on a ground of its own", 0,
     'image = {f}.render(f"Score: {{{n}}}", True, (0, 0, 0), (255, 255, 255))\n' + _RIGHT),
    ("score", "converted", 0, _RENDER + "image = image.convert_alpha()\n" + _RIGHT),
    ("score", "copied", 0, _RENDER + "image = image.copy()\n" + _RIGHT),
    ("score", "scaled", 0,
     _RENDER + "image = pygame.transform.smoothscale(image, (image.get_width() * 6 // 5, "
     "image.get_height() * 6 // 5))\n" + _RIGHT),
    ("score", "turned a little", 0,
     _RENDER + "image = pygame.transform.rotozoom(image, 2, 1.1)\n" + _RIGHT),
    ("score", "by way of bytes", 0,
     _RENDER + "image = image.convert_alpha()\nsize = image.get_size()\n"
     "board = pygame.Surface(size, pygame.SRCALPHA)\nboard.blit(image, (0, 0))\nimage = board\n"
     + _RIGHT),
    ("score", "on a layer", 0,
     _RENDER + "layer = pygame.Surface(({w}, {h}), pygame.SRCALPHA)\n"
     "layer.blit(image, image.get_rect(topright=({w} - 10, 10)))\n{s}.blit(layer, (0, 0))"),
    ("score", "on a layer with a colour key", 0,
     _RENDER + "layer = pygame.Surface(({w}, {h}))\nlayer.fill((255, 0, 255))\n"
     "layer.set_colorkey((255, 0, 255))\n"
     "layer.blit(image, image.get_rect(topright=({w} - 10, 10)))\n{s}.blit(layer, (0, 0))"),
    ("score", "on a subsurface", 0,
     _RENDER + "corner = {s}.subsurface(({w} // 2, 0, {w} // 2, 60))\n"
     "corner.blit(image, image.get_rect(topright=({w} // 2 - 10, 10)))"),
    ("score", "part of a wider image", 0,
     _RENDER + "wide = pygame.Surface((300, 60), pygame.SRCALPHA)\nwide.blit(image, (40, 10))\n"
     "{s}.blit(wide, ({w} - 10 - image.get_width(), 0), (40, 0, 260, 60))"),
    ("score", "with blits", 0,
     _RENDER + "{s}.blits([(image, image.get_rect(topright=({w} - 10, 10)))])"),
    ("score", "with a shadow", 0,
     'under = {f}.render(f"Score: {{{n}}}", True, (255, 255, 255))\n'
     "{s}.blit(under, under.get_rect(topright=({w} - 8, 12)))\n" + _RENDER + _RIGHT),
    ("score", "half clear", 0, _RENDER + "image.set_alpha(140)\n" + _RIGHT),
    ("score", "on a panel", 0,
     _RENDER + "place = image.get_rect(topright=({w} - 10, 12))\n"
     "pygame.draw.rect({s}, (255, 255, 255), place.inflate(8, 6))\n{s}.blit(image, place)"),
    ("score", "by freetype", 0,
     "from pygame import freetype\nimage, _ = freetype.Font(None, 24).render("
     'f"Score: {{{n}}}", (0, 0, 0))\n' + _RIGHT),
    ("score", "label and number apart", 0,
     "number = {f}.render(str({n}), True, (0, 0, 0))\n"
     "{s}.blit(number, number.get_rect(topright=({w} - 10, 10)))\n"
     'label = {f}.render("Score", True, (0, 0, 0))\n'
     "{s}.blit(label, label.get_rect(topright=({w} - 50, 10)))"),
    ("score", "beside the time", 0,
     'image = {f}.render(f"Time {{{t} // 60}}  Score {{{n}}}", True, (0, 0, 0))\n' + _RIGHT),
    ("score", "beneath lines of a layer", 0,
     _RENDER + _RIGHT + "\nlayer = pygame.Surface(({w}, {h}), pygame.SRCALPHA)\n"
     "for line in range(0, {h}, 3):\n"
     "    pygame.draw.line(layer, (0, 0, 0, 30), (0, line), ({w}, line))\n"
     "{s}.blit(layer, (0, 0))"),
    ("score", "on the left", 6, _RENDER + "{s}.blit(image, (10, 10))"),
    ("score", "low on the right", 6,
     _RENDER + "{s}.blit(image, image.get_rect(bottomright=({w} - 10, {h} - 70)))"),
    ("score", "always none", 6,
     'image = {f}.render("Score: 0", True, (0, 0, 0))\n' + _RIGHT),
    ("score", "the time", 6,
     'image = {f}.render(f"Score: {{{t} // 60}}", True, (0, 0, 0))\n' + _RIGHT),
    ("score", "the pictures", 6,
     'image = {f}.render(f"Score: {{{t}}}", True, (0, 0, 0))\n' + _RIGHT),
    ("score", "not put on the screen", 6, _RENDER + "image.get_rect()"),
    ("score", "outside the screen", 6, _RENDER + "{s}.blit(image, ({w} + 5, 10))"),
    ("score", "clear", 6, _RENDER + "image.set_alpha(0)\n" + _RIGHT),
    ("score", "on a layer that is clear", 6,
     _RENDER + "layer = pygame.Surface(({w}, {h}), pygame.SRCALPHA)\n"
     "layer.blit(image, image.get_rect(topright=({w} - 10, 10)))\nlayer.set_alpha(0)\n"
     "{s}.blit(layer, (0, 0))"),
    ("score", "painted over", 6,
     _RENDER + "place = image.get_rect(topright=({w} - 10, 10))\n{s}.blit(image, place)\n"
     "pygame.draw.rect({s}, (240, 240, 240), place)"),
    ("score", "on a layer that is wiped", 6,
     _RENDER + "layer = pygame.Surface(({w}, {h}), pygame.SRCALPHA)\n"
     "layer.blit(image, image.get_rect(topright=({w} - 10, 10)))\nlayer.fill((0, 0, 0, 0))\n"
     "{s}.blit(layer, (0, 0))"),
]  # fmt: skip
_BOTTOM = "{s}.blit(image, image.get_rect(center=({w} // 2, {h} // 2 + 60)))"
BESTS = [
    *(("best", f"called {words!r}", 0,
       f'image = {{f}}.render(f"{words} {{{{{{b}}}}}}", True, (0, 0, 0))\n' + _BOTTOM)
      for words in ("HI", "Hi-Score:", "Max score:", "Record", "Top", "High:", "HIGHSCORE",
                    "Your best is", "Personal best -")),
    ("best", "before its word", 0,
     'image = {f}.render(f"{{{b}}} is the best so far", True, (0, 0, 0))\n' + _BOTTOM),
    ("best", "behind the score", 0,
     'image = {f}.render(f"Score {{{score}}} | Best {{{b}}}", True, (0, 0, 0))\n' + _BOTTOM),
    ("best", "below its word", 0,
     'label = {f}.render("BEST", True, (0, 0, 0))\n'
     "{s}.blit(label, label.get_rect(center=({w} // 2, {h} // 2 + 36)))\n"
     "image = {f}.render(str({b}), True, (0, 0, 0))\n" + _BOTTOM),
    ("best", "on a panel with the score", 0,
     "pygame.draw.rect({s}, (255, 255, 255), ({w} // 2 - 90, {h} // 2 + 24, 180, 124))\n"
     'rows = ["SCORE", str({score}), "BEST", str({b})]\nfor at, words in enumerate(rows):\n'
     "    image = {f}.render(words, True, (0, 0, 0))\n"
     "    {s}.blit(image, image.get_rect(center=({w} // 2, {h} // 2 + 40 + 30 * at)))"),
    ("best", "called by no word", 0,
     'image = {f}.render(f"Trophy {{{b}}}", True, (0, 0, 0))\n' + _BOTTOM),
    ("best", "scaled", 0,
     'image = {f}.render(f"Best: {{{b}}}", True, (0, 0, 0))\n'
     "image = pygame.transform.scale_by(image, 1.3)\n" + _BOTTOM),
    ("best", "on a veil", 0,
     "veil = pygame.Surface(({w}, {h}), pygame.SRCALPHA)\nveil.fill((0, 0, 0, 120))\n"
     "{s}.blit(veil, (0, 0))\n"
     'image = {f}.render(f"Best: {{{b}}}", True, (255, 255, 255))\n' + _BOTTOM),
    ("best", "beneath a veil", 0,
     'image = {f}.render(f"Best: {{{b}}}", True, (0, 0, 0))\n' + _BOTTOM
     + "\nveil = pygame.Surface(({w}, {h}))\nveil.fill((255, 255, 255))\nveil.set_alpha(90)\n"
     "{s}.blit(veil, (0, 0))"),
    ("best", "on a gray screen", 0,
     "{s}.blit(pygame.transform.grayscale({s}), (0, 0))\n"
     'image = {f}.render(f"Best: {{{b}}}", True, (0, 0, 0))\n' + _BOTTOM),
    ("best", "on a blurred screen", 0,
     "{s}.blit(pygame.transform.box_blur({s}, 4), (0, 0))\n"
     'image = {f}.render(f"Best: {{{b}}}", True, (0, 0, 0))\n' + _BOTTOM),
    ("best", "not shown", 8, "pass"),
    ("best", "always zero", 8, 'image = {f}.render("Best: 0", True, (0, 0, 0))\n' + _BOTTOM),
    ("best", "always 99", 8, 'image = {f}.render("Best: 99", True, (0, 0, 0))\n' + _BOTTOM),
    ("best", "the last score", 8,
     'image = {f}.render(f"Best: {{{score}}}", True, (0, 0, 0))\n' + _BOTTOM),
    ("best", "half outside", 8,
     'image = {f}.render(f"Best: {{{b}}}", True, (0, 0, 0))\n{s}.blit(image, ({w} - 30, 200))'),
    ("best", "outside", 8,
     'image = {f}.render(f"Best: {{{b}}}", True, (0, 0, 0))\n{s}.blit(image, (10, {h} + 10))'),
    ("best", "clear", 8,
     'image = {f}.render(f"Best: {{{b}}}", True, (0, 0, 0))\nimage.set_alpha(0)\n' + _BOTTOM),
    ("best", "beneath a curtain", 8,
     'image = {f}.render(f"Best: {{{b}}}", True, (0, 0, 0))\n' + _BOTTOM
     + "\n{s}.fill((235, 235, 235))"),
]  # fmt: skip
_PAIR = ("pygame.draw.rect({s}, {c}, ({x}, 0, {w}, {t}))\n"
         "pygame.draw.rect({s}, {c}, ({x}, {l}, {w}, {f} - {l}))\n")  # fmt: skip
PIPE_WAYS = [
    ("pipes", "with caps", 0,
     _PAIR + "pygame.draw.rect({s}, {c}, ({x} - 4, {t} - 20, {w} + 8, 20))\n"
     "pygame.draw.rect({s}, {c}, ({x} - 4, {l}, {w} + 8, 20))"),
    ("pipes", "with caps of black", 0,
     _PAIR + "pygame.draw.rect({s}, (0, 0, 0), ({x} - 4, {t} - 16, {w} + 8, 16))\n"
     "pygame.draw.rect({s}, (0, 0, 0), ({x} - 4, {l}, {w} + 8, 16))"),
    ("pipes", "with borders", 0,
     _PAIR + "pygame.draw.rect({s}, (0, 0, 0), ({x}, 0, {w}, {t}), 3)\n"
     "pygame.draw.rect({s}, (0, 0, 0), ({x}, {l}, {w}, {f} - {l}), 3)"),
    ("pipes", "with a light stripe", 0,
     _PAIR + "pygame.draw.rect({s}, (230, 230, 230), ({x} + 8, 0, 6, {t}))\n"
     "pygame.draw.rect({s}, (230, 230, 230), ({x} + 8, {l}, 6, {f} - {l}))"),
    ("pipes", "as one image with alpha", 0,
     "both = pygame.Surface(({w}, {f}), pygame.SRCALPHA)\n"
     "pygame.draw.rect(both, {c}, (0, 0, {w}, {t}))\n"
     "pygame.draw.rect(both, {c}, (0, {l}, {w}, {f} - {l}))\n{s}.blit(both, ({x}, 0))"),
    ("pipes", "flipped", 0,
     "low = pygame.Surface(({w}, {f} - {l}))\nlow.fill({c})\n{s}.blit(low, ({x}, {l}))\n"
     "high = pygame.transform.flip(pygame.transform.scale(low, ({w}, {t})), False, True)\n"
     "{s}.blit(high, ({x}, 0))"),
    ("pipes", "as polygons", 0,
     "pygame.draw.polygon({s}, {c}, [({x}, 0), ({x} + {w}, 0), ({x} + {w}, {t}), ({x}, {t})])\n"
     "pygame.draw.polygon({s}, {c}, [({x}, {l}), ({x} + {w}, {l}), ({x} + {w}, {f}), ({x}, {f})])"),
    ("pipes", "of lines", 0,
     "for at in range({w}):\n    pygame.draw.line({s}, {c}, ({x} + at, 0), ({x} + at, {t} - 1))\n"
     "    pygame.draw.line({s}, {c}, ({x} + at, {l}), ({x} + at, {f} - 1))"),
    ("pipes", "red", 7,
     _PAIR.replace("{c}", "(200, 30, 30)")),
    ("pipes", "always one green", 7, _PAIR.replace("{c}", "(0, 100, 0)")),
    ("pipes", "white by a layer that adds", 7,
     _PAIR + "light = pygame.Surface(({w}, {f}))\nlight.fill((200, 200, 200))\n"
     "{s}.blit(light, ({x}, 0), (0, 0, {w}, {t}), pygame.BLEND_RGB_ADD)\n"
     "{s}.blit(light, ({x}, {l}), (0, 0, {w}, {f} - {l}), pygame.BLEND_RGB_ADD)"),
    ("pipes", "not drawn", 7, "pass"),
]  # fmt: skip
_TABLES = (
    (SKY, SKIES), (LAND, LANDS), (BIRD, BIRDS), (SCORE, SCORES), (BEST, BESTS), (PIPES, PIPE_WAYS),
)  # fmt: skip

# Keys, clocks, files and luck: text that is replaced, game by game.
_EVENTS = """        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                leave()
            if event.type == pygame.KEYDOWN:
                if event.key in (pygame.K_q, pygame.K_ESCAPE):
                    leave()
                if event.key == pygame.K_SPACE:
                    if g["over"]:
                        g = new_game()
                    else:
                        g["v"] = -7
"""
_FLAP = """            if g["over"]:
                g = new_game()
            else:
                g["v"] = -7
"""
_KEYS = [
    ("keys", "two typed gets", 0,
     "        if pygame.event.get(pygame.QUIT):\n            leave()\n"
     "        for event in pygame.event.get(pygame.KEYDOWN):\n"
     "            if event.key in (pygame.K_q, pygame.K_ESCAPE):\n                leave()\n"
     "            if event.key != pygame.K_SPACE:\n                continue\n" + _FLAP),
    ("keys", "peek first", 0,
     "        if pygame.event.peek(pygame.QUIT):\n            leave()\n"
     "        if pygame.event.peek((pygame.KEYDOWN, pygame.KEYUP)):\n            pass\n" + _EVENTS),
    ("keys", "poll in a loop", 0,
     _EVENTS.replace("for event in pygame.event.get():",
                     "while (event := pygame.event.poll()).type != pygame.NOEVENT:")),
    ("keys", "pump and get_pressed", 0,
     "        pygame.event.pump()\n        keys = pygame.key.get_pressed()\n"
     "        if keys[pygame.K_q] or keys[pygame.K_ESCAPE]:\n            leave()\n"
     "        fresh = keys[pygame.K_SPACE] and not g.get('held')\n"
     "        g['held'] = keys[pygame.K_SPACE]\n        if fresh:\n" + _FLAP),
    ("keys", "get_just_pressed", 0,
     "        pygame.event.get()\n        keys = pygame.key.get_just_pressed()\n"
     "        if keys[pygame.K_q] or keys[pygame.K_ESCAPE]:\n            leave()\n"
     "        if keys[pygame.K_SPACE]:\n" + _FLAP),
    ("keys", "scancodes", 0,
     _EVENTS.replace("event.key in (pygame.K_q, pygame.K_ESCAPE)", "event.scancode in (20, 41)")
     .replace("event.key == pygame.K_SPACE", "event.scancode == pygame.KSCAN_SPACE")),
    ("keys", "unicode", 0,
     _EVENTS.replace("event.key in (pygame.K_q, pygame.K_ESCAPE)",
                     "event.unicode in ('q', '\\x1b')")
     .replace("event.key == pygame.K_SPACE", "event.unicode == ' '")),
    ("keys", "names", 0,
     _EVENTS.replace("event.key in (pygame.K_q, pygame.K_ESCAPE)",
                     "pygame.key.name(event.key) in ('q', 'escape')")),
    ("keys", "cleared after they were read", 0, _EVENTS + "        pygame.event.clear()\n"),
    ("keys", "on release", 0, _EVENTS.replace("pygame.KEYDOWN", "pygame.KEYUP")),
    ("keys", "Esc does nothing", 8,
     _EVENTS.replace("event.key in (pygame.K_q, pygame.K_ESCAPE)", "event.key == pygame.K_q")),
    ("keys", "q does nothing", 8,
     _EVENTS.replace("event.key in (pygame.K_q, pygame.K_ESCAPE)", "event.key == pygame.K_ESCAPE")),
    ("keys", "SPACE restarts nothing", 8,
     _EVENTS.replace("g = new_game()", "pass")),
    ("keys", "SPACE pushes down", 3, _EVENTS.replace('g["v"] = -7', 'g["v"] += 6')),
    ("keys", "SPACE does nothing", 3, _EVENTS.replace('g["v"] = -7', "pass")),
    ("keys", "only the arrow flaps", 3,
     _EVENTS.replace('g["v"] = -7', "pass").replace(
         "                if event.key == pygame.K_SPACE",
         "                if event.key == pygame.K_UP:\n                    g['v'] = -7\n"
         "                if event.key == pygame.K_SPACE")),
    ("keys", "q only in play", 8,
     _EVENTS.replace("if event.key in (pygame.K_q, pygame.K_ESCAPE):",
                     "if event.key in (pygame.K_q, pygame.K_ESCAPE) and not g['over']:")),
]  # fmt: skip
_LUCK = {"functions": "W, H = 400, 600\n", "class": "WIDTH, HEIGHT, GROUND = 400, 600, 60\n",
         "sprites": "W, H = 640, 480\n"}  # fmt: skip
_BEGINNINGS = [
    ("clock", "luck from get_ticks", 0, "random.seed(pygame.time.get_ticks())\n"),
    ("clock", "luck from the time in seconds", 0, "import time\nrandom.seed(int(time.time()))\n"),
    ("clock", "luck from nanoseconds", 0, "import time\nrandom.seed(time.time_ns())\n"),
    ("files", "a folder", 0, "import os\nos.makedirs('saves/scores', exist_ok=True)\n"),
    ("files", "a file in a folder", 0,
     "from pathlib import Path\nPath('saves').mkdir()\nPath('saves/best').write_text('0')\n"),
]  # fmt: skip
_LEAVE = {
    "functions": "    pygame.quit()\n    sys.exit()\n",
    "class": "        pygame.quit()\n",
    "sprites": "    pygame.quit()\n    sys.exit()\n",
}
_ENDS = [
    ("end", "by os._exit", 0, "import os\nos._exit(0)\n"),
    ("end", "by os._exit with a status", 0, "import os\npygame.quit()\nos._exit(1)\n"),
    ("end", "by raising SystemExit", 0, "raise SystemExit\n"),
    ("end", "by exit()", 0, "pygame.quit()\nexit()\n"),
]
_TICK = {
    "functions": "        clock.tick(60)\n",
    "class": "            self.clock.tick(60)\n",
}
_TICKS = [
    ("clock", "a sleep", 0, "import time\ntime.sleep(1 / 60)\n"),
    ("clock", "pygame's delay", 0, "pygame.time.delay(16)\n"),
    ("clock", "a loop until the time is over", 0,
     "import time\nuntil = time.perf_counter() + 1 / 60\nwhile time.perf_counter() < until:\n"
     "    time.sleep(0.001)\n"),
    ("clock", "none", 0, "pass\n"),
    ("clock", "two flips a picture", 0, "pygame.display.flip()\n{tick}\n"),
]  # fmt: skip


def list_variants() -> Iterator[Variant]:
    """Yield every change of every game."""
    for game, path in GAMES.items():
        source = path.read_text(encoding="utf-8")
        for places, changes in _TABLES:
            place = places[game]
            for kind, name, breaks, code in changes:
                code = _fill(game, place, kind, code)
                yield Variant(game, name, kind, breaks, _replace(source, place.old, code))
        for kind, name, breaks, code in _BEGINNINGS:
            if "random." in code:
                code = f"import random\n{code}"
            new = f"{_LUCK[game]}pygame.init()\n{code}"
            yield Variant(game, name, kind, breaks, source.replace(_LUCK[game], new))
        for anchors, changes in ((_LEAVE, _ENDS), (_TICK, _TICKS)):
            for kind, name, breaks, code in changes if game in anchors else ():
                yield Variant(game, name, kind, breaks, _swap(source, anchors[game], code))
        if game == "functions":
            for kind, name, breaks, code in _KEYS:
                yield Variant(game, name, kind, breaks, source.replace(_EVENTS, code))


def pick_variants() -> list[Variant]:
    """Return each change of one game, and then of a second if it can be made in so many."""
    every: dict[tuple[str, str], list[Variant]] = {}
    for variant in list_variants():
        every.setdefault((variant.kind, variant.name), []).append(variant)
    turned = [
        found[at % len(found) :] + found[: at % len(found)]
        for at, found in enumerate(every.values())
    ]
    return [found[n] for n in range(2) for found in turned if n < len(found)]


def mix_variants(seed: int) -> Variant:
    """Return a game that keeps all requirements and is changed in every way at once, by luck."""
    draw = random.Random(seed)
    game = draw.choice(list(GAMES))
    source = GAMES[game].read_text(encoding="utf-8")
    names = []
    for places, changes in _TABLES:
        kind, name, _, code = draw.choice([change for change in changes if not change[2]])
        source = _replace(source, places[game].old, _fill(game, places[game], kind, code))
        names.append(f"{kind} {name}")
    for anchors, changes in ((_TICK, _TICKS), (_LEAVE, _ENDS)):
        if game in anchors:
            _, name, _, code = draw.choice(changes)
            source = _swap(source, anchors[game], code)
            names.append(name)
    if game == "functions":
        _, name, _, code = draw.choice([change for change in _KEYS if not change[2]])
        source = source.replace(_EVENTS, code)
        names.append(f"keys {name}")
    return Variant(game, ", ".join(names), "mixed", 0, source)


def _fill(game: str, place: Place, kind: str, code: str) -> str:
    if game == "sprites" and kind == "pipes":  # the game asks where it put them
        code += (
            "\nupper = pygame.Rect({x}, 0, {w}, {t})\nlower = pygame.Rect({x}, {l}, {w}, {f} - {l})"
        )
    return code.format(**place.names)


def _swap(source: str, old: str, code: str) -> str:
    """Return a source with other lines in the place of these, as far to the right as they."""
    margin = " " * (len(old) - len(old.lstrip()))
    return source.replace(old, indent(code.format(tick=old.strip()), margin))


def _replace(source: str, old: str, code: str) -> str:
    """Return a source with other lines in the place of a statement, as far to the right as it."""
    old = old.strip()
    at = source.rindex(old)
    start = source.rindex("\n", 0, at) + 1
    margin = source[start:at]
    assert not margin.strip(), margin
    return source[:start] + indent(code, margin) + source[at + len(old) :]
