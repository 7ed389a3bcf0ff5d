"""The message catalogue's domain, and how its languages write numbers."""

from translationstring import TranslationStringFactory

_ = TranslationStringFactory("asyncview")

#: What stands between thousands and before decimals, in languages with a catalogue.
#: For all others a page is in English.
SIGNS = {"de": ".,", "es": ".,", "fr": "\u202f,", "it": ".,"}


def written(number: float, language: str) -> str:
    """A number as people write it in a language: 1,234.5 in "en", 1.234,5 in "de"."""
    signs = SIGNS.get(language[:2], ",.")
    return format(number, ",").translate({44: signs[0], 46: signs[1]})
