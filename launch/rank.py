"""What one rank runs: the training loop, with errors reported to the process that started it.

python -m align.launch.rank REPORT ARGUMENTS, where ARGUMENTS is JSON: the recipe, its overrides, and how to open the run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from align.errors import AlignError
from align.launch.report import write_report
from align.run.parent import end_with


def main() -> None:
    """Train, and end with the exit code of what went wrong."""
    report, given = Path(sys.argv[1]), json.loads(sys.argv[2])
    end_with(given["parent"])
    if error := train(given):
        write_report(report, error)
        sys.exit(error.exit_code)


def train(given: Mapping[str, Any]) -> AlignError | None:
    """Run the loop; what went wrong."""
    from align import api
    from align.cli import as_defect

    try:
        api.train(given["recipe"], given["overrides"], **given["how"])
    except AlignError as error:
        return error
    except Exception as error:  # noqa: BLE001  nobody foresaw it: the traceback goes into a file
        return as_defect(error)
    return None


if __name__ == "__main__":
    main()
