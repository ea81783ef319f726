"""Many scans, over hours: found in folders and lists, written down one by one, resumed, retried, watched.

cases.py        which scans there are, which of them are this shard's, and where their results go
journal.py      the file that says what happened to each case
ledger.py       what the journal means: what is done already, what is ours, what is left half done
answers.py      what came of one scan
here.py         scans in this process, one after the other
workers.py      scans in processes that may crash or hang
worker.py       what runs in such a process
run.py          all of it together, with retries
"""
