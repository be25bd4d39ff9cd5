"""The Chinese catalogue of the server's texts, web/js/otcache/messages_zh.mjs, has what Python code says and nothing else."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CATALOGUE = ROOT / "web" / "js" / "otcache" / "messages_zh.mjs"
HOST = ROOT / "nodes" / "host"
PLACE = "\0"
PRESETS = ROOT / "otcache_core" / "schedules" / "presets" / "published.json"
# Whatever reads like a sentence in these reaches a strip, a note or a progress line.
SPEAKERS = [
    *(HOST / f"{name}.py" for name in (
        "answers", "auto", "between_blocks", "block_passes", "blocks", "known", "lesson", "progress", "run", "suitability",
        "understanding",
    )),
    ROOT / "nodes" / "made_with.py",
    ROOT / "otcache_core" / "sampling" / "rehearsal.py",
    ROOT / "otcache_core" / "schedules" / "following.py",
]  # fmt: skip


def templates() -> list[str]:
    text = CATALOGUE.read_text(encoding="utf-8")
    return list(json.loads(text[text.index("= {") + 2 : text.rindex("}") + 1]))


def texts(path: Path) -> list[str]:
    """The strings of a module, what is put into them as PLACE; without docstrings and what goes to the log."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = {
        target.id: node.value.value
        for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets if isinstance(node.value.value, str) and isinstance(target, ast.Name)
    }  # fmt: skip
    left_out, found = set(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            left_out.add(node.value)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith("logging."):
            left_out.update(ast.walk(node))
        elif isinstance(node, ast.JoinedStr):
            left_out.update(part for part in node.values if isinstance(part, ast.Constant))
            left_out.update(part for value in node.values if isinstance(value, ast.FormattedValue) and value.format_spec
                            for part in ast.walk(value.format_spec))  # fmt: skip
    for node in ast.walk(tree):
        if node in left_out:
            continue
        if isinstance(node, ast.JoinedStr):
            said = [part.value for part in node.values]
            found.append("".join(part if isinstance(part, str) else named.get(ast.unparse(part), PLACE) for part in said))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(re.sub(r"\{[\w:.]*\}", PLACE, node.value))
    return found


def bare(text: str) -> str:
    """A text as it is compared: within a sentence, without its full stop."""
    return re.sub(r"\(s\)|\{\w+\}", PLACE, text).strip().rstrip(".").lower()


def fixed(text: str) -> list[str]:
    """The parts of a text that are always the same."""
    return [part.strip(" ,:;.") for part in bare(text).split(PLACE) if len(part.strip(" ,:;.")) > 1]


def makes(source: str, template: str) -> bool:
    """Whether a string of the code can become what `template` stands for; not one that could become anything."""
    pattern = ".*".join(map(re.escape, bare(source).split(PLACE)))
    return len("".join(fixed(source))) > 12 and re.fullmatch(pattern, bare(template), re.DOTALL) is not None


SOURCES = {path: texts(path) for folder in ("nodes", "otcache_core") for path in sorted((ROOT / folder).rglob("*.py"))}
SOURCES[PRESETS] = PRESETS.read_text(encoding="utf-8").splitlines()
SAID = {path: "\n".join(map(bare, found)) for path, found in SOURCES.items()}


def is_said(template: str, path: Path) -> bool:
    """Whether a module has all parts of a template, or puts them together from others that it has."""
    words = re.findall(r"\w+", " ".join(fixed(template)))
    put_together = all(word in SAID[path] for word in words) and any(makes(source, template) for source in SOURCES[path])
    return put_together or all(part in SAID[path] for part in fixed(template))


@pytest.mark.parametrize("template", templates())
def test_the_code_says_what_the_catalogue_translates(template):
    assert any(is_said(template, path) for path in SOURCES), "no module says this any more: mend or remove it"


@pytest.mark.parametrize("path", SPEAKERS, ids=lambda path: path.name)
def test_the_catalogue_translates_what_strips_and_progress_say(path):
    known = templates()
    sentences = [text for text in SOURCES[path] if len(text.split()) > 3]
    unknown = [
        text for text in sentences
        if not any(makes(text, one) or bare(text) in bare(one) or (len(one) > 12 and bare(one) in bare(text)) for one in known)
    ]  # fmt: skip
    assert not unknown, "translate in web/js/otcache/messages_zh.mjs: " + "\n".join(unknown)


def test_a_text_that_is_gone_or_new_is_noticed(tmp_path):
    module = tmp_path / "module.py"
    module.write_text('"""Text."""\nA = "some"\nlogging.info("to the log")\nsay(f"{A} of {n:.2f} apples{why}", "{} are")')
    source = "some of \0 apples\0"
    assert sorted(texts(module)) == ["\0 are", "some", source]
    assert fixed("{n} pear(s) fell: {WHY}; why") == ["pear", "fell", "why"]
    assert makes(source, "some of {n} apples, since {WHY}") and not makes(source, "some of {n} melons")
    assert not any(is_said("some of {n} melons", path) for path in SOURCES)
