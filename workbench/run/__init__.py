"""What a command runs: recipes, files measured and compared, the folder they leave."""
