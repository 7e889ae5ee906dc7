"""Run a function of one task over many: the device, the plan, the threads, recorded programs and C kernels.

Nothing here changes a result by more than rounding. The other folders use these names only:

- `device.choose_device`, `device.place`: the device that a config names, and tensors on it;
- `plan.Device`, `plan.Plan`, `plan.Work`, `plan.work_of`, `plan.plan_for`: how a device runs the tasks of a batch;
- `running.Runner`, with `map` and `mean_gradient`: a function over the chunks of a batch. A loop over tasks can replace it.
"""
