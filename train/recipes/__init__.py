"""Recipes of training runs: functions that return everything a run needs (train/commands.py lists the modules)."""
