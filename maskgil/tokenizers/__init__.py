"""Pixels <-> tokens: vq.py (discrete codes), latent.py (continuous latents)."""
