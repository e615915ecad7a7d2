"""The doctor on this machine, and on homes where something is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.requirements import Requirement

from qwqlab import catalog, doctor, toolchain
from qwqlab.preflight import Check


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
    assert doctor.check_vocabulary().remedy == "run `qwqlab fetch qwq-32b-ranks`"


def test_one_flipped_byte_in_the_model_is_found(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWQLAB_HOME", str(tmp_path))
    damaged = tmp_path / "build" / "models" / catalog.EMBEDDED.filename
    damaged.parent.mkdir(parents=True)
    content = bytearray(model_path.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    check = doctor.check_model()
    assert not check.ok
    assert str(damaged) in check.detail
    assert check.remedy.startswith("delete it")


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
