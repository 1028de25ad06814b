"""One line for a model that exists: `optimize`, which `restore` undoes, and `enabled` for code that is no model."""

from trident.optimize.functions import enabled as enabled
from trident.optimize.modules import BACK as BACK
from trident.optimize.modules import SWAPS as SWAPS
from trident.optimize.modules import Report as Report
from trident.optimize.modules import optimize as optimize
from trident.optimize.modules import restore as restore
