"""The web page: views/ has a module for each page, whose `page()` main.py adds to the menu."""
