"""Moved to qwqlab/course/doctor.py."""
import sys
from .course.doctor import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.course.doctor"]
