"""Where tags are, by a hidden Markov model: reads and silence to visits, with a radio that is learnt."""
