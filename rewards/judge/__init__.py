"""Rewards that another model decides: rubrics and judges, and the client that asks it."""
