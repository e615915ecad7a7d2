"""Moved to qwqlab/sandbox/isolation.py."""

import sys

from .sandbox.isolation import *  # noqa: F403

sys.modules[__name__] = sys.modules["qwqlab.sandbox.isolation"]
