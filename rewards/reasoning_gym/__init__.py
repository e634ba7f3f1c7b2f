"""Judges answers to reasoning-gym's problems with checkers of our own: nothing here runs model text."""
