"""The message catalogue's domain, and nothing else."""

from translationstring import TranslationStringFactory

_ = TranslationStringFactory("asyncview")
