"""The open world: up to 1,000 things, placed in scenes that look like pictures, with captions and labels.

things.tsv names the things; fetch_drawings.py collects their drawings; arrangement.py invents scenes; phrases.py says
them; backdrops.py and renderer.py draw them; answers.py says in numbers what is true of them. See README.md.
"""
