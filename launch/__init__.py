"""Placing the parts of a run on processes and machines. Imported only as `align.launch`."""

if __name__ != "align.launch":
    raise ImportError(f"this folder is the package align.launch, not {__name__!r}: write `import align.launch`")
