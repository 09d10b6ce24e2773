"""What TensorBoard shows of a run beside the course of its trainings."""
