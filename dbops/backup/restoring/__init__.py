"""What a restore asks of and writes into its target: what is there, the mark of one that is not finished."""
