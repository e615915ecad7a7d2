"""Moved to qwqlab/tuning/lora_engines.py."""
import sys
from .tuning.lora_engines import *  # noqa: F403
sys.modules[__name__] = sys.modules["qwqlab.tuning.lora_engines"]
