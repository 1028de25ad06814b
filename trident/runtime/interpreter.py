"""Triton's interpreter, as far as older ones need help."""

import functools
from typing import Any

import numpy as np


@functools.cache
def mend() -> None:
    """What later interpreters do by themselves. Drop when triton>=3.8."""
    from triton.runtime import interpreter

    patch_tensor = interpreter._patch_lang_tensor

    def patch_index(tensor: Any, scope: Any) -> None:
        """3.6 makes bounds of loops of arrays with one element, which numpy 2.4 refuses."""
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patch_index
    # 3.6's and 3.7's give NaN where compiled code gives the other operand
    builder = interpreter.InterpreterBuilder
    builder.create_minnumf = lambda self, a, b: self.binary_op(a, b, np.fmin)
    builder.create_maxnumf = lambda self, a, b: self.binary_op(a, b, np.fmax)
