"""Measurements, one file each: ``lvspec bench``. They run real servers and write dated records."""
