"""The stages of the walk, one file each. Each shows what is chosen and says what is chosen next."""
