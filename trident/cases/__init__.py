"""What each operator is checked against, and at which sizes it is timed. Tests and the bench both read this.

One file a family. A case is named after its function; what follows a dot tells variants of it apart.
"""

import dataclasses
import importlib
import pkgutil

from trident.cases.case import Case

SHARED = ("budgets", "case", "closeness")  # what the families import
FAMILIES = [
    importlib.import_module(f"trident.cases.{m.name}") for m in pkgutil.iter_modules(__path__) if m.name not in SHARED
]
CASES: dict[str, Case] = {
    name: dataclasses.replace(case, name=name.split(".")[0])
    for family in FAMILIES
    for name, case in family.CASES.items()
}

__all__ = ["CASES", "Case"]
