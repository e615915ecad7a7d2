"""Loop detectors, scored on the long runs of a store of the experiment.

    python benchmarks/detectors.py build/runs/reproduce-full.sqlite [--json OUT]

Which run loops is told by a rule that none of the detectors uses: how well its end compresses. Its
last 1,200 characters, numbers as one sign, shrink in a loop to less than a seventh, and in a text
that goes on to more than a quarter. What is between is left out, and counted. Prints precision,
recall, and the tokens until the alarm, from the token at which the loop begins.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from qwqlab.experiments import RunStore
from qwqlab.experiments.loops import find_loop
from qwqlab.sampling import Engine, Run

END = 1200  # characters that are judged
LOOPS, GOES_ON = 1 / 7, 1 / 4  # what they shrink to
EVERY = 16  # tokens between two looks
Detector = Callable[[Sequence[int], Sequence[str]], int | None]
"""Gives the tokens at which it raises the alarm, or None; takes tokens and their texts."""


def main() -> None:
    """Score each detector and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--model", default="smollm2-135m", help="whose tokens they are")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with RunStore(args.store) as store, Engine(args.model) as engine:
        runs = [kept.run for kept in store.runs() if kept.label.endswith("| long")]
        labels = [tell(run.text) for run in runs]
        judged = [
            (run, label) for run, label in zip(runs, labels, strict=True) if label is not None
        ]
        pieces = [read_pieces(run, engine) for run, _ in judged]
    loops = sum(label for _, label in judged)
    print(f"{len(runs)} long runs: {loops} loop, {len(judged) - loops} do not, "
          f"{len(runs) - len(judged)} can't be told")  # fmt: skip
    rows = {}
    for name, detector in DETECTORS.items():
        rows[name] = score(detector, judged, pieces)
        print(f"{name:34} {show(rows[name])}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def show(row: dict[str, float]) -> str:
    """Return a row in words."""
    return (
        f"precision {row['precision']:.3f}, recall {row['recall']:.3f}, alarm {row['median']:.0f} "
        f"tokens into the loop (middle half {row['low']:.0f} to {row['high']:.0f})"
    )


def tell(text: str) -> bool | None:
    """Return whether a text loops at its end, by how well that compresses; None: between."""
    end = re.sub(r"\d+", "0", text[-END:])
    if len(end) < END / 2:
        return False
    packed = len(zlib.compress(end.encode(), 9)) / len(end.encode())
    return True if packed < LOOPS else False if packed > GOES_ON else None


def read_pieces(run: Run, engine: Engine) -> list[str]:
    """Return the text of each token."""
    return [engine.model.piece(token).decode("utf-8", "replace") for token in run.tokens]


def score(
    detector: Detector, judged: Sequence[tuple[Run, bool]], pieces: Sequence[list[str]]
) -> dict[str, float]:
    """Return a detector's precision, recall, and how long its right alarms took."""
    right = wrong = 0
    delays = []
    for (run, label), texts in zip(judged, pieces, strict=True):
        alarm = detector(run.tokens, texts)
        if alarm is None:
            continue
        right, wrong = right + label, wrong + (not label)
        loop = find_loop(run.tokens) or find_loop(run.text)
        if label and loop is not None:
            start = loop.start if find_loop(run.tokens) else 0
            delays.append(max(0, alarm - start))
    n_loops = sum(label for _, label in judged)
    low, median, high = statistics.quantiles(delays, n=4) if len(delays) > 1 else [float("nan")] * 3
    return {
        "right": right,
        "wrong": wrong,
        "loops": n_loops,
        "precision": right / max(1, right + wrong),
        "recall": right / max(1, n_loops),
        "low": low,
        "median": median,
        "high": high,
    }


def looks(tokens: Sequence[int]) -> Iterator[int]:
    """Yield the numbers of tokens after which a detector looks."""
    return iter(range(EVERY, len(tokens) + 1, EVERY))


def by_alignment(tokens: Sequence[int], _: Sequence[str]) -> int | None:
    """The lab's own rule, on tokens."""
    return next((n for n in looks(tokens) if find_loop(tokens[:n])), None)


def by_copies(tokens: Sequence[int], _: Sequence[str]) -> int | None:
    """Exact copies at the end: vLLM's repetition detection (#31690), with the numbers of #52673:
    three copies of 4 to 128 tokens."""
    for n in looks(tokens):
        tail = tokens[:n]
        for period in range(4, min(128, n // 3) + 1):
            if tail[-period:] == tail[-2 * period : -period] == tail[-3 * period : -2 * period]:
                return n
    return None


def by_segments(window: int) -> Detector:
    """Return the rule of llama.cpp's draft for thinking models (PR #22007): a line or sentence of
    20 characters or more that is one of the last ones."""

    def detect(tokens: Sequence[int], texts: Sequence[str]) -> int | None:
        past: list[str] = []
        segment = ""
        for n, text in enumerate(texts, 1):
            for letter in text:
                segment += letter
                if letter in "\n.!?:":
                    whole, segment = segment.strip(), ""
                    if len(whole) >= 20:
                        if whole in past[-window:]:
                            return n
                        past.append(whole)
        return None

    return detect


DETECTORS: dict[str, Detector] = {
    "alignment (the lab's)": by_alignment,
    "three exact copies (vLLM)": by_copies,
    "a segment again, of the last 4": by_segments(4),
    "a segment again, of the last 16": by_segments(16),
    "a segment again, of the last 64": by_segments(64),
}


if __name__ == "__main__":
    main()
