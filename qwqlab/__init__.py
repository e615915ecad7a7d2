"""qwqlab: a laboratory for how language models are run, after Unsloth's QwQ-32B article."""

__version__ = "0.1.0"
