"""The compiled functions of the engine.

A tag's hidden state is the cell of the floor that it is in, whether its carrier stands or walks, and whether a body
blocks it. Each tick with reads is an *event*; so is each piece of the silence before one, which is weighed when the tag
is heard again. A tag keeps its active cells and their probabilities given all reads so far (the forward pass); with a
lag, the events that wait are smoothed by those that followed (the backward pass), and the likeliest zone of each is
decided. Rabiner, "A Tutorial on Hidden Markov Models", Proc. IEEE 77(2), 1989, section III.

Walks are tested uncompiled (tests/dwell/test_markov.py).
"""
