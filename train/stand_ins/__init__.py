"""Tables of what stands for a noun that a model does not know, made from WordNet, word vectors and emoji names."""
