"""OTCache for ComfyUI. Nothing is imported before ComfyUI asks for the nodes, so that the library works without it."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """What ComfyUI calls to get the nodes."""
    from .nodes import OTCacheExtension

    return OTCacheExtension()
