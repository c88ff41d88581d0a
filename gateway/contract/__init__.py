"""The ground floor: the words every room shares. Imports nothing of ours, does nothing."""
