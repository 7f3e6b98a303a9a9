"""Balance methods: the tasks' losses of a step -> the gradients of a step. METHODS in choose.py is the list of them."""
