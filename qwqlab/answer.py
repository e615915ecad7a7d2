"""Moved to qwqlab/grader/answer.py."""

import sys

from .grader.answer import *  # noqa: F403

sys.modules[__name__] = sys.modules["qwqlab.grader.answer"]
