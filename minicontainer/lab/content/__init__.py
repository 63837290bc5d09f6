"""What each lesson asks: its predictions, and its exercises with their checks and hints."""
