"""What a plan is checked for without a network; each check answers with findings."""
