"""Rewards and verifiers. Imported only as `align.rewards`."""

if __name__ != "align.rewards":
    raise ImportError(f"this folder is the package align.rewards, not {__name__!r}: write `import align.rewards`")
