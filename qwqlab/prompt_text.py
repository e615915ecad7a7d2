"""Moved to qwqlab/llamacpp/prompts.py."""
import sys
from .llamacpp.prompts import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.llamacpp.prompts"]
