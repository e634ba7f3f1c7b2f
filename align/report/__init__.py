"""The report of one or several runs: a page that needs nothing but a browser.

The package shares its name with the function `align.report`, so it can be called as that function.
"""

from __future__ import annotations

import sys
from types import ModuleType

from align.api import report as _report


class _CallablePackage(ModuleType):
    """`import align.report.live` puts this package where the function was: `align.report(...)` works all the same."""

    __call__ = staticmethod(_report)


sys.modules[__name__].__class__ = _CallablePackage
