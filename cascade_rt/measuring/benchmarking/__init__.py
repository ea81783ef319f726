"""How long a scan takes from file to file, side by side on several engines, and whether the masks stay the same.

arms          what is measured: a backend in a precision
worker        a process of its own for each arm, so that threads and memory of one are not those of another
measure       cold start, warm-up, then rounds in which the arms take turns
masks         how far the mask of each arm is from that of the reference
statistics    percentiles, and ratios with their intervals
report        all of it as plain values, with machine, versions and bundle
chart         the steps as a picture
"""
