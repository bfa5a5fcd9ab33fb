"""The pages of the studio, one module each.

The folder is not called `pages`: Streamlit takes a folder of that name beside the main script for pages of its own, and
runs their files directly when a browser reconnects after a restart.
"""
