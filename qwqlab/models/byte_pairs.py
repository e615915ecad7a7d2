"""Byte-pair encoding by its definition: ranks read from a file, merges recovered from them.

A token's id is its rank, and the merge that makes it is the last step of encoding its own bytes
with the ranks below it. Sennrich et al., 2016 (arXiv:1508.07909), on bytes as in GPT-2.
"""

from __future__ import annotations

import base64
from functools import cache
from itertools import pairwise
from pathlib import Path

from .. import catalog, hashes, paths
from ..errors import FetchError, ModelFileError


def read_ranks(path: Path | None = None) -> dict[bytes, int]:
    """The bytes of each of the 151,643 tokens, with its rank. FetchError if they are not here."""
    path = path or paths.models_dir() / catalog.QWQ_RANKS.filename
    if not path.is_file() or hashes.sha256_of(path) != catalog.QWQ_RANKS.sha256:
        raise FetchError(
            f"The ranks of QwQ-32B's vocabulary are not at {path}; `qwqlab fetch "
            f"{catalog.QWQ_RANKS.name}` brings them (3 MB)."
        )
    lines = (line.split() for line in path.read_bytes().splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def merge(token: bytes, ranks: dict[bytes, int], below: int | None = None) -> list[bytes]:
    """Byte pairs joined, the lowest rank first, as long as one has a rank (lower than `below`).

    This is the definition of the encoding, as slow as it is short.

    >>> merge(b"abab", {b"ab": 1, b"abab": 2}), merge(b"abab", {b"ab": 1, b"abab": 2}, below=2)
    ([b'abab'], [b'ab', b'ab'])
    """
    limit = len(ranks) + 256 if below is None else below
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 1:
        pairs = [a + b for a, b in pairwise(parts)]
        rank, at = min((ranks.get(pair, limit), place) for place, pair in enumerate(pairs))
        if rank >= limit:
            break
        parts[at : at + 2] = [pairs[at]]
    return parts


def recover_merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The pair that makes each token of more than one byte, in the order of the ranks.

    >>> recover_merges({b"a": 0, b"b": 1, b"ab": 2, b"abab": 3})
    [(b'a', b'b'), (b'ab', b'ab')]
    """
    pairs = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            parts = merge(token, ranks, below=rank)
            if len(parts) != 2:
                raise ModelFileError(f"no two tokens of lower rank make {token!r}; fetch it again")
            pairs.append((parts[0], parts[1]))
    return pairs


@cache
def byte_letters() -> tuple[str, ...]:
    """GPT-2's letter for each byte: printable ones stand for themselves, the others from U+0100 on.

    >>> byte_letters()[ord("A")], byte_letters()[ord(" ")]
    ('A', 'Ġ')
    """
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return tuple(chr(byte) if byte in plain else chr(next(others)) for byte in range(256))


def spell(token: bytes) -> str:
    """A token's bytes in those letters, as vocabulary files write it.

    >>> spell(" é".encode())
    'ĠÃ©'
    """
    letters = byte_letters()
    return "".join(letters[byte] for byte in token)
