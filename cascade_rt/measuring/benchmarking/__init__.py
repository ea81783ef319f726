"""Benchmark engines side by side: the time per scan from file to file, and whether the masks stay the same.

arms              what is measured: a backend in a precision
cascade_runner    run the cascade of this package as an arm
worker            a separate process for each arm, so that arms do not share threads or memory
measure           cold start, warm-up, then rounds in which the arms take turns
masks             compare the masks of each arm with those of the reference
statistics        percentiles, and speed-ups with confidence intervals
machine           describe the machine
gpu_memory        memory that a process holds on NVIDIA GPUs
report            all results as plain values, with machine, versions and bundle
chart             draw the steps as a picture
"""
