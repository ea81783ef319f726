"""Cohort runs of many scans over hours: find scans in folders and lists, keep a journal, resume, retry and watch.

cases.py           find the scans, select those of a shard, and decide where their results go
own_masks.py       recognize masks of earlier runs among the scans
left_out.py        count images in formats that are not read
journal.py         the file that records what happened to each case
resume_state.py    interpret the journal: what is finished, what is ours, what was interrupted
results_table.py   `results.csv`: one row for each case, from the journals and the reports
outcome.py         what became of a case, with or without a journal
task_result.py     the result of one scan, in a form that passes between processes
workers.py         segment scans in worker processes, which may crash or hang
worker.py          the worker process
run.py             run cases, one or many, with retries; `run_here` segments in this process
"""
