"""What any program needs: files, locks, progress, text on a terminal."""
