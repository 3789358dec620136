"""What is known of codes beside the notes: their titles and other terms for them, and a coder that is made of these alone."""
