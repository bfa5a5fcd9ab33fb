"""Everything a person touches: the command line, the page, the engine that both share, the gallery and the microphone.

`app` imports `speech`, `text_encoder` and `maskgil`; nothing imports `app`.
"""
