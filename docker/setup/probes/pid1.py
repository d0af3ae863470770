"""Tries to read, slow down and starve PID 1, which is the shim."""
import os
import resource

for name, attempt in (
    ("mem", lambda: os.close(os.open("/proc/1/mem", os.O_RDWR))),
    ("environ", lambda: open("/proc/1/environ", "rb").read()),
    ("root", lambda: os.listdir("/proc/1/root")),
    ("fd", lambda: os.listdir("/proc/1/fd")),
    ("nice", lambda: os.setpriority(os.PRIO_PROCESS, 1, 19)),
    ("limit", lambda: resource.prlimit(1, resource.RLIMIT_NOFILE, (3, 3))),
    ("affinity", lambda: os.sched_setaffinity(1, {0})),
    ("idle", lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0))),
):
    try:
        attempt()
        print("DONE", name)
    except OSError as error:
        print(f"{name}: {error.strerror}")
print("#end")
