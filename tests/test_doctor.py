"""The doctor on this machine, and on homes where something is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from malformed import sound
from packaging.requirements import Requirement

from qwqlab import catalog, cli, paths, toolchain
from qwqlab.course import doctor, doctor_machine, doctor_models
from qwqlab.course.doctor_ask import ask_python
from qwqlab.entries import Entry, Vocabulary
from qwqlab.errors import ToolchainError
from qwqlab.preflight import Check, check_compilers


def test_all_is_well_once_the_set_up_has_run(model_path: Path) -> None:
    results = doctor.checks()
    assert [check.sentence() for check in results if not check.ok] == []
    assert len({check.name for check in results}) == len(results)


def test_the_bindings_load_the_library_of_the_tools() -> None:
    check = doctor.check_bindings()
    assert check.ok, check.sentence()
    assert str(toolchain.library_dir()) in check.detail


def test_a_library_chosen_elsewhere_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWQLAB_LLAMA_CPP_BUILD", str(tmp_path))
    assert str(tmp_path) in doctor.check_tools().sentence()
    assert not doctor.check_tools().ok


def test_a_home_where_nothing_was_set_up_names_the_remedies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWQLAB_HOME", str(tmp_path))
    monkeypatch.delenv("QWQLAB_LLAMA_CPP_BUILD", raising=False)
    assert doctor.check_tools() == Check(
        "llama.cpp", False, "llama.cpp is not built: run `make setup`."
    )
    assert doctor.check_model().remedy == "run `qwqlab fetch smollm2-135m`"
    assert doctor_models.check_answer().remedy == "run `qwqlab fetch smollm2-135m`"
    assert doctor.check_vocabulary().remedy == "run `qwqlab fetch qwq-32b-ranks`"


def test_a_build_that_ends_at_the_first_words_is_found(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "8 tokens" in doctor_models.check_answer().detail
    illegal_instruction = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"
    monkeypatch.setattr(doctor_models, "ANSWER_PROBE", illegal_instruction)
    check = doctor_models.check_answer()
    assert "was killed by signal 4" in check.detail and "make setup" in check.remedy


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The models folder of a home of its own."""
    monkeypatch.setenv("QWQLAB_HOME", str(tmp_path))
    folder = tmp_path / "build" / "models"
    folder.mkdir(parents=True)
    return folder


def flip(content: bytes) -> bytes:
    """The same with one bit changed in the middle."""
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip, "has sha256"),
        (lambda content: content[:-1], "cut short"),
        (lambda _: b"", "cut short"),
    ],
    ids=["one bit", "the last byte", "all bytes"],
)
def test_damage_to_a_catalogued_file_is_found(
    models: Path, model_path: Path, damage: Callable[[bytes], bytes], reason: str
) -> None:
    entries: tuple[Entry | Vocabulary, ...] = (catalog.EMBEDDED, catalog.QWQ_RANKS)
    for entry in entries:
        whole = (model_path.parent / entry.filename).read_bytes()
        (models / entry.filename).write_bytes(damage(whole))
    for check, entry in zip(doctor_models.check_files(), entries, strict=False):
        assert not check.ok
        assert f"{models / entry.filename} " in check.detail
        assert reason in check.detail
        assert check.remedy == f"delete it, then run `qwqlab fetch {entry.name}`"


def test_a_folder_in_the_place_of_the_model_is_said_to_be_one(models: Path) -> None:
    (models / catalog.EMBEDDED.filename).mkdir()
    assert "is not a file: move it away" in doctor.check_model().sentence()


def test_a_copy_is_held_against_the_hash_that_the_lab_noted(models: Path) -> None:
    content = sound().build()
    record = {"tiny.Q8_0.gguf": {"sha256": hashlib.sha256(content).hexdigest(), "replaces": None}}
    (models / "quants.json").write_text(json.dumps(record))
    for name in ("tiny.Q8_0.gguf", "imported.gguf"):
        (models / name).write_bytes(content)
    *_, others = doctor_models.check_files()
    assert others.ok
    assert others.detail == "2 whole, 1 of them with the sha256 that was stated for them"
    (models / "tiny.Q8_0.gguf").write_bytes(content[:-1] + b"x")
    *_, copy = doctor_models.check_files()
    assert "tiny.Q8_0.gguf" in copy.name
    assert copy.remedy.startswith("delete it: the lab makes it again")
    (models / "imported.gguf").write_bytes(content[: len(content) // 2])
    *_, cut, copy = doctor_models.check_files()
    assert (cut.ok, copy.ok) == (False, False)
    assert "imported.gguf" in cut.name
    assert "`qwqlab import`" in cut.remedy


def test_a_fetched_file_is_held_against_the_hash_that_the_hub_stated(tmp_path: Path) -> None:
    content = sound().build()
    repository = tmp_path / "models--unsloth--QwQ-32B-GGUF"
    blob = repository / "blobs" / hashlib.sha256(content).hexdigest()
    pointer = repository / "snapshots" / ("a" * 40) / "QwQ-32B-Q2_K.gguf"
    for file in (blob, pointer, repository / "refs" / "main"):
        file.parent.mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    blob.write_bytes(content)
    pointer.symlink_to(blob)
    assert report_files(tmp_path)[-1].startswith("[OK] Other model files: 1 whole, 1 of them")
    blob.write_bytes(flip(content[:-9]) + content[-9:])
    (line,) = (line for line in report_files(tmp_path) if "QwQ-32B-Q2_K.gguf" in line)
    assert line.startswith("[FAIL] Model file QwQ-32B-Q2_K.gguf: ")
    assert line.endswith(": run `qwqlab fetch QwQ-32B:Q2_K`")


def report_files(cache: Path) -> list[str]:
    """What the doctor says of model files with that hub's cache and a home of its own."""
    code = "from qwqlab.course.doctor import report; from qwqlab.course.doctor_models import check_files as c\n"
    variables = {"HF_HUB_CACHE": str(cache), "QWQLAB_HOME": str(cache / "home")}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}print(report(c()))"],
        env={**os.environ, **variables},
        cwd=paths.CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[:-1]


def test_json_holds_every_check_and_the_exit_status_says_whether_all_is_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    well = json.loads(capsys.readouterr().out)
    assert well["ok"] is True
    monkeypatch.setenv("QWQLAB_HOME", str(tmp_path))
    assert cli.main(["doctor", "--json"]) == 1
    ill = json.loads(capsys.readouterr().out)
    assert ill["ok"] is False
    assert {tuple(check) for check in ill["checks"]} == {("name", "ok", "detail", "remedy")}
    failed = {check["name"]: check["remedy"] for check in ill["checks"] if not check["ok"]}
    assert failed["Embedded model"] == "run `qwqlab fetch smollm2-135m`"
    assert all(check["remedy"] == "" for check in ill["checks"] if check["ok"])


def test_a_home_that_is_not_there_fails_its_checks_and_ends_none_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QWQLAB_HOME", "~no_such_person/lab")
    results = doctor.checks()
    failed = {check.name: check.sentence() for check in results if not check.ok}
    assert {"Embedded model", "QwQ-32B's vocabulary", "llama.cpp"} <= set(failed)
    assert not any("\n" in sentence for sentence in failed.values())
    assert next(check for check in results if check.name == "Jupyter kernel").ok


@pytest.mark.parametrize(
    ("content", "variable", "reason"),
    [
        (b"", "'unbalanced", "is no command"),
        (b"\x7fELF nonsense", "", "Exec format error"),
        (b"#!/bin/sh\necho no licence >&2; exit 1\n", "", "no licence"),
    ],
    ids=["quotes", "not a program", "a program that refuses"],
)
def test_a_compiler_that_is_none_fails_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, variable: str, reason: str
) -> None:
    program = tmp_path / "cc"
    program.write_bytes(content)
    program.chmod(0o755)
    monkeypatch.setenv("CC", variable or str(program))
    compiler, other = check_compilers()
    assert not compiler.ok
    assert reason in compiler.detail
    assert other.ok


def test_a_graphics_driver_that_does_not_answer_is_no_failure_but_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho No devices were found; exit 6\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    check = doctor_machine.check_gpu()
    assert check.ok
    assert "none that nvidia-smi lists" in check.detail


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ValueError('one\\ntwo')", "two"),
        ("import os; os.abort()", "signal 6"),
        ("print('[OK]')", "no answer"),
        ("", "no answer"),
        ("input()", "EOFError"),
    ],
)
def test_a_question_that_ends_badly_has_one_line_for_an_answer(code: str, reason: str) -> None:
    with pytest.raises(ToolchainError, match=reason):
        ask_python(["-c", code])


def test_a_question_that_hangs_is_ended() -> None:
    with pytest.raises(ToolchainError, match=r"no answer within 0\.5 seconds"):
        ask_python(["-c", "while True: pass"], patience=0.5)


def test_too_little_memory_is_too_little_of_it_or_too_little_left() -> None:
    asked = {"00": 1.5, "07": 7.5, "08": 9}
    judge = doctor_machine.judge_memory
    assert judge(16 * 10**9, 8 * 10**9, asked).detail == "16.0 GB, of which 8.0 GB are free"
    large = judge(4 * 10**9, 2 * 10**9, asked)
    assert large.ok and large.detail.endswith("; too little for notebooks 07, 08")
    small = judge(2 * 10**9, 16 * 10**8, asked)
    assert not small.ok and "keep to the other notebooks" in small.remedy
    assert "Shut Down All Kernels" in judge(16 * 10**9, 10**8, asked).remedy


@pytest.mark.parametrize(
    ("needed", "fault"),
    [
        ("plotly>=7,<8", None),
        ("plotly<1", "not <1"),
        ("no-such-package-here", "no-such-package-here is not installed"),
    ],
)
def test_a_package_is_held_against_what_pyproject_asks(needed: str, fault: str | None) -> None:
    found = doctor._find_fault(Requirement(needed))
    assert found is None if fault is None else fault in (found or "")


def test_the_report_marks_each_line_and_gives_remedies_only_where_something_fails() -> None:
    good = Check("make", True, "/usr/bin/make", "run something")
    bad = Check("C compiler", False, "no cc", "run `xcode-select --install`")
    assert doctor.report([good, bad]).splitlines() == [
        "[OK] make: /usr/bin/make",
        "[FAIL] C compiler: no cc: run `xcode-select --install`",
        "1 of 2 checks failed.",
    ]
    assert doctor.report([good]).splitlines()[-1] == "Everything is there."
