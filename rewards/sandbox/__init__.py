"""Untrusted programs run here, away from everything: namespaces, seccomp, Landlock, limits (docs/sandbox.md)."""

from align.rewards.sandbox.program import Ended, LayerName, Limits, Program, SandboxError
from align.rewards.sandbox.sandbox import Process, Sandbox

__all__ = ["Ended", "LayerName", "Limits", "Process", "Program", "Sandbox", "SandboxError"]
