"""How functions of one task run over many: the plan, the device, the threads."""
