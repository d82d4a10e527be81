"""The iterate loop: what is wrong with a run, one change to try, runs beside each other, rows worth a second look."""
