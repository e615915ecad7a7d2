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
SMALLEST_CANVAS = 120  # pixels of the longer side; smaller surfaces are sprites
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
        # What was drawn on each surface large enough to be the window or a canvas behind it.
        self._drawn: WeakKeyDictionary[pygame.Surface, list[Mark]] = WeakKeyDictionary()
        self._last_flip = -1.0
        self._texts: WeakKeyDictionary[pygame.Surface, str] = WeakKeyDictionary()
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
                watch._note_image(self, source, dest)
                return done

            def blits(self, sequence: Any, doreturn: Any = True) -> Any:
                done = [self.blit(*each) for each in sequence]
                return done if doreturn else None

            def fblits(self, sequence: Any, *_: Any) -> None:
                for source, dest in sequence:
                    self.blit(source, dest)

        def open_window(*args: Any, **named: Any) -> pygame.Surface:
            watch.screen = Canvas(set_mode(*args, **named).get_size())
            watch._drawn[watch.screen] = []
            return watch.screen

        def carry(change: Any) -> Any:
            def changed(surface: Any, *args: Any, **named: Any) -> Any:
                made = change(surface, *args, **named)
                if marks := watch._drawn.get(surface):
                    x, y = (a / b for a, b in zip(made.get_size(), surface.get_size(), strict=True))
                    watch._drawn[made] = [_place(mark, 0, 0, x, y) for mark in marks]
                return made

            return changed

        for name in ("scale", "smoothscale", "scale_by", "smoothscale_by"):
            setattr(pygame.transform, name, carry(getattr(pygame.transform, name)))
        pygame.Surface = Canvas  # type: ignore[misc]
        pygame.display.set_mode = open_window
        pygame.display.get_surface = lambda: watch.screen
        pygame.display.flip = pygame.display.update = watch._show

    def _patch_drawing(self) -> None:
        draw, gfx = pygame.draw, pygame.gfxdraw
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
        mark = Mark(
            kind, (shade.r, shade.g, shade.b), area.x, area.y, area.w, area.h, detail, solid
        )
        self._add(surface, [mark])

    def _add(self, surface: pygame.Surface, marks: list[Mark]) -> None:
        width, height = surface.get_size()
        if max(width, height) < SMALLEST_CANVAS:
            return
        drawn = self._drawn.setdefault(surface, [])
        if surface is not self.screen and marks[0].solid:
            if marks[0].area >= 0.95 * width * height and marks[0].kind != "text":
                drawn.clear()  # all that was there before is hidden
        drawn.extend(marks)
        del drawn[:-MOST_MARKS]

    def _note_image(self, surface: pygame.Surface, source: pygame.Surface, dest: Any) -> None:
        corner = dest.topleft if isinstance(dest, pygame.Rect) else tuple(dest)[:2]
        area = pygame.Rect((int(corner[0]), int(corner[1])), source.get_size())
        text = self._texts.get(source)
        if text is not None:
            self._note(surface, "text", "white", area, text)
            return
        marks = self._drawn.get(source)
        look = _look_at(source)
        # A narrow one with two pipes and the gap between them is what was drawn on it.
        if look is not None and not (marks and min(source.get_size()) < SMALLEST_CANVAS):
            filled, lopsided, color, box = look
            size = surface.get_size()
            solid = filled > 95 or area.w * area.h < 0.2 * size[0] * size[1]
            box = box.move(area.topleft)
            self._note(surface, "image", color, box, f"{filled} {lopsided}", solid)
        if marks:
            self._add(surface, [_place(mark, area.x, area.y) for mark in marks])

    def _patch_text(self) -> None:
        watch, texts = self, self._texts

        class Font(pygame.font.Font):
            """A font that remembers what it wrote."""

            def render(self, text: Any, *args: Any, **named: Any) -> pygame.Surface:
                surface = super().render(text, *args, **named)
                texts[surface] = str(text)
                return surface

        class FreeFont(pygame.freetype.Font):
            """The same of pygame.freetype."""

            def render(self, text: Any, *args: Any, **named: Any) -> Any:
                surface, rect = super().render(text, *args, **named)
                texts[surface] = str(text)
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


def _place(mark: Mark, x: float, y: float, by_x: float = 1, by_y: float = 1) -> Mark:
    """Return a mark in its place on the surface that its own surface was put on."""
    return replace(mark, x=mark.x * by_x + x, y=mark.y * by_y + y, w=mark.w * by_x, h=mark.h * by_y)


def _look_at(
    surface: pygame.Surface,
) -> tuple[int, int, tuple[int, int, int], pygame.Rect] | None:
    """Return what a surface shows; None if it is empty or wholly transparent.

    That is how much of its visible box is filled, and how far the weight is from the box's middle,
    both in per cent; its mean colour; the box.
    """
    box = surface.get_bounding_rect()
    if not box.w or not box.h or surface.get_alpha() == 0:
        return None
    filled, lopsided = 100, 0
    see_through = bool(surface.get_flags() & pygame.SRCALPHA) or surface.get_colorkey() is not None
    if see_through:
        mask = pygame.mask.from_surface(surface)
        filled = round(100 * mask.count() / (box.w * box.h))
        x, y = mask.centroid()
        lopsided = round(100 * max(abs(x - box.centerx) / box.w, abs(y - box.centery) / box.h))
    if (surface.get_alpha() or 255) < 250:
        filled = min(filled, 50)
    whole: pygame.Surface = surface
    if surface.get_colorkey() is not None:
        # What the key hides counts as transparent. `pygame.Surface` notes what is drawn on it.
        whole = pygame.surface.Surface(surface.get_size(), pygame.SRCALPHA)
        whole.blit(surface, (0, 0))
    r, g, b, *_ = pygame.transform.average_color(whole, box, see_through)
    return filled, lopsided, (r, g, b), box
