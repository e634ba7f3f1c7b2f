"""What runs inside the sandbox: sent there as text, never imported by the reward."""
