"""What training minimises: every loss, chosen by name."""
