"""Teachers judge documents one by one (points) and two by two (pairs)."""
