"""From candidates to training lists: choose the questions, ask the teachers, keep the answers."""
