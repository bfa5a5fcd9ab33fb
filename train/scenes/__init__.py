"""The built-in corpus: drawn scenes with known truth.

objects.tsv names what can be drawn; sprites.py turns it into pixels; layout.py invents scenes (and holds combinations
out); captions.py says them; render.py draws them; reader.py looks at a picture and says what is on it.
"""
