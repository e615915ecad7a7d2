"""Moved to qwqlab/grader/grading.py."""

import sys

from .grader.grading import *  # noqa: F403

sys.modules[__name__] = sys.modules["qwqlab.grader.grading"]
