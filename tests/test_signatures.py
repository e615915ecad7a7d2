"""Every argument that the lab passes to a library is one that the installed version takes.

The lab's own source is read: each call whose function can be traced to one of the libraries is
held against that function's signature. What is passed as a dictionary is listed here by hand.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import pytest

import qwqlab
from qwqlab.quant import BnbCodec, bnb_options
from qwqlab.tuning import Recipe, engines, training

PACKAGE = Path(qwqlab.__file__).parent
CONSTRAINTS = PACKAGE.parent / "constraints.txt"
LIBRARIES = ("transformers", "trl", "peft", "bitsandbytes", "datasets", "accelerate", "llama_cpp")
# Names that stand for a module although no import statement says so.
KNOWN = {"functional": "bitsandbytes.functional", "transformers": "transformers",
         "C": "llama_cpp.llama_cpp"}  # fmt: skip


def find_calls(path: Path) -> Iterator[tuple[str, Any, ast.Call]]:
    """Every call in a file that can be traced to a library: its place, the function, the call."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    kinds = (ast.expr, ast.stmt)
    nodes = sorted(
        (node for node in ast.walk(tree) if isinstance(node, kinds)),
        key=lambda node: (node.lineno, node.col_offset),
    )
    for name, place in KNOWN.items():
        if any(isinstance(node, ast.Name) and node.id == name for node in nodes):
            names[name] = importlib.import_module(place)
    for node in nodes:
        if isinstance(node, ast.Import):
            for each in node.names:
                if each.name.split(".")[0] in LIBRARIES:
                    module = importlib.import_module(each.name)
                    root = importlib.import_module(each.name.split(".")[0])
                    names[each.asname or each.name.split(".")[0]] = module if each.asname else root
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0 and (node.module or "").split(".")[0] in LIBRARIES:
                for each in node.names:
                    module = importlib.import_module(str(node.module))
                    names[each.asname or each.name] = getattr(module, each.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found = trace(node.value, names)
            for target in targets:
                if isinstance(target, ast.Name) and found is not None:
                    names[target.id] = found
        elif isinstance(node, ast.Call) and callable(found := trace(node.func, names)):
            yield f"{path.name}:{node.lineno}", found, node


def trace(node: ast.expr, names: dict[str, Any]) -> Any:
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = trace(node.value, names)
        if inspect.ismodule(owner) or inspect.isclass(owner):
            return getattr(owner, node.attr)  # AttributeError: the library has dropped it
    return None


def find_fault(function: Any, call: ast.Call) -> str:
    """What of a call the function does not take, or nothing."""
    if any(isinstance(each, ast.Starred) for each in call.args):
        return ""
    argtypes = getattr(function, "argtypes", None)
    if isinstance(argtypes, (list, tuple)):  # of C
        given = len(call.args) + len(call.keywords)
        return "" if given == len(argtypes) else f"{given} arguments for {len(argtypes)}"
    try:
        # transformers wraps this method of its Auto classes in one of another shape.
        plain = getattr(function, "__name__", "") == "from_config"
        signature = inspect.signature(function, follow_wrapped=not plain)
    except ValueError:
        return ""
    named = {each.arg: None for each in call.keywords if each.arg is not None}
    try:
        signature.bind_partial(*call.args, **named)
    except TypeError as error:
        return str(error)
    return ""


def test_calls_are_what_the_installed_libraries_take() -> None:
    checked: Counter[str] = Counter()
    faults = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for place, function, call in find_calls(path):
            module = inspect.getmodule(function)
            owner = module.__name__ if module else getattr(function, "__module__", "") or ""
            library = "llama_cpp" if hasattr(function, "argtypes") else owner.split(".")[0]
            if fault := find_fault(function, call):
                faults.append(f"{place}: {getattr(function, '__name__', function)}: {fault}")
            checked[library] += 1
    assert not faults, "\n".join(faults)
    # So that it does not pass by tracing nothing.
    fewest = {"llama_cpp": 60, "transformers": 6, "bitsandbytes": 3, "trl": 3, "peft": 2,
              "datasets": 1, "accelerate": 3}  # fmt: skip
    assert not {name: checked[name] for name, least in fewest.items() if checked[name] < least}


def test_a_drifted_call_would_be_found() -> None:
    call = ast.parse("f(1, 2, new_name=3)", mode="eval").body
    assert isinstance(call, ast.Call)
    assert "new_name" in find_fault(lambda a, b, old_name=None: None, call)
    assert find_fault(lambda a, b, new_name=None: None, call) == ""
    import ctypes

    function = ctypes.CDLL(None).strlen
    function.argtypes = [ctypes.c_char_p]
    assert find_fault(function, call) == "3 arguments for 1"


def test_dictionaries_of_arguments_are_what_the_installed_libraries_take(tmp_path: Path) -> None:
    import peft
    import transformers
    import trl

    takes: dict[Any, dict[str, Any]] = {
        trl.SFTConfig: training.trainer_options(Recipe(), tmp_path),
        peft.LoraConfig: engines.lora_options(Recipe()),
        transformers.BitsAndBytesConfig: bnb_options([], BnbCodec(double=True)),
    }
    for call, given in takes.items():
        unknown = set(given) - set(inspect.signature(call).parameters)
        assert not unknown, f"{call.__name__} no longer takes {unknown}"
    hooks = ("on_step_begin", "on_step_end", "on_log")
    assert all(hasattr(transformers.TrainerCallback, hook) for hook in hooks)


def test_what_a_model_is_loaded_with_is_known_to_transformers() -> None:
    """from_pretrained takes any keyword, so its own source must speak of ours."""
    import transformers

    model = inspect.getsource(transformers.PreTrainedModel.from_pretrained)
    for name in ("dtype", "quantization_config", "gguf_file", "local_files_only"):
        assert f'"{name}"' in model or f"{name}:" in model, name
    auto = inspect.getsource(transformers.AutoModelForCausalLM.from_pretrained)
    assert '"trust_remote_code"' in auto


def test_unsloth_takes_what_it_is_given(lacking: Callable[[str], NoReturn], tmp_path: Path) -> None:
    """The pinned version's own source is read: unsloth needs no GPU for that, nor to be there."""
    source = _unsloth_source(lacking, tmp_path)
    tree = ast.parse(source["unsloth/models/loader.py"])
    load = _find_method(tree, "FastLanguageModel", "from_pretrained")
    assert {"model_name", "max_seq_length", "load_in_4bit"} <= load
    for name in ("local_files_only", "quantization_config"):
        assert f'kwargs.get("{name}"' in source["unsloth/models/loader.py"]
    adapt = _find_method(
        ast.parse(source["unsloth/models/llama.py"]), "FastLlamaModel", "get_peft_model"
    )
    given = {"use_gradient_checkpointing", "random_state", *engines.lora_options(Recipe())}
    assert given - {"task_type"} <= adapt
    assert '"UNSLOTH_DISABLE_STATISTICS" in os.environ' in source["unsloth/models/_utils.py"]


def _unsloth_source(lacking: Callable[[str], NoReturn], folder: Path) -> dict[str, str]:
    wanted = [f"unsloth/models/{name}.py" for name in ("loader", "llama", "_utils")]
    spec = find_spec("unsloth")
    if spec and spec.submodule_search_locations:
        root = Path(spec.submodule_search_locations[0]).parent
        return {name: (root / name).read_text(encoding="utf-8") for name in wanted}
    pin = next(
        line.split(";")[0].strip()
        for line in CONSTRAINTS.read_text().splitlines()
        if line.startswith("unsloth==")
    )
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), pin]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lacking(f"{pin} could not be downloaded: {done.stderr[-200:]}")
    (wheel,) = folder.glob("unsloth-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name).decode() for name in wanted}


def _find_method(tree: ast.Module, owner: str, name: str) -> set[str]:
    """The names of a method's parameters; "**" where it takes any other."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == owner:
            for each in node.body:
                if isinstance(each, ast.FunctionDef) and each.name == name:
                    found = {arg.arg for arg in (*each.args.args, *each.args.kwonlyargs)}
                    return found | ({"**"} if each.args.kwarg else set())
    pytest.fail(f"{owner}.{name} is gone")
