"""What Linux gives: one small file for each mechanism, standard library only."""
