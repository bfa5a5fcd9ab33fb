"""Speech to text: audio in any form -> 16 kHz samples -> voice activity -> Whisper -> words. Stands alone."""
