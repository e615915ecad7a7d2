"""Colours as eyes see them: contrast, colour blindness, and how far apart two colours lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Color = npt.NDArray[np.float64]
"""Linear red, green and blue, 0 to 1."""

# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision
# Deficiency" (2009), at full severity, on linear light; grey is the luminance of sRGB.
SIGHTS: dict[str, Any] = {
    "full": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
    "grey": [[0.2126, 0.7152, 0.0722]] * 3,
}  # fmt: skip
# sRGB to CIE XYZ under D65, and D65's white.
TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                   [0.0193339, 0.1191920, 0.9503041]])  # fmt: skip
WHITE = TO_XYZ.sum(axis=1)


def read_color(text: str) -> Color:
    """A colour written as #RRGGBB, or as "white"."""
    text = {"white": "#FFFFFF"}.get(text, text)
    assert len(text) == 7 and text[0] == "#", text
    coded = np.array([int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """WCAG's ratio of contrast, from 1 to 21."""
    low, high = sorted(float(read_color(text) @ SIGHTS["grey"][0]) for text in (one, other))
    return (high + 0.05) / (low + 0.05)


def distance(one: str, other: str, sight: str = "full") -> float:
    """How far apart two colours are seen, in CIELAB units: about 2 can just be told apart."""
    seen = [to_lab(np.clip(np.array(SIGHTS[sight]) @ read_color(c), 0, 1)) for c in (one, other)]
    return float(np.linalg.norm(seen[0] - seen[1]))


def to_lab(color: Color) -> npt.NDArray[np.float64]:
    """CIE L*, a*, b* of 1976."""
    ratio = TO_XYZ @ color / WHITE
    x, y, z = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])
