"""The exercises of 04_flappy_bird."""

from __future__ import annotations

from ...grader import STAGES, extract_program, grade_text
from ...sampling import find_blocks
from ..exercise import exercise, expect


@exercise(
    "predict",
    solution='stage = "names"',
    after="""
        `scroe` is bound nowhere in the program, and a pass over the whole of it finds that before
        it runs. Whether the line is ever reached when it runs is luck.
    """,
    wrong=[
        ('stage = "parse"', "valid Python"),
        ('stage = "run"', "only when that line is reached"),
        ('stage = "imports"', "nothing is imported"),
        ('stage = "lint"', "no stage"),
    ],
)
def stage_of_a_misspelling(stage: str) -> None:
    """
    A game has one fault: where a pipe is passed it says `score = scroe + 1`. The grader's stages
    are `extract`, `parse`, `names`, `imports` and `run`, in this order. At which of them does it
    stop? Answer before you read on.
    """
    expect(stage in STAGES, f"{stage!r} is no stage: they are {', '.join(STAGES)}")
    expect(stage != "parse", "a misspelt name is valid Python: it parses")
    expect(stage != "extract", "the program is found; what is in it is another question")
    expect(stage != "imports", "nothing is imported by that line")
    hint = "it would raise there only when that line is reached; an earlier stage need not wait"
    expect(stage == "names", hint)


@exercise(
    "change",
    solution="""
        source = (specimens / "complete.py").read_text()
        mine = source.replace("right=WIDTH - 10", "right=120")
    """,
    after="The score may stand on the wrong side, or never grow.",
    wrong=[
        ('mine = (specimens / "complete.py").read_text()', "it misses none"),
        ('mine = (specimens / "complete.py").read_text() + "("', "the stage parse fails"),
        (
            'mine = (specimens / "complete.py").read_text().replace("K_SPACE", "K_TAB")',
            "it misses",
        ),
    ],
)
def one_requirement(mine: str, level: str) -> None:
    """
    Change the complete game so that it misses requirement 6 and nothing else:
    `(specimens / "complete.py").read_text()` is its source, and `source.replace(old, new)` changes
    a line of it. The check plays it. (5 s)
    """
    grade = grade_text(mine, is_program=True, minimum=level)
    expect(all(stage.ok for stage in grade.stages), f"it fails earlier: {grade.reason}")
    missed = [each.number for each in grade.requirements if not each.ok]
    shown = ", ".join(map(str, missed)) or "none"
    expect(missed == [6], f"it misses {shown} of the requirements: where is the score drawn?")


@exercise(
    "build",
    solution="""
        game = (specimens / "complete.py").read_text()
        draft = "```python\\nimport pygame\\npipes.clear()\\n```"
        transcript = f"<think>\\nA draft:\\n{draft}\\n</think>\\n\\n```python\\n{game}```\\n"
    """,
    after="""
        Reasoning models write drafts while they think. A grader that takes the first fenced block
        judges a draft that the model itself has dropped.
    """,
    wrong=[
        ('transcript = (specimens / "complete.py").read_text()', "no fenced block"),
        (
            "transcript = '```python\\n' + (specimens / 'complete.py').read_text() + '```'",
            "has one block",
        ),
        (
            "transcript = '<think>```python\\nimport pygame\\n```'",
            "the thinking never ends",
        ),
        (
            "transcript = '```python\\nimport pygame\\n```\\n```python\\nimport os\\n```\\n'",
            "is not the complete game",
        ),
    ],
)
def misleading_answer(transcript: str, complete_source: str) -> None:
    """
    Build an answer, as a model would write it, by which a grader that takes the *first* fenced
    block is misled, and this one is not: `transcript` holds thinking with a draft in it, then the
    complete game (`complete_source`), each in a fence of its own.
    """
    blocks = list(find_blocks(transcript))
    expect(bool(blocks), "there is no fenced block in it: ```python, the program, ```")
    found = extract_program(transcript)
    expect(found.ok, found.detail)
    expect(len(blocks) > 1, "it has one block, and the first is the last: where is the draft?")
    same = found.program.strip() == complete_source.strip()
    expect(same, f"what is found ({found.detail}) is not the complete game")
    hint = "the first block is the game itself, so nobody is misled"
    expect(blocks[0].source.strip() != complete_source.strip(), hint)
    hint = "the draft belongs into the thinking: <think>, the draft, </think>, the game"
    expect("</think>" in transcript, hint)
