"""Moved to qwqlab/course/exercise.py."""
import sys
from .course.exercise import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.course.exercise"]
