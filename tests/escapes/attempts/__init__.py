"""Escape attempts by what they go for: a name and the Python that tries.

Each may use W, what a well-informed attacker would know of the host; `reveal(text)` prints what it found, `escaped()` says that it has
done what nobody in here may do, and `attempt(f)` calls f and goes on whatever happens.
"""
