"""`python -m otcache_core demo | bench | show | search`, and what only they use; the command line itself is `__main__`.

Read `demo.run_all` first; `search` and `schedule_text`, which is `show`, are short, `bench` compares with rivals.
"""
