"""One module per command of `turnout`, each with `run(options) -> exit code`. They print, and keep no state."""
