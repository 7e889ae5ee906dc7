"""One command on many processes: who they are, how tasks are divided among them, and how their results come together.

A launcher such as `torchrun` starts the same command N times, and tells each process its number by environment variables. Every process
computes a share of the tasks and then knows the results of all of them. Only the first process writes. The other folders use these names:

- `launch.launched`: this process's place among N, or None for a command that runs alone;
- `ranks.here`: the processes of the command that runs, with `rank`, `size`, `first`, `gather`, `add_in_order`, `agree` and `tell`;
- `shares.shares_of`, `shares.placed`: which tasks a process computes, and where their tensors lie in memory;
- `joining.joined`: connects the processes for the time of a command.

torch.distributed carries everything. This folder imports it only where a launcher has started several processes.
"""
