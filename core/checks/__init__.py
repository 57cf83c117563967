"""What a plan is checked for without a network; each check answers with findings.

Checks run in threads of their own. So what they use of this package is imported at the top of their
files: of two threads that import a package and a module in it at once, one would fail.
"""
