"""What tests of judges share with those of the rollout: a tokenizer whose ids are the bytes."""

from tests.rollout.conftest import tokenizer

__all__ = ["tokenizer"]
