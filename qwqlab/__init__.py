"""qwqlab: a laboratory for how language models are run, after Unsloth's QwQ-32B article.

Its eleven rooms, in the order of the notebooks: sandbox, llamacpp, models, sampling, experiments,
grader, quant, tuning, plots, widgets and course. `dir(room)` lists what a room offers:

    from qwqlab.experiments import open_engine
    from qwqlab.sampling import preset

    open_engine().generate("Once upon a time", preset("official"), n_predict=16).text
"""

__version__ = "0.1.0"
