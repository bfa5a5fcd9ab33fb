"""The built-in corpus: rendered scenes whose contents are known.

objects.tsv lists what can be drawn; sprites.py draws it; scene.py samples scenes and says which combinations are held
out; captions.py writes their captions; render.py renders them; judge.py detects what is on a picture.
"""
