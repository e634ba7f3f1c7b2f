"""`code`: a program is judged by running it on tests, in a sandbox, by a grader that trusts nothing it says."""
