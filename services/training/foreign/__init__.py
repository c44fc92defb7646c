"""Classifiers that were trained elsewhere: opened, wrapped, differentiated, compared."""
