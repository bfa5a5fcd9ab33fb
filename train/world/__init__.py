"""The open world: up to 1,000 things in rendered scenes, with captions and labels.

things.tsv lists the things; fetch_drawings.py collects their drawings; arrangement.py and scene_sampling.py make
scenes; phrases.py writes captions; backdrops.py and renderer.py render; answers.py makes labels. See README.md.
"""
