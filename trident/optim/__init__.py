"""torch.optim with Trident's kernels: `from trident import optim` replaces `from torch import optim`.

The classes are torch's own (Lion, which torch lacks, is one more): their arguments, their state_dict, hooks, schedulers
and GradScaler. What the kernels lack, an option or a kind of tensor, torch's own step does.
"""

from torch.optim import *  # noqa: F403  every optimizer that Trident does not have is torch's
from torch.optim import lr_scheduler as lr_scheduler
from torch.optim import swa_utils as swa_utils

from trident.optim.adafactor import Adafactor as Adafactor
from trident.optim.adam import Adam as Adam
from trident.optim.adam import AdamW as AdamW
from trident.optim.clip import clip_grad_norm_ as clip_grad_norm_
from trident.optim.lion import Lion as Lion
from trident.optim.muon import Muon as Muon
from trident.optim.sgd import SGD as SGD
