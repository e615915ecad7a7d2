"""The engine against llama-completion, the oracle: the same flags and seed, the same tokens."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qwqlab.errors import BusyError, ClosedError, ContextError, ModelFileError, SettingError
from qwqlab.experiments import LOADING
from qwqlab.llamacpp import Loading
from qwqlab.models import requantize
from qwqlab.sampling import (
    ARTICLE_ORDER,
    ARTICLE_ORDER_WITH_PENALTIES,
    PRESETS,
    Engine,
    Probe,
    Request,
    Run,
    Sampling,
    command_of,
)

REVERSED = tuple(reversed(Sampling().samplers))
GRID: dict[str, Sampling] = {
    **PRESETS,
    "greedy": Sampling(temp=0),
    "greedy with a penalty": Sampling(temp=0, repeat_penalty=1.3),
    "no stage at all": Sampling(samplers=()),
    "temperature alone": Sampling(samplers=("temperature",), temp=0.5),
    "hot": Sampling(temp=1.8),
    "repeat 1.5": Sampling(repeat_penalty=1.5),
    "repeat below 1": Sampling(repeat_penalty=0.9),
    "repeat over a long window": Sampling(repeat_penalty=1.2, repeat_last_n=500),
    "repeat over a short window": Sampling(repeat_penalty=1.4, repeat_last_n=3),
    "frequency": Sampling(frequency_penalty=0.7),
    "presence": Sampling(presence_penalty=0.9),
    "all penalties": Sampling(repeat_penalty=1.1, frequency_penalty=0.2, presence_penalty=-0.3),
    "article order, penalties 1.5": Sampling(
        samplers=ARTICLE_ORDER_WITH_PENALTIES, repeat_penalty=1.5, dry_multiplier=0.5
    ),
    "penalties last": Sampling(samplers=("top_k", "temperature", "penalties"), repeat_penalty=1.3),
    "reversed order": Sampling(samplers=REVERSED, repeat_penalty=1.1, dry_multiplier=0.6),
    "ignore_eos": Sampling(ignore_eos=True),
    "logit bias": Sampling(logit_bias=("28+4", "260-inf"), temp=0.5),
    "logit bias and mirostat": Sampling(logit_bias=("28-1.5",), ignore_eos=True, mirostat=2),
    "dry": Sampling(dry_multiplier=0.8),
    "dry strong": Sampling(dry_multiplier=3, dry_base=2.5, dry_allowed_length=1),
    "dry without breakers": Sampling(dry_multiplier=1, dry_sequence_breakers=()),
    "dry with its own breakers": Sampling(dry_multiplier=1, dry_sequence_breakers=("\n", " the")),
    "dry over a long window": Sampling(dry_multiplier=1, dry_penalty_last_n=400),
    "typical": Sampling(typ_p=0.6),
    "typical first": Sampling(samplers=("typ_p", "temperature"), typ_p=0.8),
    "xtc": Sampling(xtc_probability=0.5, xtc_threshold=0.1),
    "xtc always": Sampling(xtc_probability=1, xtc_threshold=0.05),
    "top_n_sigma": Sampling(top_n_sigma=1.0),
    "top_n_sigma alone": Sampling(samplers=("top_n_sigma", "temperature"), top_n_sigma=2, temp=1.5),
    "min_p": Sampling(min_p=0.2, top_k=0, top_p=1),
    "min_p last": Sampling(samplers=("temperature", "min_p"), min_p=0.1, temp=1.5),
    "top_p": Sampling(top_p=0.5, min_p=0, top_k=0),
    "top_p tiny": Sampling(top_p=0.01),
    "top_p zero": Sampling(top_p=0),
    "top_k 1": Sampling(top_k=1),
    "top_k off": Sampling(top_k=0),
    "top_k negative": Sampling(top_k=-1, min_p=0),
    "dynamic temperature": Sampling(dynatemp_range=0.5),
    "dynamic temperature from 0": Sampling(temp=0, dynatemp_range=1, dynatemp_exp=2),
    "mirostat 1": Sampling(mirostat=1),
    "mirostat 1 cool": Sampling(mirostat=1, mirostat_ent=2, mirostat_lr=0.3, temp=0.7),
    "mirostat 2": Sampling(mirostat=2),
    "mirostat 2 warm": Sampling(mirostat=2, mirostat_ent=7, mirostat_lr=0.05, temp=1.2),
    "adaptive_p": Sampling(samplers=("min_p", "adaptive_p"), adaptive_target=0.4),
    "adaptive_p in the middle": Sampling(
        samplers=("top_k", "adaptive_p", "temperature"), adaptive_target=0.7, adaptive_decay=0.5
    ),
    "infill": Sampling(samplers=("top_k", "infill", "temperature")),
    "everything": Sampling(
        repeat_penalty=1.05, dry_multiplier=0.4, top_n_sigma=2.5, typ_p=0.95, min_p=0.02,
        xtc_probability=0.3, dynatemp_range=0.2, frequency_penalty=0.1,
    ),
}  # fmt: skip


# A stage at another strength than in a line that runs each time, or in one more place.
NIGHTLY = {
    "greedy", "hot", "repeat below 1", "repeat over a short window", "frequency", "presence",
    "penalties last", "logit bias", "dry without breakers", "dry over a long window", "xtc always",
    "min_p last", "top_p tiny", "top_p zero", "top_k negative", "dynamic temperature from 0",
    "mirostat 1 cool", "mirostat 2 warm",
}  # fmt: skip

# Nearly uniform over the vocabulary: an end token is one draw in thousands.
NEVER_ENDS = Sampling(samplers=("temperature",), temp=3.0)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.nightly] * (name in NIGHTLY)) for name in GRID],
)
def test_one_sequence_is_token_for_token_that_of_llama_completion(
    engine: Engine, llama_completion: Callable[[Sequence[str]], str], code_prompt: str, name: str
) -> None:
    seed = 3407 + list(GRID).index(name)
    run = engine.generate(code_prompt, GRID[name], seed, n_predict=48)
    assert_reproduced(run, engine, llama_completion)


def test_a_long_run_crosses_the_point_where_flash_attention_splits(
    engine: Engine, llama_completion: Callable[[Sequence[str]], str], code_prompt: str
) -> None:
    sampling = Sampling(temp=1.2, top_k=0, top_p=1, min_p=0.05, ignore_eos=True)
    run = engine.generate(code_prompt, sampling, 11, n_predict=250)
    assert run.n_prompt + len(run.tokens) > 256  # llama.cpp then reads 512 cells, and splits them
    assert_reproduced(run, engine, llama_completion)


def assert_reproduced(
    run: Run, engine: Engine, llama_completion: Callable[[Sequence[str]], str]
) -> None:
    """The run's command gives its text, alone and in llama-completion's own process."""
    printed = llama_completion(command_of(run.request, engine).argv()).removesuffix("\n\n")
    end = " [end of text]\n" if run.stop == "end" else ""
    assert printed == run.text + end


def test_a_prompt_longer_than_a_physical_batch_gives_the_same_tokens(
    engine: Engine, llama_completion: Callable[[Sequence[str]], str], code_prompt: str
) -> None:
    prompt = code_prompt * 30
    run = engine.generate(prompt, Sampling(), 3, n_predict=16)
    assert run.n_prompt > engine.loading.n_ubatch
    assert_reproduced(run, engine, llama_completion)


def test_a_full_context_ends_the_run_where_llama_completion_ends_it(
    model_path: Path, llama_completion: Callable[[Sequence[str]], str], code_prompt: str
) -> None:
    with Engine(model_path, Loading(n_ctx=256)) as engine:
        run = engine.generate(code_prompt * 10, NEVER_ENDS, 1, n_predict=-1)
    assert run.stop == "context"
    assert run.runaway
    assert_reproduced(run, engine, llama_completion)


@pytest.fixture(scope="module")
def requests(code_prompts: list[str]) -> list[Request]:
    samplings = [PRESETS["official"], Sampling(repeat_penalty=1.3, temp=1.0),
                 Sampling(samplers=ARTICLE_ORDER, dry_multiplier=0.5, temp=0.9)]  # fmt: skip
    return [
        Request(prompt, sampling, seed, n_predict=12 + 37 * (seed + i) % 48)
        for i, prompt in enumerate(code_prompts[:2])
        for sampling in samplings
        for seed in (1, 2)
    ]


@pytest.fixture(scope="module")
def together(batch_engine: Engine, requests: list[Request]) -> dict[int, Run]:
    """All requests in one batch of five."""
    return dict(batch_engine.run(requests, width=5))


def test_a_run_is_the_same_alone_and_in_a_batch_of_any_width(
    batch_engine: Engine, requests: list[Request], together: dict[int, Run]
) -> None:
    assert batch_engine.width_independent
    alone = [next(batch_engine.run([request], width=1))[1] for request in requests]
    by_two = dict(batch_engine.run(requests[::2], width=2))
    for width, runs, lone_runs in ((5, together, alone), (2, by_two, alone[::2])):
        assert sorted(runs) == list(range(len(lone_runs)))
        for index, lone in enumerate(lone_runs):
            run = runs[index]
            assert run.tokens == lone.tokens, (width, index)
            assert (run.text, run.stop) == (lone.text, lone.stop)
            assert run.escapes == lone.escapes


@pytest.mark.nightly
def test_another_integer_type_does_not_depend_on_the_batch_either(
    model_path: Path, requests: list[Request]
) -> None:
    some = [replace(request, n_predict=40) for request in requests[::2]]
    with Engine(requantize(model_path, "Q4_0"), LOADING) as engine:
        assert engine.width_independent
        alone = [next(engine.run([request], width=1))[1].tokens for request in some]
        together = dict(engine.run(some, width=5))
    assert [together[place].tokens for place in range(len(some))] == alone


def test_every_run_of_a_batch_is_reproduced_by_its_command(
    batch_engine: Engine,
    llama_completion: Callable[[Sequence[str]], str],
    requests: list[Request],
    together: dict[int, Run],
) -> None:
    for index in range(0, len(requests), 4):
        assert_reproduced(together[index], batch_engine, llama_completion)


@pytest.mark.parametrize(
    "batch_engine",
    [
        pytest.param((Loading(flash_attn="off"), "Q4_1"), marks=pytest.mark.nightly),
        (LOADING, "Q8_0"),
    ],
    indirect=True,
    ids=["Q4_1", "Q8_0"],
)
def test_long_runs_in_a_batch_are_reproduced_too(
    batch_engine: Engine, llama_completion: Callable[[Sequence[str]], str], code_prompt: str
) -> None:
    requests = [Request(code_prompt * 25, NEVER_ENDS, seed, 60) for seed in (11, 12)]
    runs = dict(batch_engine.run(requests, width=2))
    longest = max(runs.values(), key=lambda run: len(run.tokens))
    # Past 512 tokens flash attention on a cache of floats would split its sums.
    assert longest.n_prompt < 512 < longest.n_prompt + len(longest.tokens)
    assert_reproduced(longest, batch_engine, llama_completion)


def test_the_lab_knows_where_a_batch_may_differ(engine: Engine, float_engine: Engine) -> None:
    assert not engine.width_independent
    assert not float_engine.width_independent


def test_the_same_grid_gives_the_same_result_again_on_floats(
    float_engine: Engine, requests: list[Request]
) -> None:
    first, again = (dict(float_engine.run(requests[:5], width=4)) for _ in range(2))
    assert {i: r.tokens for i, r in first.items()} == {i: r.tokens for i, r in again.items()}


def test_no_token_escapes_where_nothing_penalises(together: dict[int, Run]) -> None:
    official = [r for r in together.values() if r.request.sampling == PRESETS["official"]]
    assert official and all(run.escapes == () for run in official)


def test_tokens_stream_as_they_are_drawn(engine: Engine, code_prompt: str) -> None:
    seen = []
    run = engine.generate(
        code_prompt, Sampling(temp=0), 1, 24, on_token=lambda *event: seen.append(event)
    )
    assert tuple(token for _, token, _ in seen) == run.tokens
    assert "".join(text for _, _, text in seen) == run.text


def test_stop_ends_all_runs_at_once_and_keeps_what_they_had(
    engine: Engine, code_prompt: str
) -> None:
    requests = [Request(code_prompt, NEVER_ENDS, seed, 4000) for seed in range(6)]
    first = threading.Event()

    def stop_soon() -> None:
        first.wait(60)
        engine.stop()

    watch = threading.Thread(target=stop_soon)
    watch.start()
    runs = dict(engine.run(requests, width=4, on_token=lambda *_: first.set()))
    watch.join()
    assert len(runs) == 6
    assert {run.stop for run in runs.values()} == {"stopped"}
    assert any(run.tokens for run in runs.values())
    after = engine.generate(code_prompt, Sampling(temp=0), 1, 5)
    assert len(after.tokens) == 5


def test_an_error_in_a_callback_reaches_the_caller_and_the_engine_goes_on(
    engine: Engine, code_prompt: str
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        engine.generate(code_prompt, Sampling(), 1, 5, on_token=fail)
    assert len(engine.generate(code_prompt, Sampling(temp=0), 1, 5).tokens) == 5


def test_an_abandoned_batch_leaves_the_engine_usable(engine: Engine, code_prompt: str) -> None:
    runs = engine.run([Request(code_prompt, Sampling(), seed, 9) for seed in range(4)], width=2)
    next(runs)
    del runs
    assert len(engine.generate(code_prompt, Sampling(temp=0), 1, 5).tokens) == 5


def test_a_prompt_that_does_not_fit_is_refused_before_anything_runs(
    model_path: Path, code_prompt: str
) -> None:
    with (
        Engine(model_path, Loading(n_ctx=256)) as engine,
        pytest.raises(ContextError, match=r"the prompt has \d+ tokens, and a context of 256"),
    ):
        engine.generate(code_prompt * 20, n_predict=5)


def test_an_empty_prompt_and_a_request_without_a_list_are_refused(engine: Engine) -> None:
    with pytest.raises(SettingError, match="empty"):
        engine.generate("", n_predict=5)
    alone: Any = Request("x")
    with pytest.raises(SettingError, match=r"give \[request\]"):
        engine.run(alone)


def test_an_engine_opens_by_name_and_tells_its_file_and_its_loading(model_path: Path) -> None:
    with Engine("smollm2-135m", Loading(flash_attn="off")) as engine:
        assert repr(engine) == f"<Engine: --model {model_path} -fa off>"


@pytest.mark.parametrize("prompt", ["\udcff\udcfe broken", "a\0b", "\U0010ffff", "x" * 999, "<|"])
def test_odd_prompts_do_not_end_the_process(engine: Engine, prompt: str) -> None:
    assert engine.generate(prompt, Sampling(temp=0), 1, 3).n_prompt >= 1


def test_an_override_reaches_the_model(model_path: Path, code_prompt: str) -> None:
    key = "llama.attention.layer_norm_rms_epsilon"
    runs = []
    for epsilon in ("1e-5", "1e-1"):
        with Engine(model_path, Loading(override_kv=(f"{key}=float:{epsilon}",))) as engine:
            runs.append(engine.generate(code_prompt, Sampling(temp=0), 1, 12))
    assert runs[0].tokens != runs[1].tokens


@pytest.mark.parametrize(
    "loading",
    [Loading(rope_scaling="yarn", rope_scale=4), Loading(rope_freq_base=5e4),
     Loading(flash_attn="on", cache_type_k="q8_0", cache_type_v="q8_0"), Loading(n_threads=1)],
)  # fmt: skip
def test_a_loading_means_the_same_to_llama_completion(
    model_path: Path,
    llama_completion: Callable[[Sequence[str]], str],
    code_prompt: str,
    loading: Loading,
) -> None:
    with Engine(model_path, loading) as engine:
        run = engine.generate(code_prompt, Sampling(), 21, 32)
    assert_reproduced(run, engine, llama_completion)


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.gguf"
    path.write_text("not a model")
    with pytest.raises(ModelFileError, match=r"notes\.gguf"):
        Engine(path)


def test_a_stop_with_nothing_to_stop_does_not_end_the_next_run(
    engine: Engine, code_prompt: str
) -> None:
    engine.generate(code_prompt, Sampling(temp=0), 1, 3)
    engine.stop()
    assert len(engine.generate(code_prompt, Sampling(temp=0), 1, 5).tokens) == 5


def test_a_stop_during_a_prompt_gives_its_run_back_as_stopped(
    engine: Engine, code_prompt: str
) -> None:
    done = threading.Event()

    def stop() -> None:
        while not done.wait(0.3):
            engine.stop()

    watch = threading.Thread(target=stop)
    watch.start()
    run = engine.generate(code_prompt * 300, Sampling(temp=0), 1, 4000)
    done.set()
    watch.join()
    assert (run.stop, run.tokens) == ("stopped", ())


def test_a_second_run_at_once_is_refused_and_harms_neither(
    engine: Engine, code_prompt: str
) -> None:
    runs = engine.run([Request(code_prompt, n_predict=n) for n in (1, 9)], width=2)
    next(runs)
    with pytest.raises(BusyError, match="at work already"):
        engine.generate(code_prompt, Sampling(temp=0), 1, 5)
    ((_, run),) = runs
    assert run.tokens == engine.generate(code_prompt, Sampling(), run.request.seed, 9).tokens


def test_closing_an_engine_ends_a_run_in_another_thread(model_path: Path, code_prompt: str) -> None:
    engine, first, found = Engine(model_path), threading.Event(), []

    def work() -> None:
        found.append(engine.generate(code_prompt, NEVER_ENDS, 1, 4000, lambda *_: first.set()))

    thread = threading.Thread(target=work)
    thread.start()
    assert first.wait(60)
    engine.close()
    thread.join()
    assert found[0].stop == "stopped"


def test_what_a_closed_engine_left_behind_raises_and_does_not_end_the_process(
    model_path: Path, code_prompt: str
) -> None:
    engine = Engine(model_path)
    probe = Probe.of(engine, Request(code_prompt, Sampling(dry_multiplier=0.5), 1, 4))
    runs = engine.run([Request(code_prompt, n_predict=n) for n in (1, 9)], width=2)
    next(runs)
    engine.close()
    for use in (
        lambda: next(runs),
        lambda: probe.step(2),
        lambda: engine.generate(code_prompt),
        lambda: engine.model.show(3),
    ):
        with pytest.raises(ClosedError, match="is closed; open the engine anew"):
            use()
    engine.close()


def test_a_process_that_ends_in_the_middle_of_a_run_ends_cleanly(
    model_path: Path, code_prompt: str
) -> None:
    program = f"""
import threading
from qwqlab.sampling import Engine, Request
engine, first = Engine({str(model_path)!r}), threading.Event()
requests = [Request({code_prompt!r}, seed=seed, n_predict=4000) for seed in range(4)]
run = lambda: list(engine.run(requests, 4, lambda *_: first.set()))
threading.Thread(target=run, daemon=True).start()
assert first.wait(60)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_batch_wider_than_a_decode_is_refused(model_path: Path, code_prompt: str) -> None:
    requests = [Request(code_prompt, n_predict=1, seed=seed) for seed in range(9)]
    for loading in (Loading(n_batch=8), Loading(n_ubatch=8)):
        with Engine(model_path, loading) as engine:
            with pytest.raises(SettingError, match="leave room for 7"):
                engine.run(requests, width=8)
            assert len(list(engine.run(requests, width=7))) == 9
            assert len(engine.generate(code_prompt, n_predict=2).tokens) == 2


@pytest.mark.parametrize("changes", [{"seed": -1}, {"seed": 2**32 - 1}, {"seed": 1.5},
                                     {"n_predict": -2}, {"n_predict": 2.5},
                                     {"sampling": "article"}, {"prompt": None}])  # fmt: skip
def test_a_request_that_llama_cpp_would_read_otherwise_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(changes))):
        Request(**{"prompt": "x", **changes})


INTERRUPT = """
import os, signal, sys
from qwqlab.llamacpp import Loading, Model
from qwqlab.llamacpp import model as native

class Log(type(native.log)):
    def append(self, text):  # called while llama.cpp loads
        if not self:
            os.kill(os.getpid(), signal.SIGINT)
        super().append(text)

native.log = Log()
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
try:
    Model(sys.argv[1], Loading())
except KeyboardInterrupt:
    sys.exit(7)
"""


def test_an_interrupt_while_a_model_loads_is_kept_until_it_is_loaded(model_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPT, str(model_path)], capture_output=True, check=False
    )
    assert done.returncode == 7, done.stderr
    assert b"Exception ignored" not in done.stderr


def test_what_is_not_closed_says_nothing_at_the_end_of_the_process(model_path: Path) -> None:
    script = (
        "import sys, torch\nfrom qwqlab.llamacpp import Loading, Model\n"
        "kept = Model(sys.argv[1], Loading(), vocab_only=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(model_path)], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_breaker_may_hold_bytes_that_are_no_text(engine: Engine, code_prompt: str) -> None:
    sampling = Sampling(dry_multiplier=1, dry_sequence_breakers=("\udcff",))
    assert engine.generate(code_prompt, sampling, 1, 3).tokens
