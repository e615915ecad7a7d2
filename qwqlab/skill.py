"""Moved to qwqlab/tuning/skill.py."""
import sys
from .tuning.skill import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.tuning.skill"]
