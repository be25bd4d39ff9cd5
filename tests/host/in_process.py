"""Boots ComfyUI inside the test process, on the CPU if not told otherwise, the way its main.py does."""

import asyncio
import importlib
import inspect
import sys
from pathlib import Path

# Worker threads of the executor do not exist here: one loop for everything asynchronous in the nodes.
_loop = asyncio.new_event_loop()


def boot(path: Path, repository: Path, base: Path, cpu: bool = True) -> "Host":
    """ComfyUI of the folder `path`, writing under `base` only, with core nodes and the pack in `repository`.

    cpu: whatever GPU there is; else the one that ComfyUI finds.
    """
    for folder in ("input", "output", "temp", "user", "custom_nodes", "models"):
        (base / folder).mkdir()
    sys.path.insert(0, str(path))
    from comfy.cli_args import args  # does not read sys.argv unless comfy.options says so

    args.cpu, args.base_directory, args.disable_api_nodes = cpu, str(base), True
    asyncio.set_event_loop(_loop)
    # Before nodes, as in main.py: nodes puts ComfyUI's comfy/ on the path, and comfy/utils.py would stand for this package.
    import utils.extra_config  # noqa: F401  isort: skip
    import nodes
    import server

    assert Path(nodes.__file__).parent == path, f"imported nodes from {nodes.__file__}, not from ComfyUI"
    server.PromptServer(_loop)
    _interrupt_at_every_step()
    failed = _loop.run_until_complete(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
    assert "nodes_easycache.py" not in failed, f"ComfyUI could not load its own {failed}"
    before = set(sys.modules)
    assert _loop.run_until_complete(nodes.load_custom_node(str(repository))), "ComfyUI could not load the pack; see the log"
    added = set(sys.modules) - before
    name = next(name for name in added if name == str(repository).replace(".", "_x_"))
    return Host(nodes.NODE_CLASS_MAPPINGS, sys.modules[name], added)


def _interrupt_at_every_step() -> None:
    # main.py does this with its progress hook, and ComfyUI 0.3 looks nowhere else while it samples.
    import comfy.model_management
    import comfy.utils

    def hook(*_args, **_kwargs):
        comfy.model_management.throw_exception_if_processing_interrupted()

    comfy.utils.set_progress_bar_global_hook(hook)


class Host:
    """classes: node id -> class, core's and the pack's. pack: the loaded package, under the name that ComfyUI gave it.

    added_modules: what it imported that was not there before.
    """

    def __init__(self, classes: dict, pack, added_modules: set[str]):
        self.classes, self.pack, self.added_modules = classes, pack, added_modules

    def module(self, name: str):
        """A module of the pack, such as "nodes.compare" or "otcache_core.errors": the very one that the nodes use."""
        return importlib.import_module(f"{self.pack.__name__}.{name}")

    def run(self, node_id: str, **inputs) -> tuple:
        """The outputs of one node, run as ComfyUI's executor runs it; widgets left out have their default, as in the UI.

        For nodes that take lists every value becomes a list of one, but a tuple a list of its items.
        """
        return self.run_with_ui(node_id, **inputs)[0]

    def run_with_ui(self, node_id: str, **inputs) -> tuple[tuple, dict]:
        """(outputs, what the node shows in the UI)."""
        import torch

        cls = self.classes[node_id]
        inputs = self.defaults(node_id) | inputs
        if getattr(cls, "INPUT_IS_LIST", False):
            inputs = {name: list(value) if isinstance(value, tuple) else [value] for name, value in inputs.items()}
        with torch.inference_mode():
            if hasattr(cls, "GET_SCHEMA"):
                from comfy_api.latest import io

                cls.VALIDATE_CLASS()
                hidden = {io.Hidden.unique_id: "1"}
                function = getattr(cls.PREPARE_CLASS_CLONE({"hidden_inputs": hidden}), cls.FUNCTION)
            else:
                function = getattr(cls(), cls.FUNCTION)
            result = function(**inputs)
            if inspect.iscoroutine(result):
                result = _loop.run_until_complete(result)
        if hasattr(cls, "GET_SCHEMA"):
            shown = result.ui or {}
            return tuple(result.result or ()), shown if isinstance(shown, dict) else shown.as_dict()
        if isinstance(result, dict):
            return tuple(result.get("result", ())), result.get("ui", {})
        return tuple(result), {}

    def defaults(self, node_id: str) -> dict:
        """Widget values that a freshly placed node has; inputs without one (links) are left out."""
        values = {}
        types = self.classes[node_id].INPUT_TYPES()
        for name, (kind, *options) in (types.get("required", {}) | types.get("optional", {})).items():
            options = options[0] if options else {}
            choices = kind if isinstance(kind, list) else options.get("options")
            if "default" in options:
                values[name] = options["default"]
            elif choices:
                values[name] = choices[0]
        return values
