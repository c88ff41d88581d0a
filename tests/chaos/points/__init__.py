"""Every point before and after each commit and each send, as a place to die at: enumerated, hit, and judged."""
