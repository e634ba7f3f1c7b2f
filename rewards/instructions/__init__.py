"""`instructions`: verifiable constraints on how an answer is written, as in IFEval and IFBench."""
