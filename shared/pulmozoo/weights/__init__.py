from .published import convert as convert
