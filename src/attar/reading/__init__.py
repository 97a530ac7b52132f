"""Reading: rows as the data lay them out → what one model was made for: its columns and categories, its tokens."""

from attar.reading.columns import Reading, schema_from_json, schema_to_json
from attar.reading.text import Bags, Remembers, TextFeed, TextModel, TextReading, Tokens, text_reading_from

__all__ = [
    "Bags",
    "Reading",
    "Remembers",
    "TextFeed",
    "TextModel",
    "TextReading",
    "Tokens",
    "schema_from_json",
    "schema_to_json",
    "text_reading_from",
]
