"""One file per kind of model: what an input must be, and how it runs. Not when it runs: that is the worker's."""
