"""Moved to qwqlab/course/exercises/__init__.py."""
import sys
from .course.exercises import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.course.exercises"]
