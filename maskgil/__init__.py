"""MaskGIL: masked generation of images. Models, decoding, tokenizers; imports nothing from the other rooms."""
