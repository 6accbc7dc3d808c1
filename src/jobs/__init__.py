"""Many runs: a table of them, worked off here, by Ray or by SLURM, and the search. One run belongs to training."""
