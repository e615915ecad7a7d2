"""The flags of llama.cpp's programs: what each sets here, and what those would do that set nothing.

Every flag in llama.cpp's common/arg.cpp is in one of the tables below, and the tests hold them
against that file. A value is read as llama.cpp reads it, with a sentence for what surprises.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from ..errors import SettingError
from ..llamacpp import LOADING_FLAGS, Loading, check_number, read_float, read_int, read_prompt
from .settings import SETTINGS, STAGE_OF_LETTER, STAGE_OF_NAME, Setting, check_order

# A value, and a sentence on how it was read if that is not as it is written. The value None leaves
# the setting as it was.
Reading = tuple[Any, str]


@dataclass(frozen=True)
class Flag:
    """Where a flag's value belongs (in "sampling", "loading" or "rest"), and what reads it.

    adds: each use adds to the value. read takes the flag's name and the text after it.
    """

    where: str
    name: str
    read: Callable[[str, str], Reading]
    adds: bool = False


# Taken, since they leave the tokens of a run as they are: a prompt, no conversation, no context
# shift. By what llama.cpp takes after them: nothing, a whole number, some text, or one of words.
_ON_OFF = "on enabled true 1 off disabled false 0"
_UNTOUCHED = {
    "": "-no-cnv --no-conversation --display-prompt --no-display-prompt --verbose-prompt --warmup "
    "--no-warmup --simple-io --perf --no-perf --check-tensors --offline --no-context-shift "
    "--jinja --no-jinja -kvo --kv-offload --repack --op-offload -mli --multiline-input "
    "--in-prefix-bos -v --verbose --log-verbose --log-disable --log-jsonl --no-log-jsonl "
    "--log-prefix --no-log-prefix --log-timestamps --no-log-timestamps",
    "N": "--prio --prio-batch --poll-batch --cpu-strict-batch --keep -fitc --fit-ctx -lv "
    "--verbosity --log-verbosity -ptc --print-token-count",
    "TEXT": "-C --cpu-mask -Cr --cpu-range --cpu-strict --poll -Cb --cpu-mask-batch -Crb "
    "--cpu-range-batch -dt --defrag-thold -fitt --fit-target -hft --hf-token --log-file "
    "--in-prefix --in-suffix",
    "f32 f16 bf16 q8_0 q4_0 q4_1 iq4_nl q5_0 q5_1": "--spec-draft-type-k -ctkd "
    "--cache-type-k-draft --spec-draft-type-v -ctvd --cache-type-v-draft",
    _ON_OFF: "-fit --fit",
    f"{_ON_OFF} auto -1": "-co --color --log-colors",
    "1": "-np --parallel",
    "auto none mmap mlock mmap+mlock dio": "-lm --load-mode",
    "on auto off": "-lzm --lazy-mode",
    "distribute isolate numactl": "--numa",
}
UNTOUCHED = {flag: kind for kind, flags in _UNTOUCHED.items() for flag in flags.split()}

# Refused, by what they would do. A star stands for any letters.
REFUSED = {
    "print something else and write no text": "-h --help --usage --version -cl --cache-list -fitp "
    "--fit-print --completion-bash --list-devices",
    "hold the text to a grammar": "--grammar --grammar-file -j --json-schema -jf "
    "--json-schema-file",
    "hold a conversation (here a prompt is taken as it is; `qwqlab render` makes one of "
    "messages)": "-cnv --conversation -st --single-turn -i --interactive -if --interactive-first "
    "-sys --system-prompt -sysf --system-prompt-file --chat-template* --reasoning* "
    "--no-reasoning-preserve -rea --skip-chat-parsing --no-skip-chat-parsing "
    "--prefill-assistant --no-prefill-assistant",
    "end the text where a phrase of yours appears": "-r --reverse-prompt",
    "write control tokens into the text": "-sp --special",
    "keep the state of the prompt in a file": "--prompt-cache*",
    "write on when the context is full": "--context-shift -gan --grp-attn-n -gaw --grp-attn-w",
    "keep the whole cache of layers that look back only so far": "--swa-full",
    "share the context among several sequences": "-np --parallel -ns --sequences -kvu -no-kvu "
    "--kv-unified* --no-kv-unified -pps -cb -nocb --*cont-batching",
    "draw the tokens on the device that computes": "-bs --backend-sampling",
    "choose the devices, or the code, that compute": "--rpc -ot --override-tensor "
    "-sm --split-mode -ts --tensor-split -mg --main-gpu -cmoe --cpu-moe -ncmoe --n-cpu-moe "
    "-ncffn --n-cpu-ffn -nkvo --no-kv-offload --no-op-offload --no-host -nr --no-repack",
    "add vectors, or an adapter only in part": "--lora-scaled --lora-init-without-apply "
    "--control-vector*",
    "download a model (`qwqlab fetch` does; then -m takes its name)": "-mu --model-url -dr "
    "--docker-repo -hf -hfr --hf-repo -hff --hf-file --mtp --dflash --eagle3",
    "download a model, and choose settings for it": "--fim-* --gpt-oss-* --vision-* "
    "--embd-gemma-default",
    "let a smaller model, or an earlier text, guess tokens ahead": "--spec-* --no-spec-* --draft* "
    "*-draft -md -td -tbd -Cd -Crd -Cbd -Crbd -otd -cmoed -ncmoed -devd -ngld -hfd -hfrd -lcs -lcd "
    "--lookup-*",
    "show images, sound or films to the model": "-mm --mmproj* --no-mmproj* -mmu -mmdev --image* "
    "--audio --video* --mtmd-* --media-path",
    "serve or reach a model over HTTP": "--host --port --reuse-port --path --server-base --cors-* "
    "--no-cors-* --api-* --ssl-* --ui* --no-ui* --webui* --no-webui* --tools* --mcp-* -ag --agent "
    "-no-ag --no-agent -to --timeout --sse-* --threads-http --metrics --props --slots --no-slots "
    "--slot-* -sps --models-* --no-models-autoload --sleep-* -a --alias --tags --cache-* "
    "--no-cache-* -ctxcp --ctx-checkpoints --swa-checkpoints -cms --checkpoint-min-step -cram "
    "--spm-infill --show-timings --no-show-timings --log-prompts-dir",
    "compute embeddings or ranks": "--embedding* --embd-* --pooling --attention --rerank* "
    "--cls-separator --context-file --chunk-size --chunk-separator",
    "measure a model on a text (llama-perplexity, llama-imatrix)": "--hellaswag* --winogrande* "
    "--multiple-choice* --kl-divergence* --save-all-logits --ppl* --no-ppl --chunk --chunks "
    "--from-chunk --in-file -ofreq --output-* --save-frequency --process-output "
    "--show-statistics --parse-special",
    "measure speed, or test the context (llama-batched-bench, llama-passkey)": "-npp -ntg -npl "
    "-tgs --junk --pos",
    "write its result to a file": "-o --output",
    "show tokens (`qwqlab tokenize` does)": "--ids --stdin --no-bos --no-parse-special "
    "--show-count",
    "train, speak, diffuse or debug (others of llama.cpp's programs)": "-lr --learning-rate* "
    "-lr-min -decay-epochs -wd --weight-decay -val-split --val-split -epochs --epochs -opt "
    "--optimizer --positive-file --negative-file --pca-* --method --tts-* --diffusion-* --check "
    "--save-logits --logits-output-dir --tensor-filter",
}


def explain_refused(flag: str) -> str | None:
    """Return what a flag would do in llama.cpp that the lab does not; None for any other word."""
    if not re.fullmatch(r"--?[\w.-]+", flag, re.ASCII):
        return None
    for what, patterns in REFUSED.items():
        if any(fnmatchcase(flag, pattern) for pattern in patterns.split()):
            return what
    return None


# The variables that set a flag beneath those of the command, but for LLAMA_ARG_THREADS, which
# `Loading.threads` reads, and LLAMA_ARG_MODEL.
_NAMED_AS_THEIR_FLAG = (
    "CTX_SIZE N_PREDICT DEVICE FLASH_ATTN ROPE_SCALE ROPE_FREQ_BASE ROPE_FREQ_SCALE YARN_ORIG_CTX "
    "YARN_EXT_FACTOR YARN_ATTN_FACTOR YARN_BETA_SLOW YARN_BETA_FAST CACHE_TYPE_K CACHE_TYPE_V "
    "N_GPU_LAYERS TEMPERATURE TOP_K TOP_P MIN_P REPEAT_PENALTY PRESENCE_PENALTY FREQUENCY_PENALTY"
)
VARIABLES = {
    **{
        f"LLAMA_ARG_{name}": "--" + name.lower().replace("_", "-")
        for name in _NAMED_AS_THEIR_FLAG.split()
    },
    "LLAMA_ARG_BATCH": "--batch-size",
    "LLAMA_ARG_UBATCH": "--ubatch-size",
    "LLAMA_ARG_ROPE_SCALING_TYPE": "--rope-scaling",
}


def read_number(kind: type, flag: str, text: str) -> Reading:
    """Return a number as llama.cpp reads it out of a flag's value."""
    try:
        value, rest = (read_int if kind is int else read_float)(text)
    except OverflowError:
        raise SettingError(f"{flag} {text[:40]!r} is out of range: it is a 32-bit float") from None
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise SettingError(f"{flag} {text[:40]!r} is not {what}") from None
    if kind is int and not -(2**31) <= value < 2**31:
        raise SettingError(f"{flag} {text[:40]!r} is out of range: it is a whole number of 32 bits")
    return value, f"{flag} {text!r} is read as {value:g}" if rest else ""


def check_untouched(flag: str, text: str) -> None:
    """Raise SettingError for a value that llama.cpp refuses after a flag of UNTOUCHED."""
    kind = UNTOUCHED[flag]
    if kind == "N":
        read_number(int, flag, text)
    elif kind != "TEXT" and text not in kind.split():
        if what := explain_refused(flag):
            raise SettingError(f"{flag} {text} is refused: in llama.cpp it would {what}")
        raise SettingError(f"{flag} {text!r} is not one of {', '.join(kind.split())}")


def _read_setting(setting: Setting, flag: str, text: str) -> Reading:
    value, note = read_number(setting.kind, flag, text)
    if setting.name == "dry_base" and value < 1:
        return None, f"{flag} {text} changes nothing: llama.cpp takes no base below 1"
    if setting.strict:  # an earlier value is refused too, though a later one would count
        check_number(setting.name, value, setting.kind, setting.low, setting.high)
    clipped = setting.clip(value)
    if clipped != value and value == value:
        note = f"{flag} {text!r} is read as {clipped:g}"
    return clipped, note


def _read_loading(name: str, flag: str, text: str) -> Reading:
    default = getattr(Loading, name)
    taken: Any = _SYNONYMS.get(name, {}).get(text, text)
    note = ""
    if not isinstance(default, str):
        value, note = read_number(type(default), flag, taken)
        taken = _TAKEN_FOR[name](value) if name in _TAKEN_FOR else value
        note = f"{flag} {text!r} is read as {taken}" if taken != value else note
    elif not text:
        raise SettingError(f"{flag} '' is not one of the names that llama.cpp takes")
    Loading(**{name: taken})  # an earlier value is refused too
    return taken, note


# What llama.cpp takes a whole number for, and a word.
_TAKEN_FOR: dict[str, Callable[[int], int]] = {
    **dict.fromkeys(
        ("n_threads", "n_threads_batch"), lambda n: n if n > 0 else os.cpu_count() or 1
    ),
    "n_ctx": lambda n: max(n, 8) if n else 0,
    "n_gpu_layers": lambda n: max(n, -2),
}
_SYNONYMS = {
    "flash_attn": {"1": "on", "true": "on", "enabled": "on", "0": "off", "false": "off",
                   "disabled": "off", "-1": "auto"},
    "n_gpu_layers": {"auto": "-1", "all": "-2"},
}  # fmt: skip


def _read_names(flag: str, text: str) -> Reading:
    return _read_stages(flag, text.lower().split(";"), STAGE_OF_NAME)


def _read_letters(flag: str, text: str) -> Reading:
    return _read_stages(flag, list(text), STAGE_OF_LETTER)


def _read_stages(flag: str, names: list[str], known: Mapping[str, str]) -> Reading:
    unknown = [repr(name) for name in names if name and name not in known]
    note = f"{flag}: llama.cpp knows no sampler {', '.join(unknown)}, and runs the others"
    return check_order(known[name] for name in names if name in known), note if unknown else ""


def _read_seed(flag: str, text: str) -> Reading:
    try:
        value, rest = read_int(text)
    except ValueError:
        raise SettingError(f"{flag} {text[:40]!r} is not a whole number") from None
    if abs(value) >= 2**64:
        raise SettingError(f"{flag} {text[:40]!r} is out of range: it is a whole number of 64 bits")
    seed = value % 2**32
    if seed == 2**32 - 1:
        seed = int.from_bytes(os.urandom(4), "little") % (2**32 - 1)
        return seed, f"{flag} {text} asks for any seed, and this run has {seed}"
    return seed, f"{flag} {text!r} is read as {seed}" if rest or seed != value else ""


def _read_n_predict(flag: str, text: str) -> Reading:
    value, note = read_number(int, flag, text)
    return max(value, -1), note


def _read_file(_flag: str, path: str) -> Reading:
    """Read a prompt file; llama.cpp drops one newline from its end."""
    return read_prompt(path).removesuffix("\n"), ""


def _read_breaker(flag: str, text: str) -> Reading:
    return ((text,), "") if text else ((), f"{flag}: llama.cpp skips a breaker that is empty")


def _read_text(_flag: str, text: str) -> Reading:
    return text, ""


def _read_list(_flag: str, text: str) -> Reading:
    """Read a row of values between commas, or in quotes as CSV has them."""
    return tuple(next(csv.reader([text])) if '"' in text else text.split(",")), ""


# What a flag without a value sets.
BARE: dict[str, tuple[str, str, bool]] = {
    "--ignore-eos": ("sampling", "ignore_eos", True),
    **dict.fromkeys(("-e", "--escape"), ("rest", "escapes", True)),
    "--no-escape": ("rest", "escapes", False),
}
# What a flag with a value sets.
FLAGS: dict[str, Flag] = {
    **{f: Flag("sampling", s.name, partial(_read_setting, s)) for s in SETTINGS for f in s.flags},
    **{
        flag: Flag("loading", name, partial(_read_loading, name))
        for name, flags in LOADING_FLAGS.items()
        for flag in flags
    },
    "--samplers": Flag("sampling", "samplers", _read_names),
    **dict.fromkeys(
        ("--sampling-seq", "--sampler-seq"), Flag("sampling", "samplers", _read_letters)
    ),
    "--dry-sequence-breaker": Flag("sampling", "dry_sequence_breakers", _read_breaker, adds=True),
    **dict.fromkeys(
        ("-l", "--logit-bias"),
        Flag("sampling", "logit_bias", lambda _flag, text: ((text,), ""), adds=True),
    ),
    "--override-kv": Flag("loading", "override_kv", _read_list, adds=True),
    "--lora": Flag("loading", "lora", _read_list, adds=True),
    **dict.fromkeys(("-m", "--model"), Flag("rest", "model", _read_text)),
    **dict.fromkeys(("-p", "--prompt"), Flag("rest", "prompt", _read_text)),
    **dict.fromkeys(("-f", "--file"), Flag("rest", "prompt", _read_file)),
    **dict.fromkeys(
        ("-bf", "--binary-file"),
        Flag("rest", "prompt", lambda _flag, path: (read_prompt(path), "")),
    ),
    **dict.fromkeys(("-s", "--seed"), Flag("rest", "seed", _read_seed)),
    **dict.fromkeys(("-n", "--predict", "--n-predict"), Flag("rest", "n_predict", _read_n_predict)),
}
