"""pygame as a game in the sandbox meets it: what it draws is noted as marks.

Runs inside the sandbox, next to the game. Nothing here waits: clocks, sleeps and timers read one
virtual time, so a minute of play takes a second and is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import pygame
import pygame.freetype
import pygame.gfxdraw
import pygame.sysfont

from .pygame_time import FRAME, Keyboard, VirtualTime
from .scene import Mark

MOST_MARKS = 3000
SOLID = 250  # of 255: what is less opaque lets something through
# What pygame.draw has: the kind of mark, and its arguments behind the surface in their order.
_DRAWING = {
    "rect": ("rect", "color rect width"),
    "circle": ("circle", "color center radius width"),
    "aacircle": ("circle", "color center radius width"),
    "ellipse": ("circle", "color rect width"),
    "polygon": ("polygon", "color points width"),
    **dict.fromkeys(("line", "lines", "aaline", "aalines"), ("line", "color")),
}


class PatchedPygame:
    """Patches pygame and time. on_tick is called for each picture that the game shows, and for
    each turn of a loop that only waits for events."""

    def __init__(self, on_tick: Callable[[], None]) -> None:
        self.time = VirtualTime()
        self.time.replace_clocks()
        self.screen: pygame.Surface | None = None
        self._on_tick = on_tick
        self.picture: list[Mark] = []  # what is on the screen, in the order of drawing
        # What is on each surface, in that order too. A blit, a copy and a turn take it along. A
        # mark that is drawn again is no second one: sprites are painted over and over.
        self._drawn: WeakKeyDictionary[pygame.Surface, dict[Mark, None]] = WeakKeyDictionary()
        self._last_flip = -1.0
        self._patch_screen()
        self._patch_drawing()
        self._patch_text()
        self.keyboard = Keyboard(self.time, self._on_tick)

    @property
    def size(self) -> tuple[int, int]:
        return self.screen.get_size() if self.screen else (0, 0)

    def _show(self, *_: Any, **__: Any) -> None:
        width, height = self.size
        fresh = list(self._drawn.get(self.screen, ())) if self.screen else []
        if self.screen:
            self._drawn[self.screen].clear()
        whole = any(m.solid and m.kind != "text" and m.area >= 0.5 * width * height for m in fresh)
        self.picture = (fresh if whole else self.picture + fresh)[-MOST_MARKS:]
        self.keyboard.begin_picture()
        if self.time.now == self._last_flip:  # no clock limits the game's speed
            self.time.pass_(FRAME)
        self._last_flip = self.time.now
        self._on_tick()

    def _patch_screen(self) -> None:
        watch, set_mode = self, pygame.display.set_mode

        class Canvas(pygame.Surface):
            """A surface that notes what is drawn on it."""

            def fill(self, color: Any, rect: Any = None, *more: Any, **named: Any) -> Any:
                done = super().fill(color, rect, *more, **named)
                area = pygame.Rect(rect) if rect is not None else self.get_rect()
                watch._note(self, "rect", color, area)
                return done

            def blit(self, source: Any, dest: Any = (0, 0), *more: Any, **named: Any) -> Any:
                done = super().blit(source, dest, *more, **named)
                watch._put(self, source, dest)
                return done

            def blits(self, blit_sequence: Any, doreturn: Any = True) -> Any:
                return [self.blit(*each) for each in blit_sequence]

            fblits = blits

        def open_window(*args: Any, **named: Any) -> pygame.Surface:
            watch.screen = Canvas(set_mode(*args, **named).get_size())
            watch._drawn[watch.screen] = {}
            return watch.screen

        for name in ("copy", "convert", "convert_alpha"):
            setattr(Canvas, name, self._carry(getattr(pygame.Surface, name)))
        for name in "scale smoothscale scale_by smoothscale_by rotate rotozoom flip".split():
            setattr(pygame.transform, name, self._carry(getattr(pygame.transform, name)))
        pygame.Surface = Canvas  # type: ignore[misc]
        pygame.display.set_mode = open_window
        pygame.display.get_surface = lambda: watch.screen
        pygame.display.flip = pygame.display.update = watch._show

    def _carry(self, change: Any) -> Any:
        """Return a function that makes another surface of one, with the marks in their places."""

        def changed(surface: Any, *args: Any, **named: Any) -> Any:
            made = change(surface, *args, **named)
            if marks := self._drawn.get(surface):
                sizes = zip(made.get_size(), surface.get_size(), strict=True)
                x, y = (new / old for new, old in sizes)
                moved = (replace(m, x=m.x * x, y=m.y * y, w=m.w * x, h=m.h * y) for m in marks)
                self._drawn[made] = dict.fromkeys(moved)
            return made

        return changed

    def _patch_drawing(self) -> None:
        draw: Any = pygame.draw
        gfx: Any = pygame.gfxdraw
        for name, (kind, parameters) in _DRAWING.items():
            setattr(draw, name, self._wrap(getattr(draw, name), kind, parameters.split()))
        # gfxdraw's filled shapes by way of those.
        gfx.box = lambda s, rect, color: draw.rect(s, color, rect)
        gfx.filled_circle = lambda s, x, y, r, color: draw.circle(s, color, (x, y), r)
        gfx.filled_ellipse = lambda s, x, y, rx, ry, color: draw.ellipse(
            s, color, (x - rx, y - ry, 2 * rx, 2 * ry)
        )
        gfx.filled_polygon = lambda s, points, color: draw.polygon(s, color, points)
        gfx.filled_trigon = lambda s, x1, y1, x2, y2, x3, y3, color: draw.polygon(
            s, color, [(x1, y1), (x2, y2), (x3, y3)]
        )

    def _wrap(self, draw: Any, kind: str, parameters: Sequence[str]) -> Any:
        def drawn(surface: Any, *args: Any, **named: Any) -> Any:
            box = draw(surface, *args, **named)
            given = dict(zip(parameters, args, strict=False)) | named
            detail = str(len(given["points"])) if kind == "polygon" else ""
            solid = not 0 < given.get("width", 0) < 6 or kind == "line"
            self._note(surface, kind, given["color"], box, detail, solid)
            return box

        return drawn

    def _note(
        self,
        surface: pygame.Surface,
        kind: str,
        color: Any,
        area: pygame.Rect,
        detail: str = "",
        solid: bool = True,
    ) -> None:
        try:
            shade = pygame.Color(color)
        except (TypeError, ValueError):
            return
        alpha = shade.a if surface.get_flags() & pygame.SRCALPHA else 255
        color, solid = (shade.r, shade.g, shade.b), solid and alpha >= SOLID
        mark = Mark(kind, color, area.x, area.y, area.w, area.h, detail, solid)
        if surface is not self.screen and (mark.solid or not alpha) and kind != "text":
            width, height = surface.get_size()
            if mark.area >= 0.95 * width * height:
                self._drawn.pop(surface, None)  # all that was there before is hidden
        if alpha:
            self._add(surface, [mark])

    def _add(self, surface: pygame.Surface, marks: list[Mark]) -> None:
        drawn = self._drawn.setdefault(surface, {})
        for mark in marks:
            drawn.pop(mark, None)
            drawn[mark] = None
        for mark in list(drawn)[:-MOST_MARKS] if len(drawn) > MOST_MARKS else ():
            del drawn[mark]

    def _put(self, surface: pygame.Surface, source: pygame.Surface, dest: Any) -> None:
        """Note what is on one surface where it was put on another."""
        x, y = dest.topleft if isinstance(dest, pygame.Rect) else tuple(dest)[:2]
        key, alpha = source.get_colorkey(), source.get_alpha()
        marks = [m for m in self._drawn.get(source, ()) if not key or m.color != key[:3]]
        whole, small = source.get_rect(), 0.2 * surface.get_width() * surface.get_height()
        opaque = not key and not source.get_flags() & pygame.SRCALPHA
        covered = any(m.kind != "line" and m.area >= 0.5 * whole.w * whole.h for m in marks)
        box = source.get_bounding_rect()
        if box and (all(m.kind == "line" for m in marks) or (opaque and not covered)):
            # Lines, or pixels that were set one by one: from afar, a box of one colour.
            r, g, b, *_ = pygame.transform.average_color(source, box)
            marks.insert(0, Mark("rect", (r, g, b), *box))
        if alpha != 0:
            veil = alpha is not None and alpha < SOLID
            placed = [
                replace(m, x=m.x + x, y=m.y + y, solid=m.solid and not (veil and m.area > small))
                for m in marks
            ]
            self._add(surface, placed)

    def _patch_text(self) -> None:
        watch = self

        class Font(pygame.font.Font):
            """A font that remembers what it wrote."""

            def render(self, text: Any, *args: Any, **named: Any) -> pygame.Surface:
                surface = super().render(text, *args, **named)
                watch._note(surface, "text", "white", surface.get_rect(), str(text))
                return surface

        class FreeFont(pygame.freetype.Font):
            """The same of pygame.freetype."""

            def render(self, text: Any, *args: Any, **named: Any) -> Any:
                surface, rect = super().render(text, *args, **named)
                watch._note(surface, "text", "white", surface.get_rect(), str(text))
                return surface, rect

            def render_to(self, surf: Any, dest: Any, text: Any, *args: Any, **named: Any) -> Any:
                rect = super().render_to(surf, dest, text, *args, **named)
                watch._note(surf, "text", "white", rect, str(text))
                return rect

        def make_font(
            name: Any = None, size: int = 20, bold: bool = False, italic: bool = False, *_: Any
        ) -> Font:
            font = Font(None, int(size))
            font.set_bold(bold)
            font.set_italic(italic)
            return font

        pygame.font.Font = Font  # type: ignore[misc]
        pygame.freetype.Font = FreeFont  # type: ignore[misc]
        # Looking for the system's fonts starts a program, and they differ from machine to machine.
        pygame.font.SysFont = pygame.sysfont.SysFont = make_font  # type: ignore[assignment]
        pygame.freetype.SysFont = lambda name=None, size=20, *_, **__: FreeFont(None, size)
        pygame.font.match_font = lambda *_, **__: None
        pygame.font.get_fonts = list
