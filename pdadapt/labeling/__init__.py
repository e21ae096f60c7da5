"""Candidates -> labels -> training lists: what is asked, how answers are kept."""
