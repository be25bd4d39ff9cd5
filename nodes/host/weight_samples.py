"""Reading a few elements of many weights, wherever they lie and however they are stored, and finding a model's own ones.

ComfyUI patches weights in place while a model is loaded and keeps the originals in the patcher's backup.
"""

import hashlib
from collections.abc import Hashable, Iterator, Mapping

import numpy as np
import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ...otcache_core.calibration.same_model import spread

RUN = 32  # elements read of each weight, from its middle on: one page of a file that is mapped into memory


def own_weights(patcher) -> dict[str, torch.Tensor]:
    """The tensors by name with which the model of a ModelPatcher computes, before weight patches.

    Objects that this patcher puts in place of the model's own are in it, those that another one has left there are not.
    """
    replaced = {name: patcher.get_model_object(name) for name in {*patcher.object_patches, *patcher.object_patches_backup}}
    prefixes = tuple(f"{name}." for name in replaced)
    found = {
        name: tensor for name, tensor in named_tensors(patcher.model).items()
        if name not in replaced and not name.startswith(prefixes)
    }  # fmt: skip
    for name, value in replaced.items():
        if isinstance(value, torch.nn.Module):
            found |= {f"{name}.{inner}": tensor for inner, tensor in named_tensors(value).items()}
        elif isinstance(value, torch.Tensor):
            found[name] = value
    kept = {name: backup[0] for name, backup in getattr(patcher, "hook_backup", {}).items()}
    kept |= getattr(patcher, "backup_buffers", {})
    kept |= {name: backup.weight for name, backup in patcher.backup.items()}
    return {name: kept.get(name.replace("_orig_mod.", ""), tensor) for name, tensor in found.items()}  # a compiled model's


def named_tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name, but for buffers that are made while running."""
    found = {}
    for prefix, part in module.named_modules(remove_duplicate=False):
        for name, tensor in {**part._parameters, **part._buffers}.items():
            if tensor is not None and name not in part._non_persistent_buffers_set:
                found[f"{prefix}.{name}" if prefix else name] = tensor
    return found


def weight_words(named: Mapping[Hashable, torch.Tensor]) -> list:
    """Names, types and shapes in the order of names, and one hash of `RUN` elements each; one copy a device."""
    words, runs = [], []
    for name, tensor in sorted(named.items()):
        words.append((name, type(tensor).__qualname__, str(tensor.dtype), tuple(tensor.shape)))
        for part in stored(tensor):
            words.append((str(part.dtype), tuple(part.shape)))
            if not part.is_meta:
                begin = max(part.numel() - RUN, 0) // 2
                runs.append(_elements(part, np.arange(begin, min(begin + RUN, part.numel()))))
    return [words, hashlib.sha256(b"".join(_to_host(runs))).hexdigest()]


def tensor_words(tensor: torch.Tensor, most: int) -> list:
    """Type, shape and a hash of up to `most` elements, spread evenly where there are more."""
    runs = []
    for part in stored(tensor):
        if not part.is_meta:
            size = part.numel()
            places = np.arange(size) if size <= most else spread(np.arange(most), size)
            runs.append(_elements(part, places))
    return [str(tensor.dtype), str(tensor.layout), tuple(tensor.shape), hashlib.sha256(b"".join(_to_host(runs))).hexdigest()]


def stored(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The plain tensors that hold what is in `tensor`: of a quantised one, its codes and scales. Nothing is dequantised."""
    if tensor.layout != torch.strided or tensor.is_nested or torch.nn.parameter.is_lazy(tensor):
        return  # no elements that can be picked: it counts by type and shape
    if tensor.is_quantized:
        yield tensor.detach().int_repr()
    elif is_traceable_wrapper_subclass(tensor):
        for name in tensor.__tensor_flatten__()[0]:
            yield from stored(getattr(tensor, name))
    else:
        with torch._C.DisableTorchFunctionSubclass():  # other packs' tensors answer with the shape that they stand for
            yield tensor.detach().as_subclass(torch.Tensor).resolve_conj().resolve_neg()


def _elements(tensor: torch.Tensor, places: np.ndarray) -> torch.Tensor:
    """Elements of a plain tensor by their place in row-major order, as bytes on its device."""
    if tensor.is_contiguous() and len(places) and places[-1] - places[0] == len(places) - 1:
        found = tensor.view(-1)[places[0] : places[-1] + 1]
    else:
        index = np.unravel_index(places, tensor.shape) if tensor.ndim else ()
        found = tensor[tuple(torch.from_numpy(axis).to(tensor.device) for axis in index)].reshape(-1)
    return found.contiguous().view(torch.uint8)


def _to_host(runs: list[torch.Tensor]) -> list[bytes]:
    """The bytes of each run, in their order."""
    found: list[bytes] = [b""] * len(runs)
    for device in {run.device for run in runs}:
        here = [number for number, run in enumerate(runs) if run.device == device]
        data, at = torch.cat([runs[number] for number in here]).cpu().numpy().tobytes(), 0
        for number in here:
            found[number] = data[at : at + len(runs[number])]
            at += len(runs[number])
    return found
