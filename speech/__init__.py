"""Speech to text: audio in any form -> 16 kHz samples -> voice activity -> Whisper -> words.

It imports no other package of the project.
"""
