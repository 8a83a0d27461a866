"""Writes the table into docs/reference."""

from fieldtable import PAGE, page

PAGE.write_text(page())
