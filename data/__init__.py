"""Data sources, chat templates, mixtures and generated tasks. Imported only as `align.data`."""

if __name__ != "align.data":
    raise ImportError(f"this folder is the package align.data, not {__name__!r}: write `import align.data`")
