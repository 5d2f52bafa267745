"""Software engineering: tasks in repositories, worked on in sandboxes and judged by sealed tests."""
