"""What two pictures were made with, read from the prompt that is being run."""

SEEDS = ("seed", "noise_seed")
SETTINGS = ("steps", "cfg", "sampler_name", "scheduler", "denoise")


def differing(prompt: dict | None, node: str | None, first: str, second: str) -> tuple[str, str]:
    """In which seeds, and in which settings, the pictures at the inputs `first` and `second` of `node` differ, or "".

    prompt: node id -> {"inputs": {name: value or [node id, output]}}; None where nobody knows it. All nodes that an input
    depends on are looked at, so that what both share tells nothing.
    """
    inputs = (prompt or {}).get(node, {}).get("inputs", {})
    a, b = (_made_with(prompt, inputs.get(name)) for name in (first, second))
    seeds, others = (a.pop("seed", set()), b.pop("seed", set())), sorted(a.keys() | b.keys())
    apart = all(seeds) and not seeds[0] & seeds[1]
    settings = [_values(name, a[name], b[name]) for name in others if name in a and name in b and a[name] != b[name]]
    return (
        f"Two different pictures, whatever the cache does: {_values('seed', *seeds)}." if apart else "",
        f"Made with other settings: {'; '.join(settings)}." if settings else "",
    )


def _made_with(prompt: dict, link) -> dict[str, set[str]]:
    """Setting -> values, over all nodes that `link` depends on."""
    found, seen, left = {}, set(), [link]
    while left:
        link = left.pop()
        if not _is_link(prompt, link) or link[0] in seen:
            continue
        seen.add(link[0])
        for name, value in prompt[link[0]].get("inputs", {}).items():
            left.append(value)
            if name in SEEDS or name in SETTINGS:
                found.setdefault("seed" if name in SEEDS else name, set()).add(_value(prompt, value))
    return found


def _is_link(prompt: dict, value) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and value[0] in prompt


def _value(prompt: dict, value) -> str:
    """A value as text; of a linked one that of the primitive node it comes from."""
    while _is_link(prompt, value) and "value" in prompt[value[0]].get("inputs", {}):
        value = prompt[value[0]]["inputs"]["value"]
    return str(value)


def _values(name: str, a: set[str], b: set[str]) -> str:
    return f"{name} {' and '.join(sorted(a))} against {' and '.join(sorted(b))}"
