"""Recipes of training runs. The recipes themselves are functions in scenes.py; the other modules build them."""
