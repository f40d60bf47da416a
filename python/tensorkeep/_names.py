"""The public names. Importing this imports all of the package but its framework modules: ``__init__.py`` does so when one
of them is first asked for.
"""

from __future__ import annotations

from . import rng as rng
from ._errors import *
from ._checkpoint import Checkpoint as Checkpoint, Difference as Difference
from ._files import Written as Written, load as load, open as open, save as save
from ._given import Listed as Listed, Resumed as Resumed
from ._into import LoadReport as LoadReport, load_into as load_into
from ._pending import Pending as Pending, Saved as Saved
from ._policy import Every as Every, Keep as Keep
from ._restore import LeftOut as LeftOut
from ._store import Store as Store
from ._tensorkeep import __version__ as __version__
from ._train import TrainState as TrainState
from ._views import Info as Info, TensorView as TensorView
from ._walk import register as register
