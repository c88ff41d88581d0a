"""What ops look at: a journal of what happened lately, the view made of it, and the page that shows it."""
