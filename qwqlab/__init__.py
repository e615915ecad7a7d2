"""qwqlab: a laboratory for how language models are run, after Unsloth's QwQ-32B article.

Its eleven rooms, each built on those before it: sandbox, llamacpp, models, sampling, experiments,
grader, quant, tuning, plots, widgets and course. `dir(room)` lists what a room offers:

    from qwqlab.sampling import Engine, preset

    with Engine("smollm2-135m") as engine:
        print(engine.generate("Once upon a time", preset("official"), n_predict=16).text)
"""

__version__ = "0.1.0"
