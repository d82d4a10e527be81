"""What create_task.py needs to make a task, and a task itself does not."""
