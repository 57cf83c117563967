"""CUDA devices for a build of torch that has none: the memory and kernels of the CPU.

What torch and the trainer do differently on a GPU is done, and what a GPU refuses is refused:
operands on different devices, memory that is read before it has arrived, allocations over a limit.
Each time that the host waits for the device is recorded. What it cannot show is speed, CUDA's own
kernels, and work of several streams in the wrong order.

`build` compiles it, `device` makes torch believe in it, `recording` tells what a call did to it. It
is for processes of its own: once it is installed, torch cannot be told otherwise.
"""
