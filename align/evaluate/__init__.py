"""Evaluation: pass@k of a model on problems with a reward.

The package shares its name with the function `align.evaluate`, so it can be called as that function.
"""

from __future__ import annotations

import sys
from types import ModuleType

from align.api import evaluate as _evaluate


class _CallablePackage(ModuleType):
    """`import align.evaluate.statistics` puts this package where the function was: `align.evaluate(...)` works all the same."""

    __call__ = staticmethod(_evaluate)


sys.modules[__name__].__class__ = _CallablePackage
