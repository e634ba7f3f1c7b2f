"""A reward that the prompt alone decides: what a critic should expect of any answer is known."""


def first_digit(prompts, **_):
    texts = [prompt if isinstance(prompt, str) else prompt[-1]["content"] for prompt in prompts]
    return [int(next(character for character in text if character.isdigit())) / 9 for text in texts]


def broken(prompts, **_):
    raise RuntimeError("broken")
