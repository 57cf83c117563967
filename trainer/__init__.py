"""What runs on the machines that train: the recipes, in torch."""
