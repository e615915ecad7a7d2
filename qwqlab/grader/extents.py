"""What a call of pygame covers on a surface, and what a small surface shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pygame

from .scene import Mark


def bound(name: str, module: Any, args: Any, named: Any, box: Any) -> pygame.Rect:
    """The whole of what was drawn; pygame's own answer is cut at the window's edge."""
    try:
        if name == "rect" or name == "ellipse":
            return pygame.Rect(named.get("rect", args[1] if len(args) > 1 else None))
        if name == "box":
            return pygame.Rect(args[0])
        if name in ("circle", "aacircle") and module is pygame.draw:
            (x, y) = named.get("center", args[1] if len(args) > 1 else None)
            r = named.get("radius", args[2] if len(args) > 2 else 0)
            return pygame.Rect(x - r, y - r, 2 * r, 2 * r)
        if name == "polygon":
            return _bound_points(named.get("points", args[1] if len(args) > 1 else ()))
        if name == "filled_circle":
            x, y, r = args[:3]
            return pygame.Rect(x - r, y - r, 2 * r, 2 * r)
        if name == "filled_ellipse":
            x, y, rx, ry = args[:4]
            return pygame.Rect(x - rx, y - ry, 2 * rx, 2 * ry)
        if name == "filled_trigon":
            return _bound_points([args[0:2], args[2:4], args[4:6]])
        if name == "filled_polygon":
            return _bound_points(args[0])
    except (TypeError, ValueError):
        pass
    return pygame.Rect(box or (0, 0, 0, 0))


def find_outline(name: str, args: Sequence[Any]) -> float:
    """The width of an outline; 0 where the shape is filled."""
    place = {"rect": 2, "ellipse": 2, "polygon": 2, "circle": 3}.get(name)
    if place is None or len(args) <= place or not isinstance(args[place], (int, float)):
        return 0
    return float(args[place])


def place(mark: Mark, x: float, y: float, by_x: float = 1, by_y: float = 1) -> Mark:
    """A mark where it stands on the surface that its own surface was put on."""
    return replace(mark, x=mark.x * by_x + x, y=mark.y * by_y + y, w=mark.w * by_x, h=mark.h * by_y)


def look_at(
    surface: pygame.Surface,
) -> tuple[int, int, tuple[int, int, int], pygame.Rect] | None:
    """What a surface shows; None where it is empty or wholly transparent.

    How much of its visible box is filled, and how far the weight lies from the box's middle, both
    in per cent; its mean colour; the box.
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


def _bound_points(points: Any) -> pygame.Rect:
    xs, ys = zip(*((p[0], p[1]) for p in points), strict=True)
    left, top = min(xs), min(ys)
    return pygame.Rect(left, top, max(xs) - left, max(ys) - top)
