"""Data sets as their files have them, flaws included: for checking, converting and splitting."""
