"""The program of a transcript: what wraps it, what reads like it, and what can't be told."""

from __future__ import annotations

import random
import textwrap

import pytest

from qwqlab.grader import extract_program
from qwqlab.sampling import find_blocks

GAME = '''"""Flap."""
import pygame

screen = pygame.display.set_mode((400, 600))
while True:
    pygame.display.flip()
'''
DRAFT = GAME.replace("Flap.", "DRAFT")
FENCED = f"```python\n{GAME}```"
DRAFTED = f"```python\n{DRAFT}```"
NOTED = "Note: all that stands before {} was my reasoning.\n"

# What holds the game, and is read as it.
FOUND = {
    "end of text": f"Plan.\n</think>\n\n{FENCED} [end of text]\n\n",
    "end of the turn": f"Plan.\n</think>\n\n{FENCED}<|im_end|>",
    "two end marks": f"{FENCED}<|im_end|> [end of text]\n\n",
    "an end mark on its line": f"{FENCED}\n<|endoftext|>\n",
    "an end mark in the fence": f"```python\n{GAME}</s>",
    "timings": f"```python\n{GAME}\ncommon_perf_print:  load time =  12 ms\nllama_perf_print: 3\n",
    "a run that goes on": f"{FENCED}<|im_end|>\n<|im_start|>user\nMore!\n{DRAFTED}",
    "end mark, and prose": f"{FENCED}<|im_end|>\nOh, or this:\n{DRAFTED}",
    "markdown around": f"Here:\n\n```markdown\n# Flappy\n\n{FENCED}\n```\n\nEnjoy!",
    "a longer fence around": f"````md\n{FENCED}\n````",
    "a longer bare fence": f"````\n```\n{GAME}```\n````",
    "tildes around": f"~~~\n# Flappy\n{FENCED}\n~~~\n```\nrun it\n```",
    "a list": "1. Save:\n\n" + textwrap.indent(FENCED, "   "),
    "attributes": f"```{{.python .numberLines}}\n{GAME}```",
    "a fence that was forgotten": f"```bash\npip install pygame\n\n{FENCED}",
    "a draft whose fence was forgotten": f"{DRAFTED[:-3]}\nNo:\n{FENCED}",
    "thinking in a draft": f"<think>\n{DRAFTED[:-9]}\n</think>\n\n```py\n{GAME}```\n",
    "the tags in a fence": f"a\n</think>\n{FENCED}\nI used:\n```\n<think>\n</think>\n```\n",
    "a bare wrapper": f"```\n# Flappy\n\n{FENCED}\n```\n\nEnjoy!",
    "thinking on one line": f"<think> a plan </think>\n{FENCED}",
    "backticks": f"<think>\nplan\n</think>\n\n{FENCED}\n\n" + NOTED.format("`</think>`"),
    "code with more in it": f"a\n</think>\n{FENCED}\n\n" + NOTED.format("`<think>x</think>`"),
    "quotes": f"a\n</think>\n{FENCED}\n\n" + NOTED.format('"</think>"'),
    "a word": f"<think>\nplan\n</think>\n\n{FENCED}\n\n" + NOTED.format("</think>"),
    "an opening word": f"{FENCED}\n\n" + NOTED.format("<think>"),
    "spoken of while thinking": f"<think>`</think>` ends it.\n{DRAFTED}\nGood.</think>\n{FENCED}",
    "colours": f"\ufeff\x1b[32mA plan.\n</think>\n{FENCED}\x1b[0m\n",
    "other tags": f"<THINK>\n{DRAFTED}\n</THINK>\n<reasoning>\n{DRAFTED}</reasoning>\n{FENCED}",
    "an echo": f"user\nGo.\nassistant\n<think>\n{DRAFTED}\n</think>\n{FENCED}",
    "an echo with marks": f"<|im_start|>user\n{DRAFTED}<|im_end|>\n<|im_start|>assistant\n{FENCED}",
    "an example in the prompt": f"system\nUse <think>\nx\n</think>\nassistant\n{FENCED}",
    "llama-cli": f"[Start thinking]\n{DRAFTED}\n[End thinking]\n\n{FENCED}\n[ Prompt: 9 t/s ]\n",
    "ollama": f"Thinking...\n{DRAFTED}\n...done thinking.\n\n{FENCED}\n",
    "gpt-oss": f"<|channel|>analysis<|message|>A\n{DRAFTED}\n<|end|><|start|>assistant"
    f"<|channel|>final<|message|>{FENCED}<|return|>",
    "Mistral": f"[THINK]A\n{DRAFTED}\n[/THINK]{FENCED}",
    "Kimi, Seed": f"◁think▷{DRAFTED}◁/think▷\n<seed:think>{DRAFTED}</seed:think>\n{FENCED}",
    "Gemma, Cohere": f"<|channel>thought\n{DRAFTED}\n<channel|>\n<|START_THINKING|>A\n"
    f"{DRAFTED}\n<|END_THINKING|>{FENCED}",
    "a snippet with an import": f"{FENCED}\nFaster:\n```python\nimport pygame\nfps = 90\n```",
    "an answer that begins lively": f"Okay, let's build it!\n{FENCED}\nLet me know if it runs.",
    "no fence": f"Plan.</think>\n\n{GAME} [end of text]\n",
}  # fmt: skip
# What holds a draft or nothing, or may be read in two ways: a part of the reason.
NOT_FOUND = {
    f"<think>\n{DRAFTED}": "never ends",
    f"user\nGo.\nassistant\n<think>\nA draft:\n{DRAFTED}\nHmm": "never ends",
    f"<|im_start|>assistant\n<think>\n{DRAFTED}<|im_end|>": "never ends",
    f"< thought >\n{DRAFTED}": "never ends",
    f"<|channel|>analysis<|message|>{DRAFTED}": "never ends",
    f"[THINK]{DRAFTED}": "never ends",
    f"◁think▷{DRAFTED}": "never ends",
    f"<seed:think>\n{DRAFTED}": "never ends",
    f"<|channel>thought\n{DRAFTED}": "never ends",
    f"<think>a</think>\n{DRAFTED}\n<think>\nBetter:": "never ends",
    f"<think>\nI shall write </think> when done.\n{DRAFTED}": "never ends",
    f"<think>\nIt ends with `</think>`.\n{DRAFTED}": "never ends",
    f"<think>\nI use:\n```\n<think>\n</think>\n```\n{DRAFTED}": "never ends",
    f"<think>\n{DRAFTED[:-3]}\n</think>\n\n```\n{GAME}```\n": "never ends",
    f"{DRAFTED}\nNow I write </think> and answer": "line 9 of the answer ends thinking or",
    f"Then a <think> comes.\n{DRAFTED}": "line 1 of the answer ends thinking or is a word",
    f"{DRAFTED}\n</think>\n\nThat is it.": "no program",
    f"{DRAFTED}\nThe final version:\n\n{GAME}": "outside the blocks",
    f"{DRAFTED[:-3]}\nNo:\n\n```\n{GAME}```": "outside the blocks",
    f"```python\n{GAME}\nHave fun with it!\n": "never closed",
    f"```python\n{GAME}\nRun it:\n```\npython game.py\n```\n": "can't be told: line 8",
    f"```\n{GAME}\nRun it:\n```\n": "can't be told: line 8",
    f"```markdown\n# Flappy\n{GAME}```\n": "as a whole",
    f"Here it is:\n\n{GAME}": "as a whole",
    f"Okay, so I need a game.\n\n{DRAFTED}": "'Okay, so I' reads like thinking, and no tag ends it",
    f"Here it is.\n\n{DRAFTED}\n\nWait, is the land": "'Wait' reads like thinking",
    f"user\nGo.\nassistant\n{FENCED}\nuser\nMore.\nassistant\n{FENCED}": "several turns",
    f"{GAME}\n```python\nGAP = 3\n```": "no block of the answer",
}


@pytest.mark.parametrize("name", FOUND)
def test_the_program_is_found_whatever_wraps_it(name: str) -> None:
    for text in (FOUND[name], FOUND[name].replace("\n", "\r\n")):
        found = extract_program(text)
        assert found.ok, found.detail
        assert found.program.strip() == GAME.strip()


@pytest.mark.parametrize("text", NOT_FOUND)
def test_what_can_not_be_told_fails_with_its_reason(text: str) -> None:
    found = extract_program(text)
    assert (found.ok, found.program) == (False, "")
    assert NOT_FOUND[text] in found.detail


@pytest.mark.parametrize("quotes", ['"""', "'''"])
def test_a_fence_in_a_docstring_closes_nothing(quotes: str) -> None:
    source = f"{quotes}Flap.\n```\npython flap.py\n```\n</think>\n<|im_end|>\n{quotes}\n{GAME}"
    assert extract_program(f"a</think>\n```python\n{source}```").program == source
    assert extract_program(source).program == source
    broken = f"```python\nx = {quotes}never ends\n```\n"  # its string hides no fence
    assert [block.source for block in find_blocks(broken + FENCED)][1] == GAME


# Scans that go back to the start of each line, fence or tag take minutes or hours on these.
LONG = {
    "empty lines": "```python\n" + "\n" * 40_000 + "```",
    "empty fences": "```\n```\n" * 35_000,
    "fences that never close": "```python\n" * 10_000,
    "wrappers": "```md\n" * 8_000 + "~~~\n" * 8_000,
    "strings that never end": "```\n\\'''\n```\n\"\"\"\n" * 4_000,
    "backticks": "`" * 50_000 + "x" * 200_000,
    "tags in a line": "<think> a </think> b" * 20_000,
    "end marks in a line": "<|im_end|> " * 20_000 + "x",
    "turns": "<|im_start|>user\n" * 20_000,
    "what is like timings": "llama_print" * 20_000,
    "blanks": "from" + " " * 200_000 + "\n" * 200_000,
}


@pytest.mark.parametrize("name", LONG)
def test_a_long_text_is_read_in_one_pass(name: str) -> None:
    assert not extract_program(LONG[name]).ok


# Any combination of these around a game gives the game, or nothing: never a draft, nor a part. One
# fence may be forgotten; a second can pair with the first, and then prose looks like the program.
SEED, FEW, MANY = 3407, 50, 20_000
GAMES = [
    GAME,
    GAME.replace("Flap.", "Flap.\n\n```\npython flap.py\n```\n"),
    GAME.replace("Flap.", "It thinks.\n</think>\n"),
    GAME.replace("screen", 'TAGS = "<think>", "</think>"\nscreen', 1),
    GAME.replace("screen", "# speaks of </think> and of <|im_end|>\nscreen", 1),
]
FENCES = [
    "```python\n{}```\n", "```\n{}```\n", "```py title='flap'\n{}\n```\n", "~~~python\n{}~~~\n",
    "````python\n{}````\n", "  ```python\n{}  ```\n", "{}",
]  # fmt: skip
AROUND = [
    "{}", "{}", "Here it is:\n\n{}\nEnjoy!\n", "```bash\npip install pygame\n```\n\n{}",
    "{}\nRun it:\n```\npython game.py\n```\n", "{}\n```python\nGAP = 200\n```\n",
    f"A first version:\n{DRAFTED}\n\nThe final one:\n\n{{}}", "```markdown\n# Flappy\n\n{}```\n",
    "````\n{}````\n", "~~~md\n{}~~~\n", "{}\nNote: `</think>` ended it.\n",
    '{}\nNote: "<think>" began it.\n', "{}\nAll before </think> was thought.\n",
    "```python\nx = '''DRAFT\n```\n\n{}",
]  # fmt: skip
NOTES = ["", "", "\nEnjoy!\n", "\nRun it:\n```\npython game.py\n```\n", "```bash\nls\n```\n"]
FORGOTTEN = [f"{DRAFTED[:-3]}\nNo, better:\n\n{{}}", "```bash\npip install\n{}", "````md\n{}"]
THOUGHTS = [
    "", "", "Hm.\n</think>\n\n", "<think>\nHm.\n</think>\n\n", f"<think>\n{DRAFTED}\n</think>\n",
    f"<think>\n{DRAFTED[:-3]}\n</think>\n", f"{DRAFTED}\nFine.</think>", "<think> Hm. </think>\n",
    f"<think>\nI end with `</think>`.\n{DRAFTED}\n</think>\n", f"<think>a</think>\n{DRAFTED}\n"
    "<think>b</think>\n", f"Thinking...\n{DRAFTED}\n...done thinking.\n\n",
    f"[Start thinking]\n{DRAFTED}\n[End thinking]\n\n",
    f"<think>\n{DRAFTED}\nI end it with </think> then.\n</think>\n",
]  # fmt: skip
ECHOES = [
    "", "", "user\nFlappy, please.\nassistant\n",
    "<|im_start|>system\nThink in <think>\n</think>\n<|im_end|>\n<|im_start|>user\nGo<|im_end|>\n"
    "<|im_start|>assistant\n",
]  # fmt: skip
ENDS = [
    "", "", " [end of text]\n\n", "<|im_end|>", "<|endoftext|>\n", "\n</s>", "<|im_end|>\n"
    f"<|im_start|>user\nMore!<|im_end|>\n<|im_start|>assistant\n{DRAFTED}",
    " [end of text]\n\ncommon_perf_print:  eval time =  1 ms / 2 tokens\n",
]  # fmt: skip


def wrap(dice: random.Random) -> tuple[str, str]:
    """Return a game and a transcript that holds it."""
    game = dice.choice(GAMES)
    text = dice.choice(FENCES).replace("{}", game)
    for _ in range(dice.randint(0, 3)):
        text = dice.choice(AROUND).replace("{}", text)
    if dice.random() < 0.2:
        text = dice.choice(FORGOTTEN).replace("{}", text)
    elif dice.random() < 0.1:
        text = f"```python\n{game}{dice.choice(NOTES)}"
    text = dice.choice(THOUGHTS) + text.rstrip("\n") + dice.choice(ENDS)
    text = dice.choice(ECHOES) + text
    return game, text.replace("\n", "\r\n") if dice.random() < 0.1 else text


@pytest.mark.parametrize("n", [FEW, pytest.param(MANY, marks=pytest.mark.nightly)])
def test_a_wrapped_game_is_found_whole_or_not_at_all(n: int) -> None:
    print(f"seed {SEED}, {n} transcripts")
    dice, found = random.Random(SEED), 0
    for _ in range(n):
        game, text = wrap(dice)
        program = extract_program(text).program
        assert program.strip() in ("", game.strip()), text
        found += bool(program)
    print(f"{found} found")
    assert found > n / 2
