"""A small world of word problems, and the recipe that trains the two models shipped for it.

    world.py     the problems: three sets, three splits that share no question
    corpus.py    what the two models read in pre-training: clean, sloppy and drill documents
    recipe.py    the hyper-parameters, and `build`: problems to model directories
    training.py  the tokenizer and the pre-training loop
    measure.py   greedy accuracy of a model on the world's problems
    card.py      the model cards and the checksums

`world` imports without torch. models/ holds the two models (`models.MICROWORLD`).
"""
