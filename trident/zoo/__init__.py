"""Classes of other libraries whose forward Trident does better, told by what their forward says.

No library is imported: a class is looked at when a model holds it. `adapter` finds the row of a table for it.
"""

from trident.zoo.adapter import Adapter as Adapter
from trident.zoo.adapter import digest as digest
from trident.zoo.adapter import too_small as too_small
from trident.zoo.attention import register_attention as register_attention
from trident.zoo.experts import register_experts as register_experts
from trident.zoo.functions import rewired as rewired
from trident.zoo.table import adapter as adapter
