"""Moved to qwqlab/sandbox/process.py."""

import sys

from .sandbox.process import *  # noqa: F403

sys.modules[__name__] = sys.modules["qwqlab.sandbox.process"]
