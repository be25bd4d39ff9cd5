"""When conditionings and ControlNets are in use, compared with noise levels as ComfyUI compares them."""

from math import inf

import numpy as np
import torch


def time_range(cond: dict, dtype: torch.dtype) -> tuple[float, float]:
    """(first, last) sigma at which a conditioning is in use, as ComfyUI compares them with noise levels of `dtype`."""
    return rounded(cond.get("timestep_start", inf), dtype), rounded(cond.get("timestep_end", -inf), dtype)


def rounded(value: float, dtype: torch.dtype) -> float:
    """`value` in the precision of noise levels of `dtype`.

    torch rounds a number before it compares it with a tensor, which matters where a bound is one of the grid's points.
    """
    value = float(value)
    if dtype == torch.float64:
        return value
    if dtype == torch.float16:
        return float(np.float16(value))
    single = np.float32(value)
    if dtype == torch.bfloat16:  # the upper half of a float32, ties to even
        bits = int(single.view(np.uint32))
        single = np.uint32((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)
    return float(single)


def time_ranges(conds: list[dict], dtype: torch.dtype) -> list[tuple[float, float]]:
    """(first, last) sigma of every conditioning and ControlNet that is not in use all the time."""
    ranges = []
    for cond in conds:
        ranges.append(time_range(cond, dtype))
        control = cond.get("control")
        while control is not None:
            start, end = getattr(control, "timestep_range", None) or (inf, -inf)
            ranges.append((rounded(start, dtype), rounded(end, dtype)))
            control = getattr(control, "previous_controlnet", None)
    return [pair for pair in ranges if pair != (inf, -inf)]
