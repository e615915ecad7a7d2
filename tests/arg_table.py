"""llama.cpp's own table of flags, read out of its common/arg.cpp."""

from __future__ import annotations

import re
from dataclasses import dataclass

from qwqlab.llamacpp import find_source

_STRINGS = re.compile(r'"((?:\\.|[^"\\])*)"')
_OPTION = re.compile(
    r"\s*(?://[^\n]*\s*)*\{(?P<flags>[^}]*)\},\s*(?:\{(?P<negated>[^}]*)\},\s*)?"
    r'(?P<hint>"(?:\\.|[^"\\])*",\s*"?)?'
)


@dataclass(frozen=True)
class Option:
    """One option: its spellings, whether a value follows, and its variable.

    kind: "int" for a number that std::stoi reads, "text" for another value, "" for none.
    completion: whether llama-completion has it.
    """

    flags: tuple[str, ...]
    kind: str
    variable: str
    completion: bool


def read_arg_table() -> list[Option] | None:
    """Return every option of arg.cpp, None if the source is not here."""
    source = find_source()
    if source is None:
        return None
    text = (source / "common" / "arg.cpp").read_text(encoding="utf-8")
    text = text[text.index("common_params_context common_params_parser_init") :]
    options = []
    for block in text.split("add_opt(common_arg(")[1:]:
        match = _OPTION.match(block)
        assert match is not None, block[:200]
        flags = _STRINGS.findall(match["flags"]) + _STRINGS.findall(match["negated"] or "")
        handler = re.search(r"\[\]\(common_params &[^,)]*(?:, ([^)]*))?\)", block)
        takes = handler[1] if handler and handler[1] else ""
        kind = "" if "bool" in takes or not takes else "int" if "int " in takes else "text"
        examples = re.search(r"set_examples\((.*?)\)", block, re.S)
        homes = re.findall(r"LLAMA_EXAMPLE_(\w+)", examples[1]) if examples else ["COMMON"]
        if examples and not homes:
            homes = ["MTMD"]  # mmproj_examples
        variable = re.search(r'set_env\("(\w+)"\)', block)
        options.append(
            Option(
                tuple(flags),
                kind,
                variable[1] if variable else "",
                bool({"COMMON", "COMPLETION"} & set(homes)),
            )
        )
    return options
