"""Run directories: stages that are written aside and renamed when whole, and what they record."""
