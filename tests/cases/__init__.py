"""What each operator is checked against, and at which sizes it is timed. Tests and the bench both read this.

One file a family. A case is named after its function; what follows a dot tells variants of it apart.
"""

import dataclasses

from tests.cases import activation, dropout, linear, loss, normalization, padding, pooling, softmax, vision
from tests.cases.case import Case

FAMILIES = (activation, dropout, linear, loss, normalization, padding, pooling, softmax, vision)
CASES = {
    name: dataclasses.replace(case, name=name.split(".")[0])
    for family in FAMILIES
    for name, case in family.CASES.items()
}

__all__ = ["CASES", "Case"]
