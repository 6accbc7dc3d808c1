"""Many runs: a table of them, run here, by Ray or by SLURM, and the search. A single run belongs to training."""
