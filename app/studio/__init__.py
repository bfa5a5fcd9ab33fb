"""The page: one module per room, each with a `page()` that `main.py` puts on the menu."""
