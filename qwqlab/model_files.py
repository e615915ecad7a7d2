"""Moved to qwqlab/sampling/model_files.py."""
import sys
from .sampling.model_files import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.sampling.model_files"]
