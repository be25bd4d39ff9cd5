"""What a model or a setting is, told from every other one: hashes of descriptions that do not depend on what is loaded.

Of a weight a short run of elements is read, wherever it lies: never a whole one. What cannot be read, such as the state
behind compiled code, counts by its type.
"""

import collections
import enum
import functools
import hashlib
import types
from typing import Any

import comfy.model_patcher
import numpy as np
import torch

from .attach import without_cache
from .weight_samples import named_tensors, own_weights, tensor_words, weight_words

WHOLE = 2**18  # elements of a tensor other than a weight that are read, spread over it
DEPTH = 6  # of objects in objects
PASSING = ("training", "seed_key", "device")  # attributes of modules that loading and sampling set


def model_fingerprint(patcher) -> str:
    """24 hexadecimal digits: equal for a ModelPatcher that computes the same, in this process and others.

    Weights, patches, objects put in place of the model's own, options, wrappers and hooks count; a cache of ours, the device
    and whether the model is loaded do not.
    """
    return fingerprint(without_cache(patcher))


def fingerprint(*values: Any) -> str:
    """24 hexadecimal digits that are equal for equal values: nested data, tensors, functions, models and other objects."""
    return hashlib.sha256(repr(Reader().read(list(values), 0)).encode()).hexdigest()[:24]


class Reader:
    """Turns values into nested lists of words. What is being read is remembered, as it may hold itself."""

    def __init__(self):
        self._open: set[int] = set()
        self._own: set[int] = set()  # modules of the models that are read: closures that hold them say nothing new
        self._known: dict[int, tuple[Any, Any]] = {}  # what is read once; kept alive, so that its id stays its own
        self._patches: list[torch.Tensor] | None = None  # while weight patches are read: their tensors

    def read(self, value: Any, depth: int) -> Any:
        """`value` as words, `depth` objects below what was asked for."""
        if isinstance(value, enum.Enum):
            return f"{type(value).__qualname__}.{value.name}"
        if value is None or isinstance(value, (str, bytes, int, float, complex, torch.dtype)):
            return repr(value)
        if isinstance(value, (type, types.BuiltinFunctionType)):
            return value.__qualname__
        if isinstance(value, types.ModuleType):
            return value.__name__
        if depth > DEPTH or id(value) in self._open:
            return type(value).__qualname__
        if isinstance(value, torch.Tensor) and self._patches is not None:
            self._patches.append(value)
            return "weight"
        if id(value) not in self._known:
            self._open.add(id(value))
            try:
                words = self._parts(value, depth)
            finally:
                self._open.discard(id(value))
            if not isinstance(value, (torch.Tensor, comfy.model_patcher.ModelPatcher)):
                return words
            self._known[id(value)] = value, words
        return self._known[id(value)][1]

    def _parts(self, value: Any, depth: int) -> Any:
        def read(*values):
            return [self.read(one, depth + 1) for one in values]

        if isinstance(value, (list, tuple)):
            return [self.read(one, depth) for one in value]
        if isinstance(value, (set, frozenset)):
            return sorted((self.read(one, depth) for one in value), key=repr)
        if isinstance(value, dict):
            return sorted(([self.read(key, depth), self.read(one, depth)] for key, one in value.items()), key=repr)
        if isinstance(value, (np.ndarray, np.generic)):
            content = value.tolist() if value.dtype == object else value.tobytes()
            return [str(value.dtype), value.shape, self.read(content, depth)]
        if isinstance(value, torch.Tensor):
            return tensor_words(value, WHOLE)
        if isinstance(value, comfy.model_patcher.ModelPatcher):
            return self._model(value, depth)
        if isinstance(value, torch.nn.Module):
            return self._module(value, depth)
        if isinstance(value, functools.partial):
            return read(value.func, value.args, value.keywords)
        if isinstance(value, types.MethodType):
            owner = value.__self__
            return read(value.__func__, type(owner) if isinstance(owner, torch.nn.Module) else owner)
        if isinstance(value, types.FunctionType):
            cells = [_content(cell) for cell in value.__closure__ or ()]
            return read(value.__qualname__, value.__code__, cells, value.__defaults__, value.__kwdefaults__)
        if isinstance(value, types.CodeType):
            return read(value.co_code, value.co_names, value.co_consts)
        if isinstance(value, (range, bytearray, collections.deque)):
            return read(type(value), list(value))
        if isinstance(value, slice):
            return repr(value)
        return self._object(value, depth)

    def _object(self, value: Any, depth: int) -> Any:
        """Any other object by its attributes, or by its class where these cannot be read."""
        try:
            if isinstance(patcher := getattr(value, "patcher", None), comfy.model_patcher.ModelPatcher):
                return [type(value).__qualname__, self.read(patcher, depth + 1)]  # a VAE, or a text encoder
            held = dict(getattr(value, "__dict__", {}))
            for cls in type(value).__mro__:
                names = cls.__dict__.get("__slots__", ())
                held |= {name: getattr(value, name, None) for name in ([names] if isinstance(names, str) else names)}
        except Exception:  # whatever a stranger's attribute does
            return type(value).__qualname__
        held.pop("__dict__", None)
        held.pop("__weakref__", None)
        return [type(value).__qualname__, self.read(held, depth + 1)]

    def _model(self, patcher, depth: int) -> list:
        model = patcher.model
        self._own.update(map(id, model.modules()))
        for one in patcher.object_patches.values():  # is part of the model only while that is loaded
            if isinstance(one, torch.nn.Module):
                self._own.difference_update(map(id, one.modules()))
        config = getattr(model, "model_config", None)
        put = {
            name: self._attributes(one, depth) if isinstance(one, torch.nn.Module) else one
            for name, one in patcher.object_patches.items()
        }
        if hasattr(model, "model_sampling"):
            put["model_sampling"] = self._attributes(patcher.get_model_object("model_sampling"), depth)
        options = {name: value for name, value in patcher.model_options.items() if name != "multigpu_clones"}
        return [
            self.read([type(one) for one in (model, config, getattr(model, "diffusion_model", None))], depth),
            self.read([getattr(config, "unet_config", None), getattr(model, "model_type", None)], depth),
            weight_words(own_weights(patcher)), self._weight_patches(patcher.patches, depth),
            self._weight_patches(patcher.hook_patches, depth),
            self.read([
                put, options, getattr(patcher, "weight_wrapper_patches", None), _filled(patcher.wrappers),
                _filled(patcher.callbacks), patcher.injections, patcher.attachments, patcher.additional_models,
            ], depth),
        ]  # fmt: skip

    def _weight_patches(self, patches: dict, depth: int) -> list:
        before, self._patches = self._patches, []
        try:
            ordered = sorted(patches, key=lambda key: key if isinstance(key, str) else "")  # of hooks, as they were added
            words = self.read([[key, patches[key]] for key in ordered], depth)
            return [words, weight_words(dict(enumerate(self._patches)))]
        finally:
            self._patches = before

    def _module(self, module: torch.nn.Module, depth: int) -> list:
        if id(module) in self._own:
            return [type(module).__qualname__]
        return [self._attributes(module, depth), weight_words(named_tensors(module))]

    def _attributes(self, module: torch.nn.Module, depth: int) -> list:
        """A module's classes and plain attributes."""
        plain = {
            name: value for name, value in vars(module).items()
            if isinstance(value, (str, int, float, tuple)) and name[0] != "_" and name not in PASSING
            and "comfy" not in name and "lowvram" not in name
        }  # fmt: skip
        return self.read([list(type(module).__mro__), plain], depth)


def _filled(by_kind: dict[str, dict]) -> dict:
    """Without the empty places that taking a wrapper away leaves."""
    found = {kind: {key: functions for key, functions in by_key.items() if functions} for kind, by_key in by_kind.items()}
    return {kind: by_key for kind, by_key in found.items() if by_key}


def _content(cell) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return None
