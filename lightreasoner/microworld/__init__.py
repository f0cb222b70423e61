"""The two models shipped, in models/; recipes/microworld/ trains them."""
