"""Changed copies of files: bytes flipped, cut, repeated and replaced, and values of JSON documents exchanged."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np

TOKENS = [
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1", b"0", b"1e308", b"9" * 40, b"null", b"true", b"{}",
    b"[]", b'""',
    b'"\\ud800"', b'"\\u0000"', b'"\\u001b[31m"', b'"road[/]"', b"[" * 60, b'{"a":' * 60, b"\xff\xfe", b"\x00" * 8,
    b"\xff" * 8, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", b"..", b"/",
    b"cos\nsystem\n", b"cbuiltins\neval\n",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, -1, 0, 1, 300, 10**6, 10**12, 10**40, 0.5, -0.5, 1e308, "", "a\nb", "road[/]", "\x1b[2J", "\ud800abc",
    "x" * 100_000, [], {}, [[[[]]]], ["a"], {"a": 1}, ["road", "road"], [300, 0, 0],
]  # fmt: skip
"""What a value of a document is exchanged for."""

Mutation = Callable[[bytes, np.random.Generator], bytes]


def flip(content: bytes, rng: np.random.Generator) -> bytes:
    """One to four bits the other way."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        changed[rng.integers(len(changed))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def cut(content: bytes, rng: np.random.Generator) -> bytes:
    """Without its end."""
    return content[: rng.integers(len(content))]


def drop(content: bytes, rng: np.random.Generator) -> bytes:
    """Without a piece of its middle."""
    start = rng.integers(len(content))
    return content[:start] + content[start + rng.integers(1, 65) :]


def repeat(content: bytes, rng: np.random.Generator) -> bytes:
    """With a piece twice."""
    start = rng.integers(len(content))
    end = start + rng.integers(1, 257)
    return content[:end] + content[start:end] + content[end:]


def replace(content: bytes, rng: np.random.Generator) -> bytes:
    """With a hostile token in the place of some bytes, or between two of them."""
    token, start = TOKENS[rng.integers(len(TOKENS))], int(rng.integers(len(content)))
    return content[:start] + token + content[start + int(rng.integers(0, len(token) + 1)) :]


def exchange(content: bytes, rng: np.random.Generator) -> bytes:
    """A JSON document with one value, or one key, exchanged; `replace` where it is none."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return replace(content, rng)
    places = list(_places(document))
    if not places:
        return replace(content, rng)
    holder, key = places[rng.integers(len(places))]
    action = rng.integers(10)
    if action == 0:
        del holder[key]
    elif action == 1 and isinstance(holder, dict):
        holder[str(VALUES[rng.integers(len(VALUES))])] = holder.pop(key)
    else:
        holder[key] = VALUES[rng.integers(len(VALUES))]
    return json.dumps(document).encode("utf-8", "surrogatepass")


def _places(value: Any) -> Any:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield value, key
        yield from _places(entry)


BYTES: tuple[Mutation, ...] = (flip, cut, drop, repeat, replace)
DOCUMENTS: tuple[Mutation, ...] = (*BYTES, exchange, exchange, exchange, exchange)


def mutated(content: bytes, rng: np.random.Generator, choices: tuple[Mutation, ...]) -> bytes:
    """`content` after one to three mutations."""
    for _ in range(rng.integers(1, 4)):
        if not content:
            break
        content = choices[rng.integers(len(choices))](content, rng)
    return content
