"""Names for colours, as the article's prompt uses them: light, dark, brown, green, gray."""

from __future__ import annotations

import colorsys

Color = tuple[int, int, int]


def measure_light(color: Color) -> float:
    """How light a colour looks, 0 (black) to 255 (white): luma of ITU-R BT.601."""
    r, g, b = color
    return 0.299 * r + 0.587 * g + 0.114 * b


def _hue(color: Color) -> tuple[float, float]:
    """Hue in degrees and saturation, 0 to 1."""
    h, s, _ = colorsys.rgb_to_hsv(*(c / 255 for c in color))
    return 360 * h, s


def is_light(color: Color) -> bool:
    return measure_light(color) >= 140


def is_dark(color: Color) -> bool:
    return measure_light(color) <= 128


def is_light_blue(color: Color) -> bool:
    """A light colour whose hue lies from cyan to blue.

    >>> is_light_blue((135, 206, 235)), is_light_blue((255, 182, 193))
    (True, False)
    """
    hue, saturation = _hue(color)
    return is_light(color) and 165 <= hue <= 255 and saturation > 0.04


def is_brown_or_yellow(color: Color) -> bool:
    """Brown is a dark orange; both lie between red and green.

    >>> is_brown_or_yellow((101, 67, 33)), is_brown_or_yellow((255, 215, 0))
    (True, True)
    """
    hue, saturation = _hue(color)
    return saturation >= 0.2 and 12 <= hue <= 70 and (hue >= 40 or measure_light(color) <= 150)


def is_pipe_color(color: Color) -> bool:
    """Dark green, light brown or dark gray.

    >>> [is_pipe_color(c) for c in ((0, 100, 0), (181, 101, 29), (64, 64, 64), (255, 0, 0))]
    [True, True, True, False]
    """
    hue, saturation = _hue(color)
    light = measure_light(color)
    green = 75 <= hue <= 170 and light <= 135 and saturation > 0.15
    brown = 12 <= hue <= 50 and 75 <= light <= 215 and saturation > 0.15
    gray = saturation <= 0.16 and 25 <= light <= 150
    return green or brown or gray
