"""The pages of the studio, one module each.

The folder is not called `pages`, because Streamlit runs the files of a folder of that name directly when a browser
reconnects after a restart.
"""
