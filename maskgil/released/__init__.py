"""Text-to-image models that others have released, under their own names and in their own layout."""
