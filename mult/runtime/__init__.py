"""What a process is: its rank and device, its signals, its floating point type, its memory, and its loader's workers."""
