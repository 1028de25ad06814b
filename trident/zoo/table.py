"""All adapters, by the digest of the methods that tell their class."""

from trident.zoo import diffusers, timm, transformers
from trident.zoo.adapter import Adapter, digest

ADAPTERS: dict[str, Adapter] = {**transformers.ADAPTERS, **timm.ADAPTERS, **diffusers.ADAPTERS}
METHODS = sorted({adapter.methods for adapter in ADAPTERS.values()})


def adapter(cls: type) -> Adapter | None:
    for methods in METHODS:
        found = ADAPTERS.get(digest(cls, methods) or "")
        if found is not None and found.methods == methods:
            return found
    return None
