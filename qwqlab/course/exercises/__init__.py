"""The exercises of the notebooks, a module for each, named like it.

At the top they import only what loads in an instant and without llama.cpp, so that the form of the
notebooks can be checked before anything is built; the rest is imported where it is used.
"""
