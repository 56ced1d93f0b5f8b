"""What was lost and gained: fidelity of videos, speed, and the report."""
