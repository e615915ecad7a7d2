"""What a game writes, followed from surface to surface until it is on the screen.

Runs inside the sandbox. Pixels tell what a picture shows, but for its words: those are noted where
a font writes them, and go along where a surface is put on another, copied, converted or scaled.
A text is there as long as its pixels are: it is gone where something was painted over it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pygame
import pygame.freetype
import pygame.sysfont
from numpy.typing import NDArray

from .scene import Text

MOST_TEXTS = 60  # on one surface
_MOST_KNOWN = 2000
_SEEN = 16  # of 255: a text that changes no pixel by so much cannot be read
_Surface = pygame.Surface  # as it is before it is replaced


@dataclass
class _Written:
    """A text on a surface: its box there, and that box's pixels before and after it was put."""

    words: str
    box: pygame.Rect
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]

    def is_seen(self, now: NDArray[np.uint8]) -> bool:
        """Return whether the text can be made out in the pixels that are there now.

        They are taken for a mixture of what was there before and of what the text changed, under
        a veil perhaps, which makes both weaker alike.
        """
        if now.shape == self.after.shape and np.array_equal(now, self.after):
            return True
        three = (each.astype(float) for each in (self.before, self.after, now))
        old, new, seen = ((each - each.mean(axis=(0, 1))).ravel() for each in three)
        parts = np.stack([old, new - old])
        before, text = np.linalg.lstsq(parts @ parts.T, parts @ seen, rcond=1e-9)[0]
        return bool(text > 0.1 and text > 0.4 * before)


class Lettering:
    """Replaces pygame's surfaces and fonts by such as remember what was written on them."""

    def __init__(self) -> None:
        self._on: WeakKeyDictionary[pygame.Surface, list[_Written]] = WeakKeyDictionary()
        self._by_pixels: dict[tuple[int, bytes], str] = {}  # the words of what fonts made
        self.canvas = self._make_canvas()
        self._patch_makers()
        self._patch_fonts()

    def read(self, surface: pygame.Surface) -> list[_Written]:
        """Return what can be read on a surface, with the places there, and forget the rest."""
        owner, (left, top) = surface.get_abs_parent(), surface.get_abs_offset()
        if not (written := self._on.get(owner)):
            return []
        written[:] = [w for w in written if w.is_seen(_grab(owner, w.box))]
        if owner is surface:
            return list(written)
        placed = [_Written(w.words, w.box.move(-left, -top), w.before, w.after) for w in written]
        return [w for w in placed if surface.get_rect().contains(w.box)]

    def erase(self, screen: pygame.Surface, pixels: NDArray[np.uint32]) -> tuple[Text, ...]:
        """Return the texts on the screen, and take them out of these pixels of it."""
        written = self.read(screen)
        for w in reversed(written):
            if np.array_equal(_grab(screen, w.box), w.after):
                r, g, b = (w.before[..., channel].astype(np.uint32) for channel in range(3))
                part = w.box.clip(screen.get_rect())
                rows, columns = slice(part.top, part.bottom), slice(part.left, part.right)
                pixels[rows, columns] = r << 16 | g << 8 | b
        return tuple(Text(w.box.x, w.box.y, w.box.w, w.box.h, w.words) for w in written)

    def put(
        self,
        surface: pygame.Surface,
        texts: list[tuple[str, pygame.Rect]],
        draw: Callable[[], Any],
    ) -> Any:
        """Draw, and note the texts that came to be on a surface by it."""
        owner, (left, top) = surface.get_abs_parent(), surface.get_abs_offset()
        whole = owner.get_rect()
        placed = [(words, box.move(left, top)) for words, box in texts]
        placed = [(words, box) for words, box in placed if box.colliderect(whole)]
        before = [_grab(owner, box) for _, box in placed]
        done = draw()
        for (words, box), old in zip(placed, before, strict=True):
            self._note(owner, _Written(words, box, old, _grab(owner, box)))
        return done

    def _note(self, owner: pygame.Surface, new: _Written) -> None:
        change = np.abs(new.after.astype(np.int16) - new.before)
        if not change.size or change.max() < _SEEN or (new.after == new.after[0, 0]).all():
            return  # it is there already, or in the colour of what is behind it
        here = self._on.setdefault(owner, [])
        here[:] = [w for w in here if not _take_one_place(w.box, new.box)][1 - MOST_TEXTS :]
        here.append(new)

    def _carry(self, made: Any, surface: pygame.Surface) -> Any:
        """Return a surface that was made of another, with its texts where they are now."""
        if written := self.read(surface):
            x, y = (new / old for new, old in zip(made.get_size(), surface.get_size(), strict=True))
            texts = [
                (w.words, pygame.Rect(w.box.x * x, w.box.y * y, w.box.w * x, w.box.h * y))
                for w in written
            ]
            for words, box in texts:
                after = _grab(made, box)
                self._note(made, _Written(words, box, np.zeros_like(after), after))
        return made

    def _make_canvas(self) -> type[pygame.Surface]:
        lettering = self

        class Canvas(pygame.Surface):
            """A surface whose texts are followed."""

            def blit(
                self,
                source: Any,
                dest: Any = (0, 0),
                area: Any = None,
                special_flags: int = 0,
            ) -> Any:
                def draw() -> Any:
                    return _Surface.blit(self, source, dest, area, special_flags)

                if not (written := lettering.read(source)):
                    return draw()
                x, y = _corner(dest)
                part = source.get_rect()
                if area is not None:
                    part = pygame.Rect(area).clip(part)
                texts = [
                    (w.words, w.box.move(x - part.x, y - part.y))
                    for w in written
                    if part.contains(w.box)
                ]
                return lettering.put(self, texts, draw)

            def blits(self, blit_sequence: Any, doreturn: Any = True) -> Any:
                done = [self.blit(*each) for each in blit_sequence]
                return done if doreturn else None

            def fblits(self, blit_sequence: Any, special_flags: int = 0) -> None:
                for source, dest in blit_sequence:
                    self.blit(source, dest, None, special_flags)

            def copy(self) -> Any:
                return lettering._carry(_Surface.copy(self), self)

            __copy__ = copy

            def convert(self, *args: Any) -> Any:
                return lettering._carry(_Surface.convert(self, *args), self)

            def premul_alpha(self) -> Any:
                return lettering._carry(_Surface.premul_alpha(self), self)

            def convert_alpha(self, *args: Any) -> Any:
                return lettering._carry(_Surface.convert_alpha(self, *args), self)

        pygame.Surface = pygame.surface.Surface = Canvas  # type: ignore[misc]
        return Canvas

    def _adopt(self, surface: pygame.Surface) -> pygame.Surface:
        """Return a surface that pygame made as one of those followed, with the same pixels."""
        if isinstance(surface, self.canvas):
            return surface
        alpha, key = surface.get_alpha(), surface.get_colorkey()
        clear = bool(surface.get_flags() & pygame.SRCALPHA) or key is not None
        made = self.canvas(surface.get_size(), pygame.SRCALPHA if clear else 0, 32)
        surface.set_alpha(None if not surface.get_flags() & pygame.SRCALPHA else 255)
        _Surface.blit(made, surface, (0, 0))
        if alpha is not None:
            surface.set_alpha(alpha)
            made.set_alpha(alpha)
        return made

    def _patch_makers(self) -> None:
        """Have the functions that make a surface of a surface, or of data, make a followed one."""
        for module, names in (
            (pygame.image, "load load_basic load_extended frombuffer frombytes fromstring"),
            (pygame.surfarray, "make_surface"),
            (pygame.transform, " ".join(n for n in dir(pygame.transform) if n[0] != "_")),
        ):
            for name in names.split():
                if hasattr(module, name):
                    setattr(module, name, self._follow(getattr(module, name), name == "flip"))

    def _follow(self, make: Any, mirrors: bool) -> Any:
        def made(*args: Any, **named: Any) -> Any:
            result = make(*args, **named)
            if not isinstance(result, _Surface):
                return result
            result = self._adopt(result)
            sources = [each for each in (*args, *named.values()) if isinstance(each, _Surface)]
            if not sources and (words := self._by_pixels.get(_name_pixels(result))):
                self._write(result, words)  # a text that was a file, or bytes, for a while
            return result if mirrors or not sources else self._carry(result, sources[0])

        return made

    def _write(self, surface: pygame.Surface, words: str) -> pygame.Surface:
        """Note that all of a surface is a text, and return it as one of those followed."""
        made = self._adopt(surface)
        after = _grab(made, made.get_rect())
        self._note(made, _Written(words, made.get_rect(), np.zeros_like(after), after))
        return made

    def _patch_fonts(self) -> None:
        lettering = self

        def write(surface: pygame.Surface, text: Any) -> pygame.Surface:
            words = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
            made = lettering._write(surface, words)
            if len(lettering._by_pixels) < _MOST_KNOWN:
                lettering._by_pixels[_name_pixels(made)] = words
            return made

        class Font(pygame.font.Font):
            """A font that notes what it writes."""

            def render(self, text: Any, *args: Any, **named: Any) -> pygame.Surface:
                return write(super().render(text, *args, **named), text)

        class FreeFont(pygame.freetype.Font):
            """The same of pygame.freetype."""

            def render(self, text: Any, *args: Any, **named: Any) -> Any:
                surface, rect = super().render(text, *args, **named)
                return write(surface, text), rect

            def render_to(self, surf: Any, dest: Any, text: Any, *args: Any, **named: Any) -> Any:
                image, rect = self.render(text, *args, **named)
                placed = surf.blit(image, dest)
                return pygame.Rect(placed.topleft, rect.size)

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


def _corner(dest: Any) -> tuple[int, int]:
    """Return the corner that a blit takes as its place: of a rectangle, or of two numbers."""
    x, y, *_ = dest
    return int(x), int(y)


def _grab(surface: pygame.Surface, box: pygame.Rect) -> NDArray[np.uint8]:
    """Return the pixels of a box that are on a surface: (height, width, 4), with alpha."""
    part = box.clip(surface.get_rect())
    if not part.w or not part.h:
        return np.zeros((0, 0, 4), np.uint8)
    data = pygame.image.tobytes(_Surface.subsurface(surface, part), "RGBA")
    return np.frombuffer(data, np.uint8).reshape(part.h, part.w, 4)


def _name_pixels(surface: pygame.Surface) -> tuple[int, bytes]:
    """Return what tells a surface from others: its width, and a digest of what can be seen."""
    pixels = _grab(surface, surface.get_rect()).copy()
    pixels[pixels[..., 3] == 0] = 0
    return surface.get_width(), hashlib.blake2b(pixels.tobytes(), digest_size=8).digest()


def _take_one_place(one: pygame.Rect, other: pygame.Rect) -> bool:
    """Return whether two texts cannot both be read, being in one place."""
    common = one.clip(other)
    return common.w * common.h >= 0.5 * max(one.w * one.h, other.w * other.h)
