"""Queries -> rankings: engines, search, fusion."""
