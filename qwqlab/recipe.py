"""Moved to qwqlab/tuning/recipe.py."""
import sys
from .tuning.recipe import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.tuning.recipe"]
