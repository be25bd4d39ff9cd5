"""Damaged and hostile variants of good files: bit flips, cuts, huge numbers, deep nesting, NaN, wrong types, giant arrays."""

import copy
import json
import random
import struct

JUNK = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**64), 10**40, 1e308, -1e308, 1e-320, float("nan"), float("inf"),
    float("-inf"), "", "1", "x" * 5000, "../../etc/passwd", "\0", "\x1b[2J\n", "\ud800", [], {}, [[]], [None], [[1.0]],
    {"": {}}, [0] * 20_000,
)  # fmt: skip
VERSIONS = (0, 2, 99, -1, "1", 1.5, None, [1])


def flipped(data: bytes, chance: random.Random) -> bytes:
    """Some bits changed, some bytes lost, doubled or swapped for others, or the end cut off."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at, kind = chance.randrange(len(changed)), chance.randrange(5)
        if kind == 0:
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del changed[at : at + chance.choice((1, 4, 100))]
        elif kind == 2:
            changed[at:at] = changed[at : at + chance.choice((1, 8, 500))]
        elif kind == 3:
            changed[at] = chance.choice(b'\0\xff{}[]",:-9eE.\\')
        else:
            del changed[at:]
        if not changed:
            return b""
    return bytes(changed)


def places(value, path=()):
    """The path to everything in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def misshapen(value, chance: random.Random):
    """A copy of a JSON value with something in it replaced, lost, added or put elsewhere."""
    value = copy.deepcopy(value)
    path = chance.choice([path for path in places(value) if path])
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    kind, key = chance.randrange(5), path[-1]
    if "version" in path and kind < 3:
        inner[key] = chance.choice(VERSIONS)
    elif kind == 0:
        del inner[key]
    elif kind == 1 and isinstance(inner, dict):
        inner[chance.choice(("extra", "", "__class__", "x" * 1000))] = chance.choice(JUNK)
    elif kind == 2:
        inner[key] = nested(inner[key], chance.choice((1, 3, 60)))
    else:
        inner[key] = chance.choice(JUNK)
    return value


def nested(value, depth: int):
    for _ in range(depth):
        value = [value]
    return value


def doubled(text: str, chance: random.Random) -> str:
    """JSON text in which one name stands twice, with another value first."""
    value = json.loads(text)
    name = chance.choice(sorted(value))
    return f'{{{json.dumps(name)}: {json.dumps(chance.choice(JUNK))}, {text.lstrip().removeprefix("{")}'


GIANTS = (
    f'{{"sigmas": [{"0," * 3_000_000}0], "compute_steps": [0]}}', f'{{"sigmas": [{"0," * 290_000}0], "compute_steps": [0]}}',
    f'{{"prepared": [{"{}," * 290_000}{{}}]}}', f'{{"weights": [{"[0]," * 290_000}[0]]}}', f'{{"cases": [{"0," * 290_000}""]}}',
    "{" + "".join(f'"{n}": 0, ' for n in range(50_000)) + '"a": 0}', "[" * 5_000_000, '{"prepared":' * 50_000, "", "null",
    f'{{"name": "{"a" * 9_000_000}"}}', f'{{"version": {"9" * 1_000_000}}}', '{"sigmas": 1' + " " * 17_000_000 + "}",
)  # fmt: skip


def of_json(text: str, count: int) -> list[bytes]:
    """`count` variants of a JSON file, the same ones each time."""
    chance = random.Random(7)
    found = [giant.encode() for giant in GIANTS]
    while len(found) < count:
        kind = len(found) % 4
        if kind < 2:
            found.append(json.dumps(misshapen(json.loads(text), chance)).encode())
        else:
            found.append(flipped(text.encode(), chance) if kind == 2 else doubled(text, chance).encode())
    return found


def of_safetensors(data: bytes, entry: str, count: int) -> list[bytes]:
    """`count` variants of a safetensors file whose metadata has JSON under `entry`, the same ones each time."""
    chance, found = random.Random(8), []
    length = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    described = header["__metadata__"][entry]

    def packed(header, body=body) -> bytes:
        raw = json.dumps(header).encode()
        return struct.pack("<Q", len(raw)) + raw + body

    for giant in GIANTS:
        found.append(packed(header | {"__metadata__": {entry: giant[:7_000_000]}}))
    found.append(packed({f"{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(120_000)}, b""))
    found.append(packed({"__metadata__": {f"{n}": "" for n in range(400_000)}}, b""))
    while len(found) < count:
        kind = len(found) % 5
        if kind == 0:
            found.append(flipped(data, chance))
        elif kind == 1:
            found.append(packed(misshapen(header, chance)))
        elif kind == 2:
            changed = json.dumps(misshapen(json.loads(described), chance))
            found.append(packed(header | {"__metadata__": {entry: changed}}))
        elif kind == 3:
            changed = bytearray(body)
            for _ in range(chance.choice((1, 4))):
                at = chance.randrange(len(changed) // 4) * 4
                changed[at : at + 4] = struct.pack("<f", chance.choice((float("nan"), float("inf"), -1e38, -1.0, 0.0, 1e30)))
            found.append(packed(header, bytes(changed)))
        else:
            found.append(flipped(data[: 8 + length], chance) + body)
    return found
