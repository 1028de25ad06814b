"""Layers that do an activation in their own kernel: `activation=` of their constructors."""

from typing import Any


class Activated:
    activation: str | None = None  # of modules whose class was reassigned, too

    def __init__(self, *args: Any, activation: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if activation is not None:
            self.activation = activation

    @property
    def beyond_torch(self) -> bool:
        """Does it compute what torch's class cannot?"""
        return self.activation is not None

    def extra_repr(self) -> str:
        text: str = super().extra_repr()  # type: ignore[misc]
        return text if self.activation is None else f"{text}, activation={self.activation}"
