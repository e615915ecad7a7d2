"""Moved to qwqlab/llamacpp/interrupts.py."""
import sys
from .llamacpp.interrupts import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.llamacpp.interrupts"]
