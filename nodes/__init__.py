"""The ComfyUI nodes, one file each; `schema`, `pictures` and `saved_schedules` are what several of them share.

Read `apply_cache` first: the smallest that samples.
"""

from comfy_api.latest import ComfyExtension

from ..otcache_core.errors import OTCacheError

# Before an error's sentence ComfyUI shows its class with the module's path, unless it is Python's own.
OTCacheError.__module__, OTCacheError.__qualname__ = "builtins", "OTCache"


class OTCacheExtension(ComfyExtension):
    """Lists the node classes for ComfyUI."""

    async def get_node_list(self) -> list:
        from .anchor_search import OTAnchorSearch
        from .apply_cache import OTApplyCache
        from .auto_cache import OTAutoCache
        from .budget_interpolate import OTBudgetInterpolate
        from .cached_sampler import OTCachedSampler
        from .compare import OTCompare
        from .demo_model import OTDemoModel
        from .load_schedule import OTLoadSchedule, register_route
        from .reference_schedule import OTReferenceSchedule
        from .save_schedule import OTSaveSchedule
        from .saved_schedules import register_folder

        register_route()
        register_folder()  # not in on_load, which ComfyUI 0.8 and older do not call
        return [OTAutoCache, OTReferenceSchedule, OTAnchorSearch, OTBudgetInterpolate, OTCachedSampler, OTApplyCache,
                OTLoadSchedule, OTSaveSchedule, OTCompare, OTDemoModel]  # fmt: skip
