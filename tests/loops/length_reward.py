"""A reward with a signal even for a model that knows nothing: the share of digits among the characters."""


def spread(completions, **_):
    texts = [completion if isinstance(completion, str) else completion[-1]["content"] for completion in completions]
    return [sum(character.isdigit() for character in text) / max(1, len(text)) for text in texts]
