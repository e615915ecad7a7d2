"""Moved to qwqlab/grader/flappy.py."""

import sys

from .grader.flappy import *  # noqa: F403

sys.modules[__name__] = sys.modules["qwqlab.grader.flappy"]
