"""The generated tasks by name, without importing them: recipes are checked against this list."""

TASK_NAMES: tuple[str, ...] = ("chain_sum", "countdown", "knights", "one_liner")
