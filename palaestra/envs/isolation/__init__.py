"""Where environments run: in this loop, a thread, a worker process, another interpreter, or on another machine."""
